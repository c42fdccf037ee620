"""Where a fault is put in: the functions of the model that it exchanges."""

from collections.abc import Callable
from typing import Any

import torch

from virnucpro_monitor.models import esm2_flash
from virnucpro_monitor.models.packed_attention import Pack
from virnucpro_monitor.models.rotary import RotaryTables
from virnucpro_monitor.validation import fault_tools as tools
from virnucpro_monitor.validation.planting import Patch

Patches = Callable[[Any], list[Patch]]


def bounds(change: Callable[[list[int]], list[int]]) -> Patches:
    """Other boundaries."""
    return lambda model: [
        Patch(Pack, "from_cu_seqlens", tools.changed_bounds(change)),
        # The kernels look up whatever position a token has: merged sequences are longer.
        Patch(model.rotary, "get", tools.longer_tables(65536)),
    ]


def positions(change: Callable[[Pack], torch.Tensor]) -> Patches:
    """Other rotary positions, pack -> [tokens] int64."""
    return lambda model: [
        Patch(Pack, "from_cu_seqlens", tools.changed_positions(change)),
        Patch(model.rotary, "get", tools.longer_tables(65536)),
    ]


def attention(change: Callable[..., torch.Tensor | None]) -> Patches:
    """Attention as a function of (q, k, v, pack, backend)."""
    return lambda model: [
        Patch(esm2_flash, "packed_attention", lambda original, *given: change(*given))
    ]


def embedding(change: Callable[..., torch.Tensor | None]) -> Patches:
    """The embedding as a function of (original, tokens, masked, num_masked, length)."""
    return lambda model: [Patch(model, "_embed", change)]


def tables(change: Callable[[RotaryTables], Callable[..., Any]]) -> Patches:
    """Other rotary tables: the model's -> (original, length, device) -> cos and sin."""
    return lambda model: [Patch(model.rotary, "get", change(model.rotary))]


def products(
    change: Callable[..., torch.Tensor], *, only: tuple[int, str] | None = None
) -> Patches:
    """Matrix products as a function of (module, x), all or one of (layer from 0, name)."""

    def patches(model: Any) -> list[Patch]:
        modules = [
            module
            for number, layer in enumerate(model.layers)
            for name in ("qkv", "out", "fc1", "fc2")
            if only is None or only == (number, name)
            for module in [getattr(layer, name)]
        ]
        return [Patch(module, "forward", _of(change, module)) for module in modules]

    return patches


def _of(change: Callable[..., torch.Tensor], module: Any) -> Callable[..., torch.Tensor]:
    return lambda original, x: change(module, x)
