"""What a failed run says of its causes: names, sides and the size of what is wrong."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from virnucpro_monitor.analysis.series import lacks_values, worst_error
from virnucpro_monitor.records import Culprit, Finding, GateResult, Outcome, Run

WHOLE_VERDICT = "verdict"
"""Stands for the gates of a failed run that names none."""

SYMPTOMS = frozenset({WHOLE_VERDICT, "seed", "gain", "residue", "oracle", "ceiling", "baseline"})
"""Gates that say how far results are off. Whatever is wrong fails them; the others name what."""

OBSERVATIONS = {
    "leak": "leak",
    "leak into <cls>": "leak",
    "not finite": "finite",
    "not repeatable": "repeat",
    "unwritten": "unwritten",
}
"""Names of findings that say what one gate saw, by that gate: what is behind it stays open."""

MOVED_DECADES = 0.3
"""By how much a figure of a failing run must move to tell of another cause: a factor of two."""
STILL_DECADES = 0.02
"""Figures that move by no more than this in a deterministic run are those of the same fault."""

_SIDES = {
    Culprit.PACKED: frozenset({Culprit.PACKED}),
    Culprit.UNPACKED: frozenset({Culprit.UNPACKED}),
    Culprit.BOTH: frozenset({Culprit.PACKED, Culprit.UNPACKED}),
}
_NO_VALUE = 30.0  # decades: no number is worse than none


@dataclass(frozen=True, slots=True)
class Symptoms:
    """One failed run, as far as causes go.

    Attributes:
        failing, judged: names of gates.
        named: gates among `failing` that name a cause.
        signatures: names of the faults that trace and probes recognised.
        sides: that are wrong; empty where the run does not tell.
        levels: log10 of each measure of what is wrong, by name.
        yardstick: what figures must have in common to be set side by side.
    """

    failing: frozenset[str]
    judged: frozenset[str]
    signatures: tuple[str, ...]
    sides: frozenset[Culprit]
    levels: Mapping[str, float] = field(hash=False)
    yardstick: tuple[str, str]

    @property
    def named(self) -> frozenset[str]:
        return self.failing - SYMPTOMS


def failing_gates(run: Run) -> tuple[str, ...]:
    """Names of the gates that a bad verdict rests on."""
    if run.effective_outcome is not Outcome.FAILED:
        return ()
    names = tuple(gate.name for gate in run.gates if gate.fails)
    return names or (WHOLE_VERDICT,)


def judged_gates(run: Run) -> frozenset[str]:
    return frozenset({WHOLE_VERDICT, *(g.name for g in run.gates if g.passed is not None)})


def read_symptoms(run: Run, finding: Finding | None) -> Symptoms:
    return Symptoms(
        failing=frozenset(failing_gates(run)),
        judged=judged_gates(run),
        signatures=finding.signatures if finding is not None else (),
        sides=_SIDES.get(run.culprit, frozenset()) if run.culprit else frozenset(),
        levels=read_levels(run),
        yardstick=(run.benchmark_digest, run.protocol_digest),
    )


def read_levels(run: Run) -> dict[str, float]:
    """How wrong a failed run is, by failing gate and by figure, in decades."""
    sizes = {gate.name: _size(gate) for gate in run.gates if gate.fails}
    if run.figures is not None:
        sizes["error"] = worst_error(run)
        if run.culprit is not Culprit.UNPACKED:
            sizes["packed distance"] = run.figures.max_packed_relative_l2
        if run.culprit is not Culprit.PACKED:
            sizes["unpacked distance"] = run.figures.max_unpacked_relative_l2
    levels = {
        name: math.log10(size)
        for name, size in sizes.items()
        if size is not None and math.isfinite(size) and size > 0.0
    }
    if lacks_values(run):
        levels["error"] = _NO_VALUE
    return levels


def _size(gate: GateResult) -> float | None:
    if gate.value is None:
        return None
    return 1.0 - gate.value if gate.unit == "cosine" else gate.value
