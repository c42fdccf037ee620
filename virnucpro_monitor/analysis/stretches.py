"""Stretches of bad runs of one series, one for each cause: the rule behind the incidents.

A cause is a side and what trace, probes or gates name; which of the gates that only say *how far*
results are off (`causes.SYMPTOMS`) happen to fail does not matter. In commit order, a skipped run
counting as the one that it inherits from:

- *Could not be run*: `error` runs in a row are one stretch. A run with a verdict ends it.
- *A cause begins* with the first failed run, and later where, under gates that fail already, a
  fault is named that was not there, a gate fails that names a fault, another side goes wrong while
  figures move, or figures grow to twice what they were.
- *It ends* at the first run in which none of its gates fails. It also ends, and what stays begins
  a stretch of its own, where its fault is no longer named while another is and figures moved, or
  where figures fell to less than half and one of its gates holds again (or fell to a tenth).
- Figures that stay where they were are the same fault, whatever it is called this time: another
  version of the monitor may name it otherwise.
- A name that only repeats what a gate saw (`causes.OBSERVATIONS`: "leak") is no other fault than
  the one under which that gate fails already. Nor is the cause that is found of it later.
- Where a run judges nothing (`error`, `not_run`, gates without a value), nothing begins or ends.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from virnucpro_monitor.analysis.causes import (
    MOVED_DECADES,
    OBSERVATIONS,
    STILL_DECADES,
    Symptoms,
    failing_gates,
    judged_gates,
    read_symptoms,
)
from virnucpro_monitor.records import Culprit, Finding, Outcome, Run

NOTHING_FOUND: Mapping[int, Finding] = {}


class Cause(StrEnum):
    BROKEN = "failed"  # the promise is broken
    NOT_RUNNABLE = "error"  # the target could not be run


@dataclass(slots=True)
class Stretch:
    """An incident in the making.

    Attributes:
        gates: that failed where it began, in the run's order.
        name: what it is called where it began, empty where nothing is named: with the first bad
            commit its identity.
        names: faults that were named of it, in the order in which they were.
        text: the finding in words where it began.
        held: all gates that it answers for.
        sides: that it makes wrong; empty where no run tells.
        highest, lowest: decades of each measure over its runs.
        above: where it was seen as growth alone, the level of each measure before it.
        beside: it began under gates that failed already, for another cause.
        hidden_by: the stretch whose end uncovered it.
    """

    cause: Cause
    gates: tuple[str, ...]
    last_good: Run | None
    bad_runs: list[Run] = field(default_factory=list)
    fixed_by: Run | None = None
    name: str = ""
    names: list[str] = field(default_factory=list)
    text: str = ""
    held: set[str] = field(default_factory=set)
    sides: frozenset[Culprit] = frozenset()
    highest: dict[str, float] = field(default_factory=dict)
    lowest: dict[str, float] = field(default_factory=dict)
    yardstick: tuple[str, str] = ("", "")
    above: Mapping[str, float] | None = None
    beside: bool = False
    hidden_by: "Stretch | None" = None

    def add(self, run: Run, seen: Symptoms) -> None:
        self.bad_runs.append(run)
        self.sides |= seen.sides if not self.sides else frozenset()
        if self.yardstick != seen.yardstick:  # other figures from here on
            self.highest, self.lowest, self.yardstick = {}, {}, seen.yardstick
        for name, level in seen.levels.items():
            self.highest[name] = max(level, self.highest.get(name, level))
            self.lowest[name] = min(level, self.lowest.get(name, level))

    def may_be(self, name: str, failing: Collection[str]) -> bool:
        """Whether a fault's name can be that of this one.

        It can where that name, or all that this one was called before, only repeats what gates saw
        that fail here and there.
        """
        vague = [name] if name in OBSERVATIONS else self.names
        seen_by = {OBSERVATIONS.get(one, "") for one in vague}
        return bool(seen_by) and seen_by <= self.held & set(failing)

    def rose(self, seen: Symptoms) -> dict[str, float]:
        """What grew to more than twice all that it was, with its level before."""
        if self.yardstick != seen.yardstick:
            return {}
        return {
            name: self.highest[name]
            for name, level in seen.levels.items()
            if name in self.highest and level > self.highest[name] + MOVED_DECADES
        }

    def fell(self, seen: Symptoms, decades: float = MOVED_DECADES) -> bool:
        """Whether something fell that far below all that it was, and nothing rose."""
        if self.yardstick != seen.yardstick or self.rose(seen):
            return False
        return any(
            level < self.lowest[name] - decades
            for name, level in seen.levels.items()
            if name in self.lowest
        )

    def is_still(self, seen: Symptoms) -> bool:
        """Whether each measure is where it was, up to rounding."""
        return self.yardstick != seen.yardstick or all(
            self.lowest[name] - STILL_DECADES <= level <= self.highest[name] + STILL_DECADES
            for name, level in seen.levels.items()
            if name in self.lowest
        )


def find_stretches(
    runs: Sequence[Run], findings: Mapping[int, Finding] = NOTHING_FOUND
) -> list[Stretch]:
    """Apply the rule of this module to the runs of one series, in commit order.

    Args:
        findings: what trace and probes named, by run id; of measured runs.
    """
    stretches: list[Stretch] = []
    unable: Stretch | None = None
    broken: list[Stretch] = []
    last_able: Run | None = None  # the last run with a verdict
    found = _FindingOf(findings)
    for place, run in enumerate(runs):
        outcome = run.effective_outcome
        if outcome is Outcome.ERROR:
            if unable is None:
                unable = Stretch(Cause.NOT_RUNNABLE, (), last_good=last_able)
                stretches.append(unable)
            unable.bad_runs.append(run)
        if not outcome.has_verdict:
            continue
        last_able = run
        if unable is not None:
            unable.fixed_by, unable = run, None
        finding = found.of(run)
        seen = read_symptoms(run, finding)
        alive = _go_on(broken, run, seen)
        uncovered = next((o for o in broken if o.fixed_by and o.held & seen.failing), None)
        broken = [one for one in broken if one.fixed_by is None]
        for new in _begin(run, seen, alive, broken):
            new.text = finding.text if finding is not None else ""
            if not alive:
                new.hidden_by = uncovered
            new.last_good = _last_good(runs, place, new)
            new.add(run, seen)
            broken.append(new)
            stretches.append(new)
    return stretches


class _FindingOf:
    """What was found of each run; of a skipped one what was found of the run it inherits from."""

    def __init__(self, findings: Mapping[int, Finding]) -> None:
        self._findings = findings
        self._by_commit: dict[str, Finding | None] = {}

    def of(self, run: Run) -> Finding | None:
        if run.outcome is Outcome.SKIPPED:
            if run.inherited_run_id is not None:
                return self._findings.get(run.inherited_run_id)
            return self._by_commit.get(run.inherited_from or "")
        found = self._findings.get(run.id) if run.id is not None else None
        self._by_commit[run.commit.hash] = found
        return found


@dataclass(frozen=True, slots=True)
class _Alive:
    """An open stretch that goes on in a run, and how that run compares with those before it."""

    stretch: Stretch
    is_still: bool
    risen: Mapping[str, float]


def _go_on(broken: Iterable[Stretch], run: Run, seen: Symptoms) -> list[_Alive]:
    """Let each open stretch go on, end, or, where the run does not tell, wait."""
    alive = []
    for stretch in broken:
        if run.effective_outcome is Outcome.PASSED:
            stretch.fixed_by = run
        elif not stretch.held & seen.failing:
            if seen.judged >= stretch.held:
                stretch.fixed_by = run
        elif _is_mended(stretch, seen):
            stretch.fixed_by = run
        else:
            alive.append(_Alive(stretch, stretch.is_still(seen), stretch.rose(seen)))
            stretch.add(run, seen)
    return alive


def _is_mended(stretch: Stretch, seen: Symptoms) -> bool:
    """Whether the cause is gone although gates that it failed still fail."""
    if stretch.above is not None:
        # Seen as growth alone: over where figures are back.
        return all(
            level <= stretch.above[name] + MOVED_DECADES / 2
            for name, level in seen.levels.items()
            if name in stretch.above
        )
    if set(stretch.names) & set(seen.signatures):
        return False
    if stretch.is_still(seen):
        return False
    renamed = any(stretch.may_be(name, seen.failing) for name in seen.signatures)
    if stretch.names and seen.signatures and not renamed:
        return True
    if stretch.sides and seen.sides and not stretch.sides & seen.sides:
        return True
    holds_again = bool((stretch.held & seen.judged) - seen.failing)
    return stretch.fell(seen, MOVED_DECADES if holds_again else 1.0)


def _begin(
    run: Run, seen: Symptoms, alive: Sequence[_Alive], broken: Sequence[Stretch]
) -> list[Stretch]:
    """The stretches that begin at a run.

    Args:
        broken: all open ones: those of `alive`, and those that the run does not judge.
    """
    failing = failing_gates(run)
    if not failing:
        return []
    if not alive:
        return [_stretch(failing, seen, name) for name in seen.signatures or ("",)]
    held = {gate for one in broken for gate in one.held}
    known = {name for one in broken for name in one.names}
    signatures = [name for name in seen.signatures if name not in known]
    for one in alive:
        otherwise = [name for name in signatures if one.stretch.may_be(name, seen.failing)]
        known_as = one.stretch.names
        known_as += [name for name in otherwise if not known_as or name not in OBSERVATIONS]
        signatures = [name for name in signatures if name not in otherwise]
    still = any(one.is_still for one in alive)
    if signatures and still and not known & set(seen.signatures):
        # Nothing moved: it is named only now, or otherwise than before.
        alive[-1].stretch.names += signatures
        signatures = []
    named = [gate for gate in failing if gate in seen.named and gate not in held]
    if signatures:
        return [_stretch(named or failing, seen, name, beside=not named) for name in signatures]
    if named:
        stretch = _stretch(named, seen)
        stretch.held |= set(failing) - held
        return [stretch]
    sides = frozenset(side for one in broken for side in one.sides)
    if sides and seen.sides - sides and not still:
        new = [gate for gate in failing if gate not in held]
        stretch = _stretch(new or failing, seen, beside=not new)
        stretch.sides = seen.sides - sides
        return [stretch]
    if all(one.risen for one in alive):
        stretch = _stretch(failing, seen, beside=True)
        stretch.name = "grown"
        stretch.above = {name: level for one in alive for name, level in one.risen.items()}
        return [stretch]
    alive[-1].stretch.held |= set(failing) - held  # how far results are off is no cause itself
    return []


def _stretch(
    gates: Sequence[str], seen: Symptoms, name: str = "", *, beside: bool = False
) -> Stretch:
    return Stretch(
        Cause.BROKEN,
        tuple(gates),
        last_good=None,
        name=name,
        names=[name] if name else [],
        held=set(gates),
        sides=seen.sides,
        beside=beside,
    )


def _last_good(runs: Sequence[Run], place: int, stretch: Stretch) -> Run | None:
    """The last run before `place` that was not bad in this way.

    One that passed, or that judged some of the gates and failed none of them; a failed one too,
    where it failed the same gates for another cause alone.
    """
    if stretch.hidden_by is not None:
        return stretch.hidden_by.last_good  # it may have begun anywhere since then
    gates = set(stretch.gates)
    for run in (runs[earlier] for earlier in range(place - 1, -1, -1)):
        outcome = run.effective_outcome
        if outcome is Outcome.PASSED:
            return run
        if outcome is not Outcome.FAILED:
            continue
        unbroken = stretch.beside or not gates & set(failing_gates(run))
        if unbroken and judged_gates(run) & gates:
            return run
    return None
