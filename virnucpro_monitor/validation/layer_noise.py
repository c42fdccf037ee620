"""What healthy runs differ from FP32 by at each depth: below it, no layer is named.

Rounding grows from layer to layer, and another correct implementation rounds otherwise than ours.
The limits are 3 x the worst value of at least 200 healthy runs of each dtype, among them rewritings
that round as other people's models do; they stand with their evidence in
`protocols/layer_noise.json`.
"""

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from importlib import resources

from virnucpro_monitor.records import Json

NUM_BINS = 6
"""Depths that a limit is held for, the embedding and the final LayerNorm apart."""

EMBEDDING, FINAL = 0, NUM_BINS + 1


def bin_of(layer: int, num_layers: int) -> int:
    """Which limit a layer has: 0 the embedding, 1 to `NUM_BINS` by depth, then the last."""
    if layer == 0:
        return EMBEDDING
    if layer >= num_layers:
        return FINAL
    return min(NUM_BINS, 1 + (layer - 1) * NUM_BINS // num_layers)


def layer_limits(key: str, num_layers: int) -> list[float]:
    """The limit of each layer, 0 to `num_layers`, in relative L2 over the residues of a sequence.

    Args:
        key: the name of the limits, from `protocol.limits_key`.
    """
    limits = _frozen()["limits"]
    # Where a dtype has no evidence of its own, a noisier one bounds it: half precision is noisier
    # on a CPU, where attention keeps its scores in it, and bfloat16 is noisier than float16.
    bounds = (key, f"{key} on cpu", "bfloat16 on cpu")
    of_dtype: Sequence[float] = next(limits[name] for name in bounds if name in limits)
    return [of_dtype[bin_of(layer, num_layers)] for layer in range(num_layers + 1)]


@lru_cache(maxsize=1)
def _frozen() -> Mapping[str, Json]:
    file = resources.files("virnucpro_monitor.validation") / "protocols" / "layer_noise.json"
    content: Mapping[str, Json] = json.loads(file.read_text(encoding="utf-8"))
    return content
