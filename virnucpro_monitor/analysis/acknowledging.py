"""Whether somebody's acknowledgement of an incident still stands."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from virnucpro_monitor.analysis.series import lacks_values, worst_error
from virnucpro_monitor.records import Acknowledgement, Run


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What the acknowledgements of one incident come to.

    Attributes:
        acknowledgement: the newest that holds; if none does, the newest. None without any.
        broken_because: one sentence where none holds, else empty.
    """

    acknowledgement: Acknowledgement | None
    broken_because: str = ""

    @property
    def holds(self) -> bool:
        return self.acknowledgement is not None and not self.broken_because


def judge_acknowledgements(
    acknowledgements: Iterable[Acknowledgement], bad_runs: Sequence[Run], now: datetime
) -> Standing:
    """Judge the acknowledgements of one incident.

    Args:
        bad_runs: of the incident.
    """
    newest_first = sorted(acknowledgements, key=lambda a: (a.created_at, a.id or 0), reverse=True)
    for acknowledgement in newest_first:
        if not reason_not_standing(acknowledgement, bad_runs, now):
            return Standing(acknowledgement=acknowledgement)
    if not newest_first:
        return Standing(acknowledgement=None)
    reason = reason_not_standing(newest_first[0], bad_runs, now)
    return Standing(acknowledgement=newest_first[0], broken_because=reason)


def reason_not_standing(
    acknowledgement: Acknowledgement, bad_runs: Sequence[Run], now: datetime
) -> str:
    """Why an acknowledgement no longer holds, in one sentence; empty where it does.

    Only runs started after it was written can be worse than it allows: the others were known.
    """
    if acknowledgement.withdrawn_at is not None:
        return f"It was reopened by {acknowledgement.withdrawn_by or 'somebody'}."
    expiry = acknowledgement.expires_at
    if expiry is not None and expiry <= now:
        return f"The acknowledgement expired on {expiry:%Y-%m-%d}."
    limit = acknowledgement.reopen_if_worse_than
    if limit is None:
        return ""
    for run in bad_runs:
        if run.started_at <= acknowledgement.created_at:
            continue
        if lacks_values(run):
            return f"At {run.commit.short} sequences have no similarity at all."
        error = worst_error(run)
        if error is not None and error > limit:
            return (
                f"At {run.commit.short} the worst error is {error:.1e}, above the "
                f"{limit:.1e} that was accepted."
            )
    return ""
