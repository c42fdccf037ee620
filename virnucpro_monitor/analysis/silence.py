"""A runner that is not heard of: the dead man's switch. Pure."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

CLOCK_TOLERANCE = timedelta(minutes=10)


class SilenceReason(StrEnum):
    UNHEARD = "unheard"  # no result and no good start for longer than expected
    BEHIND = "behind"  # too many commits wait
    CLOCK = "clock"  # the last result is dated in the future: ages say nothing


@dataclass(frozen=True, slots=True, kw_only=True)
class Expectation:
    """What is normal for a target.

    Attributes:
        silent_after: without a sign of life; None: not looked at.
        max_behind: commits of the branch after the last one with a run; None: not looked at.
    """

    silent_after: timedelta | None = timedelta(hours=26)
    max_behind: int | None = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Silence:
    """Why a runner is taken for dead, or for too slow.

    Attributes:
        since: its last sign of life.
        commits_behind: None where that was not asked or cannot be told.
    """

    reason: SilenceReason
    since: datetime
    commits_behind: int | None = None

    @property
    def key(self) -> str:
        return f"{self.reason.value}:{self.since.isoformat()}"


def judge_silence(
    last_sign: datetime | None,
    commits_behind: int | None,
    expected: Expectation,
    now: datetime,
    lasting: Collection[SilenceReason] = (),
) -> tuple[Silence, ...]:
    """Whether a target's runner is as it should be; ages are of absolute time.

    Args:
        last_sign: its newest result, or its last start that ended well; None where it never had
            one, and then nothing is expected of it yet.
        lasting: what was told already: a lag is over only when half of it is made up for.
    """
    if last_sign is None:
        return ()
    found = []
    limit = expected.max_behind
    if limit is not None and SilenceReason.BEHIND in lasting:
        limit //= 2
    if last_sign > now + CLOCK_TOLERANCE:
        found.append(SilenceReason.CLOCK)
    elif expected.silent_after is not None and now - last_sign > expected.silent_after:
        found.append(SilenceReason.UNHEARD)
    is_behind = limit is not None and commits_behind is not None and commits_behind > limit
    # What cannot be told now is not over.
    if is_behind or (commits_behind is None and SilenceReason.BEHIND in lasting):
        found.append(SilenceReason.BEHIND)
    return tuple(
        Silence(reason=reason, since=last_sign, commits_behind=commits_behind) for reason in found
    )
