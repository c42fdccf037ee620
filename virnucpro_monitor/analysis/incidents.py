"""Incidents: stretches of bad runs, one for each cause. Derived by rule, never stored.

`analysis.stretches` holds the rule for one series. Here the stretches of all series become
incidents with a stable key, a state and what was acknowledged of them. An outage that was mended at
once is an incident like any other.
"""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum

from virnucpro_monitor.analysis.acknowledging import Standing, judge_acknowledgements
from virnucpro_monitor.analysis.differences import find_differences
from virnucpro_monitor.analysis.series import (
    SeriesKey,
    commit_date,
    lacks_values,
    split_series,
    worst_error,
)
from virnucpro_monitor.records import (
    Acknowledgement,
    Commit,
    Culprit,
    Outcome,
    Run,
)

class IncidentState(StrEnum):
    OPEN = "open"
    ACKNOWLEDGED = "acknowledged"
    FIXED = "fixed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Incident:
    """A stretch of bad runs of one series with one cause.

    Attributes:
        key: stable while runs are added after it; acknowledgements name it.
        gates: that began to fail together; empty for `NOT_RUNNABLE`.
        culprit: that its first bad run names.
        first_bad, last_bad: first and last run of the stretch in which it is seen.
        last_good: the last run before it that was not bad in this way, None where the series begins
            with it. What is to blame lies after it, up to `first_bad`.
        fixed_by: the run that ended it, None while it lasts.
        num_bad_runs: runs in which it is seen, skipped ones included.
        num_suspects: commits that can be to blame, the first bad one included; None where the
            history's order is not known. Above 1, some commits between were never judged.
        duration: from the first bad commit to the fixing one, or to the last bad one while it
            lasts; by commit dates.
        worst: the worst of its runs.
        worst_error: e = 1 - cos of the worst sequence over all its runs; None without figures.
        lacks_values: some sequence came back not finite, lost or doubled.
        caveats: what else changed where it began, one sentence each: the commit may be innocent.
        acknowledgement: the one in force, or, with `reopened_because`, the last one that was.
        grouped_with: keys of other incidents that the same commit of the same target began.
    """

    key: str
    series: SeriesKey
    cause: Cause
    gates: tuple[str, ...]
    culprit: Culprit | None
    first_bad: Run
    last_bad: Run
    last_good: Run | None
    fixed_by: Run | None
    num_bad_runs: int
    num_suspects: int | None
    duration: timedelta
    worst: Run
    worst_error: float | None
    lacks_values: bool
    caveats: tuple[str, ...] = ()
    state: IncidentState
    acknowledgement: Acknowledgement | None = None
    reopened_because: str = ""
    grouped_with: tuple[str, ...] = ()


def incident_key(series: SeriesKey, cause: Cause, first_bad: str) -> str:
    """Twelve hex digits from the series, the cause and the first bad commit's full hash."""
    parts = (
        series.target,
        series.benchmark,
        str(series.benchmark_version),
        series.configuration,
        cause.value,
        first_bad,
    )
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:12]


def derive_incidents(
    runs: Sequence[Run],
    acknowledgements: Iterable[Acknowledgement] = (),
    *,
    now: datetime,
) -> list[Incident]:
    """Derive the incidents of any number of series.

    Args:
        runs: current runs, in commit order within each target. Those of commits that are not on
            the followed branch have no place in its history, and are left out.
        acknowledgements: in any order; withdrawn ones may be among them.
        now: against which an acknowledgement's expiry is judged.

    Returns:
        In the order of their first bad commit's date, oldest first; of one commit by key.
    """
    found = [
        (_finish(key, stretch), tuple(stretch.bad_runs))
        for key, members in split_series(run for run in runs if run.commit.on_branch).items()
        for stretch in find_stretches(members)
    ]
    groups = _group(incident for incident, _ in found)
    found = [
        (replace(incident, grouped_with=_others(groups, incident)), bad_runs)
        for incident, bad_runs in found
    ]
    return sorted(_judge(found, list(acknowledgements), now), key=_history_order)


def _history_order(incident: Incident) -> tuple[datetime, str, int, str]:
    first = incident.first_bad
    position = -1 if first.commit.position is None else first.commit.position
    return commit_date(first), first.target, position, incident.key


