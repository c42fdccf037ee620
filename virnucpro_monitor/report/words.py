"""The one vocabulary of states and counts, for the command line, the pages and the reports.

A sequence *agrees* (its error 1 - cos is below the strict threshold's), *deviates* (it lies between
the two thresholds) or *fails* (beyond the lenient one, or without a value). Counts are of sequences
that agree, always.
"""

from collections.abc import Mapping

from virnucpro_monitor.analysis.incidents import IncidentState
from virnucpro_monitor.records import (
    Configuration,
    Culprit,
    Figures,
    Finding,
    GateResult,
    Level,
    Outcome,
    Run,
    Thresholds,
)
from virnucpro_monitor.report.text import UNKNOWN, format_error, format_value, one_line
from virnucpro_monitor.validation.gates import over_limit

LEVEL_WORDS: Mapping[Level, str] = {
    Level.STRICT: "agrees",
    Level.LENIENT: "deviates",
    Level.FAILED: "fails",
}
STATE_WORDS: Mapping[IncidentState, str] = {
    IncidentState.OPEN: "open",
    IncidentState.ACKNOWLEDGED: "acknowledged",
    IncidentState.NOT_SEEN: "not seen since",
    IncidentState.REWRITTEN: "rewritten away",
    IncidentState.FIXED: "fixed",
}
_SIDES = {
    Culprit.PACKED: "packed side",
    Culprit.UNPACKED: "unpacked side",
    Culprit.BOTH: "both sides",
}
MAX_GATES = 4


def level_legend(thresholds: Thresholds) -> str:
    """What the words mean, with the numbers of these thresholds."""
    strict = format_error(round(1.0 - thresholds.strict, 12))
    lenient = format_error(round(1.0 - thresholds.lenient, 12))
    return (
        f"agrees: 1 - cos below {strict}; deviates: from {strict} to {lenient}; "
        f"fails: above {lenient}, or no value"
    )


def agreement(figures: Figures | None) -> str:
    """ "9 of 11": how many sequences agree; unknown where nothing was measured."""
    if figures is None:
        return UNKNOWN
    return f"{figures.num_strict:,} of {figures.num_sequences:,}"


def setup_words(configuration: Configuration) -> str:
    """What tells a series apart from another of its benchmark: "float16 cuda, packs of 4,096"."""
    return (
        f"{configuration.dtype} {configuration.device} {configuration.backend}, "
        f"packs of {configuration.token_budget:,}"
    )


def side_words(culprit: Culprit | None) -> str:
    """ "packed side", or nothing where no side is to blame."""
    return _SIDES.get(culprit, "") if culprit is not None else ""


def deciding_gate(run: Run) -> GateResult | None:
    """The gate that lies furthest beyond its limit, or nearest to it where all hold.

    A failing gate without a ratio (its limit is 0, or it has no value) comes before all others.
    """
    failing = [gate for gate in run.gates if gate.fails]
    judged = failing or [gate for gate in run.gates if over_limit(gate) is not None]
    return max(judged, key=_excess, default=None)


def gate_ratio(gate: GateResult) -> float | None:
    """A gate's value over its limit, above 1 where it fails; None without a finite ratio."""
    return over_limit(gate)


def _excess(gate: GateResult) -> float:
    ratio = over_limit(gate)
    return float("inf") if ratio is None else ratio


def deciding_words(run: Run) -> str:
    """The number that stands for a run: its deciding gate against the gate's limit."""
    gate = deciding_gate(run)
    if gate is None:
        return UNKNOWN
    ratio = over_limit(gate)
    if gate.value is None:
        return f"{gate.name}: no value"
    if ratio is None:
        return f"{gate.name} {format_value(gate.value)}, limit {format_value(gate.limit)}"
    return f"{gate.name} {_times(ratio)} its limit"


def policy_words(run: Run) -> str:
    """Which gates informed and could not fail this run, who said so and why."""
    told = [f"{gate.name} informs by {gate.informs}" for gate in run.gates if gate.informs]
    return one_line("; ".join(told), 400) or "every gate fails the target"


def flips_words(flips: int) -> str:
    """That a verdict changed with the same code in the same set-up."""
    return f"flipped {flips:,} x"


def ratio_words(gate: GateResult) -> str:
    """ "14 x": a gate's value over its limit, or what stands in the place of such a number."""
    ratio = over_limit(gate)
    if gate.value is None:
        return "no value"
    if ratio is None:
        return UNKNOWN if gate.limit is None else "exactly 0" if not gate.value else "above 0"
    return _times(ratio)


def _times(ratio: float) -> str:
    if ratio >= 1e4 or 0 < ratio < 0.01:
        return f"{format_error(ratio)} x"
    return f"{ratio:.2g} x" if ratio < 100 else f"{ratio:,.0f} x"


def failing_words(run: Run, finding: Finding | None = None) -> str:
    """Why a bad run is bad, in a few words; empty for a good one.

    Args:
        finding: what trace and probes recognised in it: it is named instead of the gates.
    """
    if run.effective_outcome is Outcome.FAILED:
        names = [gate.name for gate in run.gates if gate.fails]
        if finding is not None and finding.signatures:
            names = list(finding.signatures)
        shown = ", ".join(names[:MAX_GATES])
        more = f" and {len(names) - MAX_GATES} more" if len(names) > MAX_GATES else ""
        side = side_words(run.culprit) or "side not known"
        return f"{side}: {shown}{more}" if names else side
    if run.effective_outcome.is_bad or run.outcome is Outcome.NOT_RUN:
        return one_line(run.reason, 120)
    told = [
        f"{gate.name} informs by {gate.informs}"
        for gate in run.gates
        if gate.informs and gate.passed is False
    ]
    return one_line("; ".join(told), 120)
