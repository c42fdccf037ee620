"""Injected faults of packing: who attends to whom, and what becomes of ids, tokens and rows."""

import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch.nn import functional

from virnucpro_monitor.models.packed_attention import Pack, packed_attention
from virnucpro_monitor.validation import fault_parts as parts
from virnucpro_monitor.validation import fault_tools as tools
from virnucpro_monitor.validation.faulty_subject import Fault, Rows
from virnucpro_monitor.validation.grouping import make_pack
from virnucpro_monitor.validation.perturb import bounds_of
from virnucpro_monitor.validation.subject import PackedBatch
from virnucpro_monitor.validation.tokens import alphabet

Visible = Callable[[torch.Tensor], torch.Tensor]


def _visible(visible: Visible, *, beyond: int = 0) -> parts.Patches:
    """Attention to some keys only, in packs with a sequence of more than `beyond` tokens."""

    def change(
        q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, pack: Pack, backend: str
    ) -> torch.Tensor | None:
        if max(tools.lengths(pack)) <= beyond:
            return None
        return tools.plain_attention(q, k, v, pack, visible=visible)

    return parts.attention(change)


def _causal_alone(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, pack: Pack, backend: str
) -> torch.Tensor | None:
    if pack.num_sequences > 1:
        return None
    return tools.plain_attention(q, k, v, pack, visible=lambda apart: apart <= 0)


def _last_key_dropped(drops: Callable[[int], bool]) -> parts.Patches:
    """The last key of sequences of some lengths is dropped."""

    def change(
        q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, pack: Pack, backend: str
    ) -> torch.Tensor | None:
        if not any(drops(length) for length in tools.lengths(pack)):
            return None

        def keys(slot: int) -> tuple[int, int]:
            start, end = pack.bounds[slot], pack.bounds[slot + 1]
            return start, end - 1 if drops(end - start) else end

        return tools.plain_attention(q, k, v, pack, keys=keys)

    return parts.attention(change)


def _heads_out(*heads: int) -> parts.Patches:
    def change(
        q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, pack: Pack, backend: str
    ) -> torch.Tensor:
        output = packed_attention(q, k, v, pack, backend).clone()
        output[:, list(heads)] = 0.0
        return output

    return parts.attention(change)


def _slot_out(slot: int) -> parts.Patches:
    """One sequence of each pack is left out of attention: its output is zero."""

    def change(
        q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, pack: Pack, backend: str
    ) -> torch.Tensor:
        output = packed_attention(q, k, v, pack, backend).clone()
        start, end = (pack.bounds[slot - 1], pack.bounds[slot]) if slot < 0 else pack.bounds[:2]
        output[start:end] = 0.0
        return output

    return parts.attention(change)


def _rows_of_longest_unwritten(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, pack: Pack, backend: str
) -> torch.Tensor:
    """`max_seqlen` two too small, for a kernel that leaves what lies beyond it unwritten."""
    output = torch.empty_like(q)
    right = packed_attention(q, k, v, pack, backend)
    longest = max(tools.lengths(pack))
    for slot, length in enumerate(tools.lengths(pack)):
        start = pack.bounds[slot]
        written = start + min(length, longest - 2)
        output[start:written] = right[start:written]
        output[written : start + length] = 0.0
    return output


def _dropout(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, pack: Pack, backend: str
) -> torch.Tensor:
    return functional.dropout(packed_attention(q, k, v, pack, backend), 0.1, training=True)


def _roll_v(head: int, by: int) -> parts.Patches:
    def change(
        q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, pack: Pack, backend: str
    ) -> torch.Tensor:
        rolled = v.clone()
        for start, end in itertools.pairwise(pack.bounds):
            rolled[start:end, head] = v[start:end, head].roll(by, dims=0)
        return packed_attention(q, k, rolled, pack, backend)

    return parts.attention(change)


def _keys(keys: Callable[[Pack, int], tuple[int, int]]) -> parts.Patches:
    return parts.attention(
        lambda q, k, v, pack, backend: tools.plain_attention(
            q, k, v, pack, keys=lambda slot: keys(pack, slot)
        )
    )


