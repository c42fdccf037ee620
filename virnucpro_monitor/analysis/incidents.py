"""Incidents: stretches of bad runs, one for each cause. Derived by rule, never stored.

`analysis.stretches` holds the rule for one series. Here the stretches of all series become
incidents with a stable key, a state and what was acknowledged of them. An outage that was mended at
once is an incident like any other.
"""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

from virnucpro_monitor.analysis.acknowledging import Standing, judge_acknowledgements
from virnucpro_monitor.analysis.causes import WHOLE_VERDICT, judged_gates
from virnucpro_monitor.analysis.differences import find_differences
from virnucpro_monitor.analysis.series import (
    SeriesKey,
    commit_date,
    lacks_values,
    split_series,
    worst_error,
)
from virnucpro_monitor.analysis.staleness import find_unwatched
from virnucpro_monitor.analysis.stretches import NOTHING_FOUND, Cause, Stretch, find_stretches
from virnucpro_monitor.records import (
    Acknowledgement,
    Commit,
    Culprit,
    Finding,
    Run,
)

__all__ = [
    "Cause",
    "Incident",
    "IncidentState",
    "count_suspects",
    "derive_incidents",
    "incident_key",
]


class IncidentState(StrEnum):
    OPEN = "open"
    ACKNOWLEDGED = "acknowledged"
    NOT_SEEN = "not_seen"  # neither fixed nor seen at the newest commits: not measured there
    REWRITTEN = "rewritten"  # its commits have left the branch before it was mended
    FIXED = "fixed"


OVER = frozenset({IncidentState.REWRITTEN, IncidentState.FIXED})


@dataclass(frozen=True, slots=True, kw_only=True)
class Incident:
    """A stretch of bad runs of one series with one cause.

    Attributes:
        key: stable while runs are added after it; acknowledgements name it.
        names: the faults that trace and probes recognised, the one that it began with first.
        finding: what they say in words of its first bad run; empty where they say nothing.
        gates: that failed where it began; empty for `NOT_RUNNABLE`.
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
        hidden_by: key of the incident whose mend uncovered this one, None where none did.
        commits_since_seen: measured commits of the target after the newest run of a series that
            is no longer measured; 0 where it still is.
        former_keys: under which it may have been known before.
    """

    key: str
    series: SeriesKey
    cause: Cause
    names: tuple[str, ...] = ()
    finding: str = ""
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
    hidden_by: str | None = None
    commits_since_seen: int = 0
    former_keys: frozenset[str] = frozenset()


def incident_key(series: SeriesKey, cause: Cause, first_bad: str, name: str | None = None) -> str:
    """Twelve hex digits from the series, the cause and the first bad commit's full hash.

    Args:
        name: of the fault; empty where it has none. Without it, the key that the one incident of
            that commit had when all that failed together was one.
    """
    parts = [
        series.target,
        series.benchmark,
        str(series.benchmark_version),
        series.configuration,
        cause.value,
        first_bad,
    ]
    if name is not None:
        parts.append(name)
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:12]


@dataclass(frozen=True, slots=True)
class _Found:
    incident: Incident
    bad_runs: tuple[Run, ...]


def derive_incidents(
    runs: Sequence[Run],
    acknowledgements: Iterable[Acknowledgement] = (),
    *,
    now: datetime,
    findings: Mapping[int, Finding] = NOTHING_FOUND,
    newest: Iterable[Run] = (),
) -> list[Incident]:
    """Derive the incidents of any number of series.

    Args:
        runs: current runs, in commit order within each target. Those of commits that were never on
            the followed branch have no place in its history, and are left out. What began on a
            part of it that a force-push has taken out is kept; where a rebase has rewritten its
            commit it goes on at the new one, and what was acknowledged of it holds there.
        acknowledgements: in any order; withdrawn ones may be among them.
        now: against which an acknowledgement's expiry is judged.
        findings: what trace and probes named, by run id; of failed runs that were measured.
        newest: further runs that show how far a target is measured: where `runs` are not all
            series of it, the newest run of each of the others.

    Returns:
        In the order of their first bad commit's date, oldest first; of one commit by key.
    """
    series = split_series(run for run in runs if run.commit.on_branch)
    unwatched = find_unwatched(series, newest, now)
    rewritten = _rewritten_hashes(runs)
    found: list[_Found] = []
    for key, members in series.items():
        made: dict[int, _Found] = {}
        for stretch in find_stretches(members, findings):
            hidden_by = made.get(id(stretch.hidden_by))
            one = _finish(key, stretch, hidden_by, unwatched.get(key, 0), rewritten)
            made[id(stretch)] = one
            found.append(one)
    found += _of_former_lines(runs, series, findings, found)
    groups = _group(one.incident for one in found)
    found = [
        replace(one, incident=replace(one.incident, grouped_with=_others(groups, one.incident)))
        for one in found
    ]
    return sorted(_judge(found, list(acknowledgements), now), key=_history_order)


