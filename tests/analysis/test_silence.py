from datetime import UTC, datetime, timedelta

import pytest

from virnucpro_monitor.analysis.silence import Expectation, SilenceReason, judge_silence

NOW = datetime(2026, 5, 5, 12, tzinfo=UTC)
EXPECTED = Expectation(silent_after=timedelta(hours=26), max_behind=10)


@pytest.mark.parametrize(
    ("hours", "behind", "lasting", "reasons"),
    [
        (1, 0, (), []),
        (26, 10, (), []),
        (27, None, (), ["unheard"]),
        (1, 11, (), ["behind"]),
        (27, 11, (), ["unheard", "behind"]),
        # A lag is over when half of it is made up for, and not while it cannot be told.
        (1, 6, (SilenceReason.BEHIND,), ["behind"]),
        (1, 5, (SilenceReason.BEHIND,), []),
        (1, None, (SilenceReason.BEHIND,), ["behind"]),
        # Dated in the future: no age says anything, and the lag is told all the same.
        (-1, 11, (), ["clock", "behind"]),
        (-0.1, 0, (), []),
    ],
)
def test_a_runner_is_judged_by_its_last_sign_and_its_lag(
    hours: float, behind: int | None, lasting: tuple[SilenceReason, ...], reasons: list[str]
) -> None:
    sign = NOW - timedelta(hours=hours)
    found = judge_silence(sign, behind, EXPECTED, NOW, lasting)
    assert [one.reason for one in found] == reasons


def test_nothing_is_expected_of_what_never_ran_or_is_not_looked_at() -> None:
    assert judge_silence(None, 100, EXPECTED, NOW) == ()
    nothing = Expectation(silent_after=None, max_behind=None)
    assert judge_silence(NOW - timedelta(days=100), 100, nothing, NOW) == ()
