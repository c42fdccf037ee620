"""Series that are no longer measured: their last word says nothing of the branch today."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta

from virnucpro_monitor.analysis.series import SeriesKey
from virnucpro_monitor.records import Run

SETTLING = timedelta(hours=6)
"""A series may lag by one commit for this long: the runner may be on its way to it."""


def find_unwatched(
    series: Mapping[SeriesKey, Sequence[Run]], newest: Iterable[Run], now: datetime
) -> dict[SeriesKey, int]:
    """How many commits of the target were measured after a series' newest one, where any were.

    Args:
        series: runs in commit order.
        newest: runs of further series of the same targets.
        now: against which a lag of one commit is judged.

    Returns:
        Series that keep up are left out.
    """
    measured: dict[str, dict[int, datetime]] = defaultdict(dict)
    for run in (*(run for members in series.values() for run in members), *newest):
        position = run.commit.position
        if position is not None and run.commit.on_branch and _says_something(run):
            first = measured[run.target].get(position, run.started_at)
            measured[run.target][position] = min(first, run.started_at)
    lags = {}
    for key, members in series.items():
        places = [r.commit.position for r in members if r.commit.position is not None]
        if not places:
            continue
        last = max(places)
        later = [start for place, start in measured[key.target].items() if place > last]
        if len(later) > 1 or any(now - start > SETTLING for start in later):
            lags[key] = len(later)
    return lags


def _says_something(run: Run) -> bool:
    return run.effective_outcome.has_verdict or run.effective_outcome.is_bad
