"""What there is to tell of a target, each thing once. Pure: records in, happenings out.

What was told is known by keys that outlive further runs: an incident's own and former ones, a
movement's commit and kind of figure, a change of environment, a silence's beginning. What is found
when a target is looked at for the first time and is over by then, or is long mended, is noted and
not told: nobody can act on it.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from virnucpro_monitor.analysis.change_points import ChangeKind
from virnucpro_monitor.analysis.environment_moves import EnvironmentMove
from virnucpro_monitor.analysis.incidents import OVER, Incident, IncidentState, place_of
from virnucpro_monitor.analysis.regressions import SeriesMovement, is_explained
from virnucpro_monitor.analysis.series import commit_date
from virnucpro_monitor.analysis.silence import Silence, SilenceReason
from virnucpro_monitor.records import Alert, AlertKind, Run

RECENT = timedelta(days=7)
"""An incident that is seen only when it was mended longer ago is not told."""
SAME_MOVE = 10
SAME_DRIFT = 40
"""Commits within which a movement of the same kind of figure is the same one, better placed."""
MIN_STEP_RUNS = 3
"""A figure that is off its level for fewer runs may go back by itself."""
WATCHED = "watched"
"""Key of the note that a target was looked at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Happening:
    """Something to tell.

    Attributes:
        keys: by which it is known later.
        told: False where it is only to be noted.
        past: the alert that this one answers, where what it told of is no longer found.
        reason: why it is told again; empty the first time.
    """

    kind: AlertKind
    target: str
    keys: tuple[str, ...]
    told: bool = True
    incidents: tuple[Incident, ...] = ()
    movements: tuple[SeriesMovement, ...] = ()
    environment: tuple[EnvironmentMove, ...] = ()
    silence: Silence | None = None
    past: Alert | None = None
    reason: str = ""


def find_happenings(
    target: str,
    known: Sequence[Alert],
    *,
    runs: Sequence[Run],
    incidents: Sequence[Incident],
    movements: Sequence[SeriesMovement] = (),
    environment: Sequence[EnvironmentMove] = (),
    silences: Sequence[Silence] = (),
    now: datetime,
) -> tuple[Happening, ...]:
    """What has happened since `known` was written, in the order in which it is to be told.

    Args:
        known: all alerts of the target, oldest first.
        runs: its current runs; `incidents` is derived from them.
    """
    is_first = not known
    found: list[Happening] = []
    if is_first:
        found.append(Happening(kind=AlertKind.HEARD, target=target, keys=(WATCHED,), told=False))
    found += _silences(target, known, silences)
    found += _Incidents(target, known, incidents, now).happenings(is_first)
    found += _movements(target, known, movements, incidents, runs, is_first)
    found += _environment(target, known, environment, is_first)
    return tuple(found)


def lasting_silences(known: Iterable[Alert]) -> Mapping[SilenceReason, Alert]:
    """Silences that were told and are not over, by reason."""
    lasting: dict[SilenceReason, Alert] = {}
    for alert in known:
        for key in alert.keys:
            reason = key.partition(":")[0]
            if alert.kind is AlertKind.SILENT:
                lasting[SilenceReason(reason)] = alert
            elif alert.kind is AlertKind.HEARD and reason != WATCHED:
                lasting.pop(SilenceReason(reason), None)
    return lasting


def _silences(
    target: str, known: Sequence[Alert], silences: Iterable[Silence]
) -> Iterator[Happening]:
    lasting = lasting_silences(known)
    present = {one.reason: one for one in silences}
    for reason, silence in present.items():
        if reason not in lasting:
            yield Happening(
                kind=AlertKind.SILENT, target=target, keys=(silence.key,), silence=silence
            )
    for reason, alert in lasting.items():
        if reason not in present:
            yield Happening(kind=AlertKind.HEARD, target=target, keys=alert.keys, past=alert)