def _into_neighbour(
    share: float, *, only_first_row: bool = False
) -> Callable[[Rows, PackedBatch, int, dict[str, Any]], Rows]:
    """Rows of the last layer receive a share of the first row of the next sequence."""

    def on_rows(rows: Rows, batch: PackedBatch, last: int, memory: dict[str, Any]) -> Rows:
        bounds = bounds_of(batch)
        if last not in rows or len(bounds) < 3:
            return rows
        value = rows[last].clone()
        for slot in range(len(bounds) - 2):
            start, end = bounds[slot], bounds[slot + 1]
            if only_first_row:
                value[end] += share * rows[last][end - 1]
            else:
                value[start:end] += share * rows[last][end]
        return {**rows, last: value}

    return on_rows


def _row(change: Callable[[torch.Tensor, list[int]], None]) -> Callable[..., Rows]:
    """The last layer's rows changed in place, by the pack's boundaries."""

    def on_rows(rows: Rows, batch: PackedBatch, last: int, memory: dict[str, Any]) -> Rows:
        if last not in rows:
            return rows
        value = rows[last].clone()
        change(value, bounds_of(batch))
        return {**rows, last: value}

    return on_rows


def _nan_but_first(value: torch.Tensor, bounds: list[int]) -> None:
    value[bounds[1] :] = float("nan")


def _infinite_last_residue(value: torch.Tensor, bounds: list[int]) -> None:
    value[bounds[1] - 2] = float("inf")


def _last_residue_zero(value: torch.Tensor, bounds: list[int]) -> None:
    for end in bounds[1:]:
        value[end - 2] = 0.0


def _tokens(change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[PackedBatch], PackedBatch]:
    """Other tokens of each sequence, [T] -> [n]."""

    def on_batch(batch: PackedBatch) -> PackedBatch:
        bounds = bounds_of(batch)
        segments = [batch.input_ids[start:end] for start, end in itertools.pairwise(bounds)]
        changed = [change(segment) for segment in segments]
        if all(torch.equal(a, b) for a, b in zip(segments, changed, strict=True)):
            return batch
        return replace(make_pack(changed), sequence_ids=batch.sequence_ids)

    return on_batch


def _read_as_x(tokens: torch.Tensor) -> torch.Tensor:
    changed = tokens.clone()
    for letter in "UZOB":
        changed[tokens == alphabet().get_idx(letter)] = alphabet().get_idx("X")
    return changed


def _inner(
    change: Callable[[torch.Tensor], torch.Tensor],
) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda tokens: torch.cat([tokens[:1], change(tokens[1:-1]), tokens[-1:]])


def _ids_reversed(batch: PackedBatch) -> PackedBatch:
    ids = batch.sequence_ids[::-1]
    return batch if len(ids) < 2 else replace(batch, sequence_ids=ids)


def _rest_lost(packs: list[PackedBatch]) -> list[PackedBatch]:
    return packs[:-1] if len(packs) > 1 else packs