def _finish(series: SeriesKey, stretch: Stretch) -> Incident:
    first, last = stretch.bad_runs[0], stretch.bad_runs[-1]
    end = stretch.fixed_by or last
    worst = max(stretch.bad_runs, key=lambda run: (lacks_values(run), worst_error(run) or 0.0))
    errors = [error for run in stretch.bad_runs if (error := worst_error(run)) is not None]
    return Incident(
        key=incident_key(series, stretch.cause, first.commit.hash),
        series=series,
        cause=stretch.cause,
        gates=tuple(gate for gate in stretch.gates if gate != WHOLE_VERDICT),
        culprit=first.culprit if stretch.cause is Cause.BROKEN else None,
        first_bad=first,
        last_bad=last,
        last_good=stretch.last_good,
        fixed_by=stretch.fixed_by,
        num_bad_runs=len(stretch.bad_runs),
        num_suspects=count_suspects(
            stretch.last_good.commit if stretch.last_good else None, first.commit
        ),
        duration=max(timedelta(0), commit_date(end) - commit_date(first)),
        worst=worst,
        worst_error=max(errors, default=None),
        lacks_values=any(lacks_values(run) for run in stretch.bad_runs),
        caveats=_caveats(stretch),
        state=IncidentState.FIXED if stretch.fixed_by else IncidentState.OPEN,
    )


def count_suspects(last_good: Commit | None, first_bad: Commit) -> int | None:
    """Commits after the last good one, up to and with the first bad one."""
    if last_good is None or last_good.position is None or first_bad.position is None:
        return None
    return max(1, first_bad.position - last_good.position)


def _caveats(stretch: Stretch) -> tuple[str, ...]:
    """What besides the commit changed between the last good and the first bad run."""
    good, bad = stretch.last_good, stretch.bad_runs[0]
    caveats = []
    if good is None:
        caveats.append("The series begins with it, so no good commit is known.")
    else:
        changed = [d for d in find_differences(good, bad) if d.kind != "configuration"]
        for kind in ("benchmark", "protocol", "environment"):
            found = [str(difference) for difference in changed if difference.kind == kind]
            if found:
                caveats.append(
                    f"The {kind} changed where it began ({'; '.join(found)}): the commit may be "
                    "innocent."
                )
    end = stretch.fixed_by
    unjudged = set(stretch.gates) - _judged_gates(end) if end is not None else set()
    if unjudged:
        caveats.append(f"The run that ended it did not judge {', '.join(sorted(unjudged))}.")
    return tuple(caveats)


_Groups = Mapping[tuple[str, str], Sequence[str]]
"""Keys of incidents by target and first bad commit."""


def _group(incidents: Iterable[Incident]) -> _Groups:
    groups: dict[tuple[str, str], list[str]] = defaultdict(list)
    for incident in incidents:
        groups[incident.series.target, incident.first_bad.commit.hash].append(incident.key)
    return groups


def _others(groups: _Groups, incident: Incident) -> tuple[str, ...]:
    together = groups[incident.series.target, incident.first_bad.commit.hash]
    return tuple(sorted(key for key in together if key != incident.key))


def _judge(
    found: Sequence[tuple[Incident, tuple[Run, ...]]],
    acknowledgements: Sequence[Acknowledgement],
    now: datetime,
) -> list[Incident]:
    """Let the acknowledgements stand where they do.

    One whose scope is the target's name covers all that the same commit began there. One whose key
    is no incident's own was written when the incident seemed to begin later, before earlier commits
    were measured: it belongs to the incident that holds that commit now.
    """
    by_key: dict[str, list[Acknowledgement]] = defaultdict(list)
    for acknowledgement in acknowledgements:
        by_key[acknowledgement.incident].append(acknowledgement)
    homeless = by_key.keys() - {incident.key for incident, _ in found}
    judged = []
    for incident, bad_runs in found:
        own = list(by_key.get(incident.key, ()))
        for run in bad_runs if homeless else ():
            alias = incident_key(incident.series, incident.cause, run.commit.hash)
            own += by_key[alias] if alias in homeless else []
        for other in incident.grouped_with:
            own += [a for a in by_key.get(other, ()) if a.scope == incident.series.target]
        standing = judge_acknowledgements(own, bad_runs, now)
        judged.append(_with_standing(incident, standing))
    return judged


def _with_standing(incident: Incident, standing: Standing) -> Incident:
    state = incident.state
    if state is IncidentState.OPEN and standing.holds:
        state = IncidentState.ACKNOWLEDGED
    return replace(
        incident,
        state=state,
        acknowledgement=standing.acknowledgement,
        reopened_because="" if state is IncidentState.FIXED else standing.broken_because,
    )
