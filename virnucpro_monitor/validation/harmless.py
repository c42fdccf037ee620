"""Harmless changes of the packed path, on which no gate may fire.

They are other correct implementations: other kernels, other orders of sums, other packs, other
positions that RoPE cannot see. A yardstick that fires on them is wrong, and noise limits are frozen
from them, since a target's own rounding is not ours.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch.nn import functional

from virnucpro_monitor.models.packed_attention import Pack, packed_attention
from virnucpro_monitor.validation import fault_parts as parts
from virnucpro_monitor.validation import fault_tools as tools
from virnucpro_monitor.validation.faulty_subject import Fault
from virnucpro_monitor.validation.perturb import bounds_of, reorder
from virnucpro_monitor.validation.planting import Patch
from virnucpro_monitor.validation.subject import PackedBatch


def _roll_k_and_v(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, pack: Pack, backend: str
) -> torch.Tensor:
    return packed_attention(
        q, tools.roll_segments(k, pack), tools.roll_segments(v, pack), pack, backend
    )


def _shuffled(batch: PackedBatch) -> PackedBatch:
    slots = len(batch.sequence_ids)
    if slots < 2:
        return batch
    generator = torch.Generator().manual_seed(slots)
    return reorder(batch, torch.randperm(slots, generator=generator).tolist())


def _sorted_by_length(batch: PackedBatch) -> PackedBatch:
    bounds = bounds_of(batch)
    slots = list(range(len(batch.sequence_ids)))
    order = sorted(slots, key=lambda slot: bounds[slot + 1] - bounds[slot])
    return batch if order == slots else reorder(batch, order)


def _larger_max_seqlen(batch: PackedBatch) -> PackedBatch:
    """Kernels round it up anyway."""
    return replace(batch, max_seqlen=batch.max_seqlen + 37)


def _written_gelu(original: Any, x: torch.Tensor) -> torch.Tensor:
    """fair-esm's own: x / 2 (1 + erf(x / sqrt(2)))."""
    wide = x.float()
    written: torch.Tensor = wide * 0.5 * (1.0 + torch.erf(wide / 2**0.5))
    return written.to(x)


def _written_layer_norms(model: Any) -> list[Patch]:
    def written(norm: Any) -> Callable[..., torch.Tensor]:
        def forward(original: Any, hidden: torch.Tensor) -> torch.Tensor:
            x = hidden.float()
            mean = x.mean(-1, keepdim=True)
            variance = (x - mean).square().mean(-1, keepdim=True)
            normed: torch.Tensor = (x - mean) / (variance + norm.eps).sqrt()
            affine: torch.Tensor = normed * norm.weight.float() + norm.bias.float()
            return affine.to(hidden)

        return forward

    norms = [norm for layer in model.layers for norm in (layer.attention_norm, layer.mlp_norm)]
    return [Patch(norm, "forward", written(norm)) for norm in (*norms, model.final_norm)]


def _products_in_halves(model: Any) -> list[Patch]:
    """Each product summed in two halves, as another tile size does."""

    def in_halves(module: Any) -> Callable[..., torch.Tensor]:
        def forward(original: Any, x: torch.Tensor) -> torch.Tensor:
            half = x.shape[-1] // 2
            weight, bias = module.weight, module.bias
            first = functional.linear(x[..., :half].contiguous(), weight[:, :half].contiguous())
            rest = functional.linear(x[..., half:].contiguous(), weight[:, half:].contiguous())
            product: torch.Tensor = first.float() + rest.float() + bias.float()
            return product.to(x)

        return forward

    return [
        Patch(module, "forward", in_halves(module))
        for layer in model.layers
        for module in (layer.qkv, layer.out, layer.fc1, layer.fc2)
    ]


def _masked_padding(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, pack: Pack, backend: str
) -> torch.Tensor:
    """Keys of zeros up to a multiple of 8, and a mask that hides them."""
    return tools.plain_attention(q, k, v, pack, zero_keys=lambda length: -length % 8, hidden=True)


CONTROLS: tuple[Fault, ...] = (
    Fault(
        name="positions not reset",
        kind="control",
        patches=parts.positions(tools.positions_running_on),
    ),
    Fault(
        name="constant offset to one sequence's positions",
        kind="control",
        patches=parts.positions(tools.positions_offset),
    ),
    Fault(
        name="K and V rolled together after RoPE",
        kind="control",
        patches=parts.attention(_roll_k_and_v),
    ),
    Fault(name="packs shuffled", kind="control", on_batch=_shuffled),
    Fault(name="another token budget", kind="control", token_budget=1200),
    Fault(
        name="another correct attention backend",
        kind="control",
        plain=True,
        patches=parts.attention(
            lambda q, k, v, pack, backend: tools.plain_attention(q, k, v, pack)
        ),
    ),
    Fault(name="packs sorted by length", kind="control", on_batch=_sorted_by_length),
    Fault(name="max_seqlen larger than needed", kind="control", on_batch=_larger_max_seqlen),
    Fault(
        name="masked padding of keys",
        kind="control",
        plain=True,
        patches=parts.attention(_masked_padding),
    ),
    Fault(
        name="GELU written out",
        kind="control",
        plain=True,
        patches=lambda model: [Patch(functional, "gelu", _written_gelu)],
    ),
    Fault(
        name="LayerNorm written out",
        kind="control",
        plain=True,
        patches=_written_layer_norms,
    ),
    Fault(
        name="products summed in halves",
        kind="control",
        plain=True,
        patches=_products_in_halves,
    ),
    Fault(
        name="K scaled instead of Q",
        kind="control",
        plain=True,
        patches=parts.attention(
            lambda q, k, v, pack, backend: packed_attention(
                q * q.shape[-1] ** 0.5, k * k.shape[-1] ** -0.5, v, pack, backend
            )
        ),
    ),
)
