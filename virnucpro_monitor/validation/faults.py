"""Injected faults: small reversible patches of the packed path, with which `selftest` proves what
the yardstick can see.

See `faulty_subject.Fault` for what one may change. The unpacked side is never touched.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch.nn import functional

from virnucpro_monitor.models import esm2_flash
from virnucpro_monitor.models.packed_attention import Pack, packed_attention
from virnucpro_monitor.validation import fault_parts as parts
from virnucpro_monitor.validation import fault_tools as tools
from virnucpro_monitor.validation.faulty_subject import Fault, Rows
from virnucpro_monitor.validation.numeric_faults import NUMERIC_FAULTS
from virnucpro_monitor.validation.packing_faults import PACKING_FAULTS
from virnucpro_monitor.validation.path_faults import PATH_FAULTS
from virnucpro_monitor.validation.perturb import bounds_of, reorder
from virnucpro_monitor.validation.planting import Patch
from virnucpro_monitor.validation.subject import PackedBatch
from virnucpro_monitor.validation.tokens import alphabet


def _shift_inner(bounds: list[int], by: int) -> list[int]:
    """Move each inner boundary, where both neighbours keep a token."""
    moved = list(bounds)
    for place in range(1, len(bounds) - 1):
        if moved[place - 1] < bounds[place] + by < bounds[place + 1]:
            moved[place] = bounds[place] + by
    return moved


def _neighbour_token(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, pack: Pack, backend: str
) -> torch.Tensor:
    """Each sequence also sees the first token of the next one."""

    def keys(slot: int) -> tuple[int, int]:
        return pack.bounds[slot], min(pack.bounds[slot + 1] + 1, pack.num_tokens)

    return tools.plain_attention(q, k, v, pack, keys=keys)


def _roll_v_of_one_head(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, pack: Pack, backend: str
) -> torch.Tensor:
    rolled = v.clone()
    rolled[:, 0] = tools.roll_segments(v[:, 0], pack)
    return packed_attention(q, k, rolled, pack, backend)


def _low_precision_softmax(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, pack: Pack, backend: str
) -> torch.Tensor:
    dtype = torch.bfloat16 if q.dtype == torch.float32 else q.dtype
    return tools.plain_attention(q, k, v, pack, softmax_dtype=dtype)


def _layer_off_by_one(model: Any) -> list[Patch]:
    def run(original: Any, hidden: torch.Tensor, attend: Any, repr_layers: Sequence[int]) -> Rows:
        found = original(hidden, attend, [max(0, layer - 1) for layer in repr_layers])
        return {layer: found[max(0, layer - 1)] for layer in repr_layers}

    return [Patch(model, "_run", run)]


def _final_norm_missing(model: Any) -> list[Patch]:
    return [Patch(model.final_norm, "forward", lambda original, hidden: hidden)]


def _layer_norm_epsilon(model: Any) -> list[Patch]:
    def with_epsilon(norm: Any) -> Callable[..., torch.Tensor]:
        return lambda original, hidden: functional.layer_norm(
            hidden, norm.normalized_shape, norm.weight, norm.bias, 1e-2
        )

    return [
        Patch(norm, "forward", with_epsilon(norm))
        for layer in model.layers
        for norm in (layer.attention_norm, layer.mlp_norm)
    ]


def _tanh_gelu(model: Any) -> list[Patch]:
    return [Patch(functional, "gelu", lambda original, x: original(x, approximate="tanh"))]


def _longest(batch: PackedBatch) -> tuple[int, int]:
    """Start and end of the pack's longest sequence."""
    bounds = bounds_of(batch)
    slot = max(range(len(bounds) - 1), key=lambda slot: bounds[slot + 1] - bounds[slot])
    return bounds[slot], bounds[slot + 1]


