"""Residue trace: along the worst sequences of a failed run, how far each residue is off."""

from collections.abc import Sequence

import torch

from virnucpro_monitor.data.benchmarks import truncate
from virnucpro_monitor.records import BenchmarkSet, Json
from virnucpro_monitor.validation import measures
from virnucpro_monitor.validation.oracle import Oracle
from virnucpro_monitor.validation.worst_rows import WorstRows

# A trace is drawn, not judged: four digits keep the document of a long sequence near 100 kB.
_SIGNIFICANT_DIGITS = 4


def trace_residues(
    benchmark: BenchmarkSet, worst: Sequence[WorstRows], oracle: Oracle | None
) -> dict[str, Json]:
    """Compare the worst sequences' rows, as they were measured, residue by residue.

    They are those of the layer trace, each cut to the model's limit as everywhere.

    Returns:
        JSON document {"sequences": [one for each]}, empty where none has a place in a pack. Each
        is {"sequence_id", "residues": its letters, "errors", "relative_l2"}; the last two are
        {"packed_unpacked", "packed", "unpacked"}, of which the latter two are against the oracle
        and left out without one. Each holds one value for each residue: 1 - cos, or
        ||a - b|| / ||b||; None where not finite.
    """
    traced = [_trace_one(benchmark, one, oracle) for one in worst]
    return {"sequences": traced} if traced else {}


def _trace_one(benchmark: BenchmarkSet, worst: WorstRows, oracle: Oracle | None) -> dict[str, Json]:
    result = worst.result
    residues = truncate(benchmark.sequences[result.index].residues)[0]
    packed, unpacked = worst.residues.cpu(), worst.alone[1:-1].cpu()
    pairs = {"packed_unpacked": (packed, unpacked)}
    if oracle is not None and oracle.residues_path is not None:
        exact = oracle.residues_of(result.index)
        pairs |= {"packed": (packed, exact), "unpacked": (unpacked, exact)}
    # A target may have packed other residues than ours: their rows belong to nothing here.
    same = {name: pair for name, pair in pairs.items() if pair[0].shape == pair[1].shape}
    return {
        "sequence_id": result.sequence_id,
        "residues": residues,
        "errors": {
            name: _listed((1.0 - measures.residue_cosines(a, b)).clamp(min=0.0))
            for name, (a, b) in same.items()
        },
        "relative_l2": {
            name: _listed(measures.residue_relative_l2(a, b)) for name, (a, b) in same.items()
        },
    }


def _listed(values: torch.Tensor) -> list[float | None]:
    return [
        measures.finite_or_none(float(f"{value:.{_SIGNIFICANT_DIGITS}g}"))
        for value in values.tolist()
    ]