def _of_former_lines(
    runs: Iterable[Run],
    series: Mapping[SeriesKey, Sequence[Run]],
    findings: Mapping[int, Finding],
    present: Iterable[_Found],
) -> list[_Found]:
    """What began on parts of the history that have left the branch, and does not go on there."""
    lines: dict[datetime, list[Run]] = defaultdict(list)
    for run in runs:
        if not run.commit.on_branch and run.commit.left_at is not None:
            lines[run.commit.left_at].append(run)
    known = {key for one in present for key in (one.incident.key, *one.incident.former_keys)}
    found: dict[str, _Found] = {}
    for left in lines.values():
        for key, members in split_series(left).items():
            gone = sorted(members, key=lambda run: place_of(run.commit))
            start = place_of(gone[0].commit)
            trunk = [run for run in series.get(key, ()) if place_of(run.commit) < start]
            for stretch in find_stretches([*trunk, *gone], findings):
                if stretch.bad_runs[0].commit.on_branch:
                    continue
                one = _finish(key, stretch, None, 0, {})
                if one.incident.key in known:
                    continue
                if stretch.fixed_by is None:
                    over = replace(one.incident, state=IncidentState.REWRITTEN)
                    one = replace(one, incident=over)
                found[one.incident.key] = one
    return list(found.values())


def place_of(commit: Commit) -> int:
    """Its place in the history, or where it stood there; -1 where that was never known."""
    place = commit.former_position if commit.position is None else commit.position
    return -1 if place is None else place


_Change = tuple[str, str, datetime | None]
"""What a rebase leaves of a commit: subject, author and author date."""


def _change(commit: Commit) -> _Change | None:
    if commit.authored_at is None:
        return None
    return commit.subject, commit.author, commit.authored_at


def _rewritten_hashes(runs: Iterable[Run]) -> Mapping[_Change, frozenset[str]]:
    """The commits off the branch by the change that they make."""
    found: dict[_Change, set[str]] = defaultdict(set)
    for run in runs:
        change = None if run.commit.on_branch else _change(run.commit)
        if change is not None:
            found[change].add(run.commit.hash)
    return {change: frozenset(hashes) for change, hashes in found.items()}


def _history_order(incident: Incident) -> tuple[datetime, str, int, str]:
    first = incident.first_bad
    return commit_date(first), first.target, place_of(first.commit), incident.key


def _finish(
    series: SeriesKey,
    stretch: Stretch,
    hidden_by: _Found | None,
    commits_since_seen: int,
    rewritten: Mapping[_Change, frozenset[str]],
) -> _Found:
    first, last = stretch.bad_runs[0], stretch.bad_runs[-1]
    end = stretch.fixed_by or last
    worst = max(stretch.bad_runs, key=lambda run: (lacks_values(run), worst_error(run) or 0.0))
    errors = [error for run in stretch.bad_runs if (error := worst_error(run)) is not None]
    key = incident_key(series, stretch.cause, first.commit.hash, stretch.name)
    is_open = stretch.fixed_by is None
    unseen = IncidentState.NOT_SEEN if commits_since_seen else IncidentState.OPEN
    incident = Incident(
        key=key,
        series=series,
        cause=stretch.cause,
        names=tuple(stretch.names),
        finding=stretch.text,
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
        state=unseen if is_open else IncidentState.FIXED,
        hidden_by=hidden_by.incident.key if hidden_by else None,
        commits_since_seen=commits_since_seen if is_open else 0,
    )
    former = _former_keys(series, stretch, rewritten) - {key}
    if hidden_by is not None:
        former |= hidden_by.incident.former_keys
    return _Found(replace(incident, former_keys=former), tuple(stretch.bad_runs))


def _former_keys(
    series: SeriesKey, stretch: Stretch, rewritten: Mapping[_Change, frozenset[str]]
) -> frozenset[str]:
    """Keys that it has had: it began later before earlier commits were measured, was called
    otherwise or not at all, or its commits have been rewritten since."""
    keys = set()
    for run in stretch.bad_runs:
        change = _change(run.commit)
        old = rewritten.get(change, frozenset()) if change is not None else frozenset()
        for commit in (run.commit.hash, *old):
            names = (None, "", *stretch.names)
            keys |= {incident_key(series, stretch.cause, commit, name) for name in names}
    return frozenset(keys)


def count_suspects(last_good: Commit | None, first_bad: Commit) -> int | None:
    """Commits after the last good one, up to and with the first bad one."""
    if last_good is None:
        return None
    before, first = place_of(last_good), place_of(first_bad)
    return None if -1 in (before, first) else max(1, first - before)


def _caveats(stretch: Stretch) -> tuple[str, ...]:
    """What besides the commit changed between the last good and the first bad run."""
    good, bad = stretch.last_good, stretch.bad_runs[0]
    caveats = []
    if stretch.hidden_by is not None:
        hidden = stretch.hidden_by.bad_runs[0].commit.short
        caveats.append(f"Another cause, since {hidden}, hid it: it may have begun before.")
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
    unjudged = set(stretch.gates) - judged_gates(end) if end is not None else set()
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
    found: Sequence[_Found], acknowledgements: Sequence[Acknowledgement], now: datetime
) -> list[Incident]:
    """Let the acknowledgements stand where they do.

    One whose scope is the target's name covers all that the same commit began there. One whose key
    is no incident's own was written when the incident had another key: it holds for every incident
    that had it.
    """
    by_key: dict[str, list[Acknowledgement]] = defaultdict(list)
    for acknowledgement in acknowledgements:
        by_key[acknowledgement.incident].append(acknowledgement)
    homeless = by_key.keys() - {one.incident.key for one in found}
    judged = []
    for one in found:
        incident = one.incident
        own = list(by_key.get(incident.key, ()))
        for key in sorted(incident.former_keys & homeless):
            own += by_key[key]
        for other in incident.grouped_with:
            own += [a for a in by_key.get(other, ()) if a.scope == incident.series.target]
        standing = judge_acknowledgements(own, one.bad_runs, now)
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
        reopened_because="" if state in OVER else standing.broken_because,
    )
