"""What broke between A and B: incidents that began there, and what nobody looked at."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from virnucpro_monitor.analysis.accuracy import AccuracyMove, find_accuracy_moves
from virnucpro_monitor.analysis.incidents import Incident, IncidentState, place_of
from virnucpro_monitor.analysis.movements import LOOKED_AT, Movement, find_movements
from virnucpro_monitor.analysis.series import SeriesKey, commit_date, split_series
from virnucpro_monitor.records import Commit, Run

Bound = Commit | datetime
"""One end of a range: a commit of the history, or a moment."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesNote:
    """A series and its newest run up to the end of the range, with one sentence about it."""

    key: SeriesKey
    latest: Run
    note: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesMovement:
    """A figure of a series that changed its level."""

    key: SeriesKey
    movement: Movement


@dataclass(frozen=True, slots=True, kw_only=True)
class Regressions:
    """What happened in the range (since, until]: after `since`, up to and with `until`.

    Attributes:
        broken: incidents that began in the range and last at its end, oldest first.
        recovered: incidents that began in the range and were fixed in it, or whose commits have
            left the branch.
        fixed: incidents from before the range that were fixed in it.
        judged: series with a verdict (passed or failed) in the range.
        vanished: series with runs before the range and none in it.
        unjudged: series with runs in the range of which none gave a verdict.
        appeared: judged series whose first verdict lies in the range: what they were before is not
            known.
        moved: figures below the gates that changed their level in the range, worse ones first.
        accuracy: where a side's worst distance to FP32 moved from one measured run to the next.
            Of both only what no incident tells of.
    """

    since: Bound | None
    until: Bound | None
    broken: tuple[Incident, ...]
    recovered: tuple[Incident, ...]
    fixed: tuple[Incident, ...]
    judged: tuple[SeriesKey, ...]
    vanished: tuple[SeriesNote, ...]
    unjudged: tuple[SeriesNote, ...]
    appeared: tuple[SeriesKey, ...]
    moved: tuple[SeriesMovement, ...] = ()
    accuracy: tuple[AccuracyMove, ...] = ()

    @property
    def num_judged(self) -> int:
        """The N of "judged N of M series"."""
        return len(self.judged)

    @property
    def num_series(self) -> int:
        """The M: all series that have any run up to the end of the range."""
        return len(self.judged) + len(self.vanished) + len(self.unjudged)


def find_regressions(
    runs: Sequence[Run],
    incidents: Iterable[Incident],
    *,
    since: Bound | None = None,
    until: Bound | None = None,
    movements: Callable[[Sequence[Run]], Iterable[Movement]] = find_movements,
) -> Regressions:
    """Answer "what broke between A and B" for all series of `runs`.

    Args:
        runs: in commit order within each target; from before the range too, so that a series that
            vanished is seen.
        incidents: derived from `runs`.
        since: the range begins after it; None for the beginning of history.
        until: the range ends with it; None for the end of history.
        movements: of the runs of one series; who asks for many ranges keeps what it gives.
    """
    incidents = tuple(incidents)
    broken: list[Incident] = []
    recovered: list[Incident] = []
    fixed: list[Incident] = []
    for incident in incidents:
        is_over = incident.state is IncidentState.REWRITTEN
        began_in = _in_range(incident.first_bad, since, until)
        ended_in = incident.fixed_by is not None and _in_range(incident.fixed_by, since, until)
        if began_in:
            (recovered if ended_in or is_over else broken).append(incident)
        elif ended_in:
            fixed.append(incident)
    judged: list[SeriesKey] = []
    vanished: list[SeriesNote] = []
    unjudged: list[SeriesNote] = []
    appeared: list[SeriesKey] = []
    moved: list[SeriesMovement] = []
    accuracy: list[AccuracyMove] = []
    for key, members in split_series(runs).items():
        known = [run for run in members if until is None or not is_after(run, until)]
        inside = [run for run in known if since is None or is_after(run, since)]
        before = [run for run in known if since is not None and not is_after(run, since)]
        if not known:
            continue
        moved += [
            SeriesMovement(key=key, movement=one)
            for one in movements(known)
            if _in_range(one.run, since, until)
            and (one.figure.is_speed or not is_explained(key, one.run, incidents))
        ]
        accuracy += [
            one
            for one in find_accuracy_moves(known[-LOOKED_AT:])
            if _in_range(one.after, since, until) and not is_explained(key, one.after, incidents)
        ]
        if not inside:
            vanished.append(SeriesNote(key=key, latest=known[-1], note=_since_when(known[-1])))
        elif not _has_verdict(inside):
            last = inside[-1]
            note = f"None of its {len(inside)} runs gave a verdict; the last: {_because(last)}"
            unjudged.append(SeriesNote(key=key, latest=last, note=note))
        else:
            judged.append(key)
            if since is not None and not _has_verdict(before):
                appeared.append(key)
    return Regressions(
        since=since,
        until=until,
        broken=tuple(broken),
        recovered=tuple(recovered),
        fixed=tuple(fixed),
        judged=tuple(judged),
        vanished=tuple(vanished),
        unjudged=tuple(unjudged),
        appeared=tuple(appeared),
        moved=tuple(sorted(moved, key=lambda one: not one.movement.is_worse)),
        accuracy=tuple(accuracy),
    )


def is_explained(key: SeriesKey, run: Run, incidents: Iterable[Incident]) -> bool:
    """Whether an incident of the series tells of what changed at a run, its mend included."""
    place = place_of(run.commit)
    return any(
        incident.series == key
        and place_of(incident.first_bad.commit) <= place
        and (incident.fixed_by is None or place <= place_of(incident.fixed_by.commit))
        for incident in incidents
    )


def is_after(run: Run, bound: Bound) -> bool:
    """Whether a run's commit comes after a bound.

    By place in the history where both commits have one, else by date.
    """
    if isinstance(bound, datetime):
        return commit_date(run) > bound
    here, there = run.commit.position, bound.position
    if here is not None and there is not None:
        return here > there
    if run.commit.hash == bound.hash:
        return False
    moment = bound.committed_at or bound.authored_at
    return moment is None or commit_date(run) > moment


def _in_range(run: Run, since: Bound | None, until: Bound | None) -> bool:
    return (since is None or is_after(run, since)) and (until is None or not is_after(run, until))


def _has_verdict(runs: Iterable[Run]) -> bool:
    return any(run.effective_outcome.has_verdict for run in runs)


def _since_when(last: Run) -> str:
    return (
        f"Its last run is of {last.commit.short} ({commit_date(last):%Y-%m-%d}): "
        f"{last.effective_outcome}."
    )


def _because(run: Run) -> str:
    return f"{run.outcome}, {run.reason}" if run.reason else f"{run.outcome}."