PACKING_FAULTS: tuple[Fault, ...] = (
    Fault(name="causal attention", signature="causal", patches=_visible(lambda d: d <= 0)),
    Fault(
        name="attention window of 32 tokens",
        signature="window",
        lengths=(90, 40, 22),
        patches=_visible(lambda d: d.abs() <= 32, beyond=33),
    ),
    Fault(
        name="attention window of 512 tokens",
        signature="window",
        lengths=(600, 22),
        patches=_visible(lambda d: d.abs() <= 512, beyond=513),
    ),
    Fault(
        name="causal in a pack of one",
        signature="causal",
        lengths=(90, 40),
        token_budget=16,
        patches=parts.attention(_causal_alone),
    ),
    Fault(
        name="keys of zeros up to a multiple of 8",
        signature="zero keys",
        lengths=(90, 40),
        patches=parts.attention(
            lambda q, k, v, pack, backend: tools.plain_attention(
                q, k, v, pack, zero_keys=lambda length: -length % 8
            )
        ),
    ),
    Fault(
        name="last key dropped",
        signature="last key dropped",
        patches=_last_key_dropped(lambda length: length > 3),
    ),
    Fault(
        name="last key dropped at exactly 65 tokens",
        signature="last key dropped",
        group="one length",
        lengths=(63, 40, 22),
        patches=_last_key_dropped(lambda length: length == 65),
    ),
    Fault(
        name="last key dropped at multiples of 64 tokens",
        signature="last key dropped",
        group="tile lengths",
        lengths=(62, 40, 22),
        patches=_last_key_dropped(lambda length: length % 64 == 0),
    ),
    Fault(name="one head left out", signature="head left out", patches=_heads_out(3)),
    Fault(name="three heads left out", signature="head left out", patches=_heads_out(1, 5, 6)),
    Fault(
        name="last sequence of each pack not attended",
        signature="attention left out",
        group="last",
        patches=_slot_out(-1),
    ),
    Fault(
        name="first sequence of each pack not attended",
        signature="attention left out",
        group="first",
        patches=_slot_out(0),
    ),
    Fault(
        name="max_seqlen two too small, rows beyond it zero",
        signature="rows replaced",
        group="longest",
        patches=parts.attention(_rows_of_longest_unwritten),
    ),
    Fault(
        name="dropout left on", signature="dropout", probes=True, patches=parts.attention(_dropout)
    ),
    Fault(name="V of a head rolled back", signature="head rolled", patches=_roll_v(2, -1)),
    Fault(
        name="one token of the sequence before attended to",
        signature="neighbour token",
        patches=_keys(lambda pack, slot: (max(0, pack.bounds[slot] - 1), pack.bounds[slot + 1])),
    ),
    Fault(
        name="the whole pack as one sequence",
        signature="one segment",
        token_budget=4096,
        patches=parts.bounds(lambda bounds: [0, bounds[-1]]),
    ),
    Fault(
        name="K and V exchanged",
        patches=parts.attention(
            lambda q, k, v, pack, backend: packed_attention(q, v, k, pack, backend)
        ),
    ),
    Fault(
        name="a leak of 1e-7 of the next first row",
        signature="leak",
        probes=True,
        on_rows=_into_neighbour(1e-7),
    ),
    Fault(
        name="a leak of 2 % of the next first row",
        signature="leak",
        probes=True,
        on_rows=_into_neighbour(2e-2),
    ),
    Fault(
        name="<eos> row mixed into the next <cls>",
        signature="leak into <cls>",
        probes=True,
        on_rows=_into_neighbour(0.5, only_first_row=True),
    ),
    Fault(
        name="NaN but in the first of each pack",
        signature="not finite",
        on_rows=_row(_nan_but_first),
    ),
    Fault(
        name="infinity in one residue",
        signature="not finite",
        on_rows=_row(_infinite_last_residue),
    ),
    Fault(
        name="last residue's row zero",
        signature="rows replaced",
        lengths=(90, 63),
        on_rows=_row(_last_residue_zero),
    ),
    Fault(name="<eos> missing", signature="eos missing", on_batch=_tokens(lambda t: t[:-1])),
    Fault(name="<cls> missing", signature="bos missing", on_batch=_tokens(lambda t: t[1:])),
    Fault(
        name="<cls> and <eos> missing",
        signature="bos and eos missing",
        on_batch=_tokens(lambda t: t[1:-1]),
    ),
    Fault(
        name="U, Z, O and B read as X",
        signature="letters",
        lengths=(41, 22),
        on_batch=_tokens(_read_as_x),
    ),
    Fault(
        name="sequences cut to 48 residues",
        signature="cut short",
        lengths=(90, 40),
        on_batch=_tokens(_inner(lambda residues: residues[:48])),
    ),
    Fault(
        name="residues in reverse",
        signature="reversed",
        on_batch=_tokens(_inner(lambda residues: residues.flip(0))),
    ),
    Fault(name="ids in reverse, rows not", signature="outside", on_batch=_ids_reversed),
    Fault(
        name="the collator's last pack lost",
        lengths=(90, 63, 40),
        token_budget=100,
        on_packs=_rest_lost,
    ),
    Fault(
        name="first residue dropped",
        signature="outside",
        on_cut=lambda rows, start, end: rows[min(start + 2, end - 1) : end - 1],
    ),
    Fault(
        name="<cls> and <eos> pooled",
        signature="outside",
        on_cut=lambda rows, start, end: rows[start:end],
    ),
    Fault(
        name="pooled one token late",
        signature="outside",
        on_cut=lambda rows, start, end: rows[start + 2 : end],
    ),
)
