"""Where a side departs: the errors of a sequence's layers against what healthy runs have there."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from virnucpro_monitor.validation import measures
from virnucpro_monitor.validation.layer_noise import layer_limits
from virnucpro_monitor.validation.subject import Layers

Errors = list[float | None]
"""By layer, relative L2 over the residues; None where not finite."""

# An error that is less than this share of the result's cannot have brought it about: over the depth
# of a model, rounding grows by less than a hundred.
_FAIR_SHARE = 1e-3
# Sides that are wrong alike are wrong together: neither is this many times nearer to the oracle.
_ALIKE = 2.0


@dataclass(frozen=True, slots=True)
class Departure:
    """The first layer that is wrong, and whose: "packed", "unpacked" or "both sides"."""

    layer: int
    side: str


def errors_of(rows: Layers, exact: Layers, layers: Sequence[int]) -> Errors:
    """Relative L2 over the residues of each layer."""
    return [measures.relative_l2(rows[layer][1:-1], exact[layer][1:-1]) for layer in layers]


def pooled_error(rows: torch.Tensor, exact: torch.Tensor) -> float | None:
    """Relative L2 of the mean over residues, rows [T, D] with BOS and EOS."""
    return measures.relative_l2(rows[1:-1].double().mean(0), exact[1:-1].double().mean(0))


def first_departure(errors: Sequence[float | None], limits: Sequence[float]) -> int | None:
    """The first layer beyond what healthy runs have at its depth, that accounts for the last one.

    None where there is none, as where every error is rounding.
    """
    result = errors[-1]
    for layer, (error, limit) in enumerate(zip(errors, limits, strict=True)):
        if error is None:
            return layer
        if error > limit and (result is None or error >= _FAIR_SHARE * result):
            return layer
    return None


def find_departures(packed: Errors, unpacked: Errors, key: str) -> list[Departure]:
    """Each side's departure, against FP32 alone; one for both where they are wrong alike.

    Args:
        unpacked: empty where there is no oracle, and packed is compared with unpacked.
        key: the name of the limits, from `protocol.limits_key`.
    """
    limits = layer_limits(key, len(packed) - 1)
    of_packed = first_departure(packed, limits)
    of_unpacked = first_departure(unpacked, limits) if unpacked else None
    if of_packed is not None and of_packed == of_unpacked and _alike(packed, unpacked, of_packed):
        return [Departure(of_packed, "both sides")]
    found = [(of_packed, "packed"), (of_unpacked, "unpacked")]
    return [Departure(layer, side) for layer, side in found if layer is not None]


def is_within_noise(errors: Errors, key: str) -> bool:
    """Whether every layer has an error that healthy runs have too."""
    limits = layer_limits(key, len(errors) - 1)
    return all(
        error is not None and error <= limit for error, limit in zip(errors, limits, strict=True)
    )


def _alike(packed: Errors, unpacked: Errors, layer: int) -> bool:
    one, other = packed[layer], unpacked[layer]
    if one is None or other is None:
        return one is other
    return max(one, other) <= _ALIKE * min(one, other)