def _nan_in_one_residue(rows: Rows, batch: PackedBatch, last: int, memory: dict[str, Any]) -> Rows:
    start, end = _longest(batch)
    changed = {layer: value.clone() for layer, value in rows.items()}
    for value in changed.values():
        value[(start + end) // 2, 0] = float("nan")
    return changed


def _replace_one_residue(rows: Rows, batch: PackedBatch, last: int, memory: dict[str, Any]) -> Rows:
    if last not in rows:
        return rows
    start, end = _longest(batch)
    value = rows[last].clone()
    # Another residue's own output: a row that is plausible, in the wrong place.
    value[(start + end) // 2] = rows[last][start + 1]
    return {**rows, last: value}


def _stale_output(rows: Rows, batch: PackedBatch, last: int, memory: dict[str, Any]) -> Rows:
    """What the buffer held before this pack was written to it."""
    stale: Rows = {}
    if not any(f"{layer}" in memory for layer in rows):
        memory.update({f"{layer}": value for layer, value in rows.items()})
        return rows
    for layer, value in rows.items():
        before = memory.get(f"{layer}")
        memory[f"{layer}"] = value
        if before is None:
            stale[layer] = value
            continue
        kept = value.new_zeros(value.shape)
        common = min(len(before), len(value))
        kept[:common] = before[:common]
        stale[layer] = kept
    return stale


def _ids_turned(batch: PackedBatch) -> PackedBatch:
    ids = batch.sequence_ids
    if len(ids) < 2:
        return batch
    return replace(batch, sequence_ids=(*ids[1:], ids[0]))


def _one_lost(batch: PackedBatch) -> PackedBatch:
    slots = len(batch.sequence_ids)
    return reorder(batch, range(slots - 1)) if slots > 1 else batch


def _one_doubled(batch: PackedBatch) -> PackedBatch:
    return reorder(batch, [*range(len(batch.sequence_ids)), 0])


_CORE: tuple[Fault, ...] = (
    Fault(
        name="positions reset one token late",
        probes=True,
        signature="positions late",
        patches=parts.positions(tools.positions_reset_late),
    ),
    Fault(
        name="positions doubled",
        signature="positions doubled",
        patches=parts.positions(lambda pack: 2 * pack.positions),
    ),
    Fault(
        name="positions restarted in mid-sequence",
        signature="positions restarted",
        patches=parts.positions(tools.positions_restarted),
    ),
    Fault(
        name="cu_seqlens one late",
        probes=True,
        signature="boundary late",
        patches=parts.bounds(lambda bounds: _shift_inner(bounds, 1)),
    ),
    Fault(
        name="cu_seqlens one early",
        probes=True,
        signature="boundary early",
        patches=parts.bounds(lambda bounds: _shift_inner(bounds, -1)),
    ),
    Fault(
        name="two sequences merged",
        probes=True,
        signature="merged",
        patches=parts.bounds(lambda bounds: bounds[:1] + bounds[2:] if len(bounds) > 2 else bounds),
    ),
    Fault(
        name="boundaries of two swapped",
        probes=True,
        signature="boundaries swapped",
        patches=parts.bounds(tools.swap_lengths),
    ),
    Fault(name="ids in the wrong order", signature="outside", on_batch=_ids_turned),
    Fault(
        name="0.88 missing",
        probes=True,
        signature="rescale missing",
        patches=parts.embedding(lambda embed, *given: embed(*given) / 0.88),
    ),
    Fault(
        name="0.88 applied twice",
        probes=True,
        signature="rescale twice",
        patches=parts.embedding(lambda embed, *given: embed(*given) * 0.88),
    ),
    Fault(
        name="observed-mask rescale missing",
        probes=True,
        signature="mask rescale missing",
        patches=parts.embedding(
            lambda embed, tokens, masked, num_masked, length: embed(
                tokens, masked, num_masked * 0, length
            )
        ),
    ),
    Fault(
        name="<mask> not zeroed",
        probes=True,
        signature="mask not zeroed",
        patches=parts.embedding(
            lambda embed, tokens, masked, num_masked, length: embed(
                tokens, torch.zeros_like(masked), num_masked, length
            )
        ),
    ),
    Fault(
        name="softmax scale missing",
        signature="scale missing",
        patches=parts.attention(
            lambda q, k, v, pack, backend: packed_attention(
                q * q.shape[-1] ** 0.5, k, v, pack, backend
            )
        ),
    ),
    Fault(
        name="softmax scale applied twice",
        signature="scale twice",
        patches=parts.attention(
            lambda q, k, v, pack, backend: packed_attention(
                q * q.shape[-1] ** -0.5, k, v, pack, backend
            )
        ),
    ),
    Fault(
        name="RoPE base 1e5",
        signature="rotary base",
        patches=parts.tables(lambda tables: tools.tables_with_base(tables, 1e5)),
    ),
    Fault(
        name="RoPE interleaved",
        signature="rotary interleaved",
        plain=True,
        patches=lambda model: [
            Patch(esm2_flash, "rotate", lambda original, *given: tools.rotate_interleaved(*given))
        ],
    ),
    Fault(
        name="RoPE on q only",
        signature="rotary q only",
        plain=True,
        patches=lambda model: [Patch(esm2_flash, "rotate", tools.rotate_every_other())],
    ),
    Fault(
        name="final LayerNorm missing",
        signature="final norm missing",
        plain=True,
        patches=_final_norm_missing,
    ),
    Fault(
        name="hidden layer off by one",
        signature="layer off by one",
        patches=_layer_off_by_one,
    ),
    Fault(
        name="BOS pooled",
        signature="outside",
        on_cut=lambda rows, start, end: rows[start : end - 1],
    ),
    Fault(
        name="EOS pooled",
        signature="outside",
        on_cut=lambda rows, start, end: rows[start + 1 : end],
    ),
    Fault(
        name="last residue dropped",
        signature="outside",
        on_cut=lambda rows, start, end: rows[start + 1 : max(end - 2, start + 1)],
    ),
    Fault(
        name="padded fallback with <cls>",
        signature="padding <cls>",
        patches=lambda model: [
            Patch(model, "forward_packed", tools.padded_with(model, alphabet().cls_idx))
        ],
    ),
    Fault(
        name="one token of the neighbour attended to",
        probes=True,
        signature="neighbour token",
        patches=parts.attention(_neighbour_token),
    ),
    Fault(
        name="V of one head rolled against K",
        signature="head rolled",
        patches=parts.attention(_roll_v_of_one_head),
    ),
    Fault(name="NaN in one residue", signature="not finite", on_rows=_nan_in_one_residue),
    Fault(
        name="one residue replaced after the last layer",
        signature="rows replaced",
        on_rows=_replace_one_residue,
    ),
    Fault(
        name="last pack's output returned",
        probes=True,
        signature="not repeatable",
        on_rows=_stale_output,
    ),
    Fault(name="one sequence lost", on_batch=_one_lost),
    Fault(name="one sequence doubled", on_batch=_one_doubled),
    Fault(
        name="tanh GELU", kind="arithmetic", signature="gelu tanh", plain=True, patches=_tanh_gelu
    ),
    Fault(
        name="bfloat16 rotary tables",
        kind="arithmetic",
        signature="rotary bfloat16",
        lengths=(420, 22),
        patches=parts.tables(lambda tables: tools.rounded_tables(tables, torch.bfloat16)),
    ),
    Fault(
        name="float16 rotary tables",
        kind="arithmetic",
        signature="rotary float16",
        lengths=(420, 22),
        patches=parts.tables(lambda tables: tools.rounded_tables(tables, torch.float16)),
    ),
    Fault(
        name="LayerNorm epsilon 1e-2",
        kind="arithmetic",
        signature="layer norm epsilon",
        plain=True,
        patches=_layer_norm_epsilon,
    ),
    Fault(
        name="softmax in low precision",
        kind="arithmetic",
        signature="softmax bfloat16",
        patches=parts.attention(_low_precision_softmax),
    ),
)

FAULTS: tuple[Fault, ...] = (*_CORE, *PACKING_FAULTS, *PATH_FAULTS, *NUMERIC_FAULTS)
