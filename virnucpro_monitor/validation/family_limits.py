"""Limits for encoders of other families, whose healthy runs no protocol has evidence of.

A protocol's limits are three times the worst of ESM-2's healthy runs. Another family takes them
as they are where its own noise fits into them, and wider by as much as that is larger where it
does not, up to a bound: a fault may look like noise. They stay provisional, and each gate says so.
"""

from collections.abc import Mapping
from dataclasses import replace

from virnucpro_monitor.records import GATE, GateResult, LimitsDocument, NoiseDocument

MARGIN = 3.0  # as a protocol's limits have over the worst healthy run
MAX_FACTOR = 10.0


def limits_of_family(
    family: str, noise: NoiseDocument | None, limits: Mapping[str, float]
) -> LimitsDocument:
    """How much wider a family's limits are than the protocol's.

    Args:
        noise: of this run; None where no probes ran.
        limits: of the protocol.
    """
    moved = None if noise is None else noise.reordered
    factor = 1.0 if moved is None else MARGIN * moved / limits["order"]
    return LimitsDocument(family=family, factor=min(max(1.0, factor), MAX_FACTOR))


def widened(limits: Mapping[str, float], found: LimitsDocument | None) -> Mapping[str, float]:
    """A protocol's limits as a run's own document has them; as they are without one."""
    if found is None:
        return limits
    return {name: limit * found.factor for name, limit in limits.items()}


def marked(gate: GateResult, found: LimitsDocument | None) -> GateResult:
    """The same gate, with a word that its limit is provisional."""
    if found is None or gate.passed is None or GATE[gate.name].limit is None:
        return gate
    wider = f", {found.factor:.3g} x ESM-2's by this run's own noise" if found.factor > 1 else ""
    return replace(gate, detail=f"{gate.detail} Provisional for {found.family}{wider}.")