class _Incidents:
    """The incidents of a target beside what was told of them."""

    def __init__(
        self, target: str, known: Sequence[Alert], incidents: Sequence[Incident], now: datetime
    ) -> None:
        self._target = target
        self._incidents = incidents
        self._now = now
        self._own = {one.key for one in incidents}
        self._alerts = [one for one in known if one.kind is AlertKind.BROKEN]
        self._begun = {key for one in self._alerts for key in one.keys}
        self._told = {key for one in self._alerts if one.told for key in one.keys}
        self._ended = {key for one in known if one.kind is AlertKind.MENDED for key in one.keys}

    def _is_among(self, keys: set[str], incident: Incident) -> bool:
        # A former key may by now be the key of another incident, which began beside it.
        return incident.key in keys or bool(incident.former_keys & keys - self._own)

    def happenings(self, is_first: bool) -> list[Happening]:
        begun: dict[tuple[str, str], list[Incident]] = defaultdict(list)
        ended: dict[str, list[Incident]] = defaultdict(list)
        noted: dict[AlertKind, list[str]] = defaultdict(list)
        found: list[Happening] = []
        for one in self._incidents:
            if self._is_among(self._ended, one):
                continue
            if self._is_among(self._begun, one):
                if one.state in OVER:
                    end = one.fixed_by.commit.hash if one.fixed_by else ""
                    ended[end].append(one)
                elif again := self._worsened(one):
                    found.append(again)
            elif one.state in OVER:
                if is_first or not self._is_recent(one):
                    noted[AlertKind.MENDED].append(one.key)
                elif one.fixed_by is not None:
                    ended[one.fixed_by.commit.hash].append(one)
            elif one.state is IncidentState.OPEN:
                if self._was_told_with(one):
                    noted[AlertKind.BROKEN].append(one.key)
                else:
                    begun[one.first_bad.commit.hash, one.cause].append(one)
        found += self._vanished()
        for kind, names in noted.items():
            found.append(Happening(kind=kind, target=self._target, keys=tuple(names), told=False))
        for kind, groups in ((AlertKind.MENDED, ended), (AlertKind.BROKEN, begun)):
            for group in groups.values():
                keys = dict.fromkeys(key for one in group for key in self._keys(one))
                found.append(
                    Happening(
                        kind=kind, target=self._target, keys=tuple(keys), incidents=tuple(group)
                    )
                )
        return found

    def _keys(self, incident: Incident) -> list[str]:
        """Its key, and those under which it was told before."""
        return [incident.key, *sorted(incident.former_keys & self._begun - self._own)]

    def _is_recent(self, incident: Incident) -> bool:
        end = incident.fixed_by
        return end is not None and self._now - commit_date(end) <= RECENT

    def _was_told_with(self, incident: Incident) -> bool:
        """Whether the same fault of the same commit was told for another series."""
        return any(
            self._is_among(self._told, other)
            and other.first_bad.commit.hash == incident.first_bad.commit.hash
            and (other.cause, _fault(other)) == (incident.cause, _fault(incident))
            for other in self._incidents
            if other.key != incident.key
        )

    def _worsened(self, incident: Incident) -> Happening | None:
        given = incident.acknowledgement
        if not incident.reopened_because or given is None or given.withdrawn_at is not None:
            return None
        key = f"{incident.key}:reopened:{given.id}"
        if key in self._begun:
            return None
        return Happening(
            kind=AlertKind.BROKEN,
            target=self._target,
            keys=(key,),
            incidents=(incident,),
            reason=incident.reopened_because,
        )

    def _vanished(self) -> Iterator[Happening]:
        """What was told and is no incident any more: measured again, the commit passed."""
        present = self._own.union(*(one.former_keys for one in self._incidents))
        for alert in self._alerts:
            keys = [
                key
                for key in alert.keys
                if key.partition(":")[0] not in present and key not in self._ended
            ]
            if keys:
                yield Happening(
                    kind=AlertKind.MENDED,
                    target=self._target,
                    keys=tuple(keys),
                    told=alert.told and not any(":" in key for key in keys),
                    past=alert,
                )


def _fault(incident: Incident) -> str:
    return incident.names[0] if incident.names else ""


def _movements(
    target: str,
    known: Sequence[Alert],
    movements: Sequence[SeriesMovement],
    incidents: Sequence[Incident],
    runs: Sequence[Run],
    is_first: bool,
) -> list[Happening]:
    places = {run.commit.hash: place_of(run.commit) for run in runs}
    told: dict[str, list[int]] = defaultdict(list)
    for alert in known:
        if alert.kind is AlertKind.MOVED:
            for key in alert.keys:
                family, _, commit = key.partition(":")
                if commit in places:
                    told[family].append(places[commit])
    groups: dict[str, list[SeriesMovement]] = defaultdict(list)
    for one in movements:
        moved = one.movement
        explained = not moved.figure.is_speed and is_explained(one.key, moved.run, incidents)
        if explained or not _is_worth_telling(one):
            continue
        groups[_family(one)].append(one)
    found = []
    for family, members in groups.items():
        reach = SAME_DRIFT if family.endswith("drift") else SAME_MOVE
        near = told[family.removesuffix(" drift")] + told[f"{family.removesuffix(' drift')} drift"]
        new = [one for one in members if all(abs(_place(one) - other) > reach for other in near)]
        if new:
            first = min(new, key=_place)
            together = [one for one in new if _place(one) - _place(first) <= reach]
            keys = dict.fromkeys(f"{family}:{one.movement.run.commit.hash}" for one in new)
            found.append(
                Happening(
                    kind=AlertKind.MOVED,
                    target=target,
                    keys=tuple(keys),
                    movements=tuple(together),
                    told=not is_first,
                )
            )
    return found


def _place(one: SeriesMovement) -> int:
    return place_of(one.movement.run.commit)


def _family(one: SeriesMovement) -> str:
    family = "speed" if one.movement.figure.is_speed else "accuracy"
    return f"{family} drift" if one.movement.kind is ChangeKind.DRIFT else family


def _is_worth_telling(one: SeriesMovement) -> bool:
    moved = one.movement
    if not moved.is_worse or moved.kind is ChangeKind.BURST:
        return False
    return moved.kind is ChangeKind.DRIFT or moved.num_after >= MIN_STEP_RUNS


def _environment(
    target: str, known: Sequence[Alert], moves: Iterable[EnvironmentMove], is_first: bool
) -> Iterator[Happening]:
    told = {key for one in known if one.kind is AlertKind.ENVIRONMENT for key in one.keys}
    groups: dict[str, list[EnvironmentMove]] = defaultdict(list)
    for one in moves:
        if one.key not in told:
            groups[one.key].append(one)
    for key, members in groups.items():
        yield Happening(
            kind=AlertKind.ENVIRONMENT,
            target=target,
            keys=(key,),
            environment=tuple(members),
            told=not is_first,
        )
