"""Injected faults that show in some packs or at some moments only, and spare all others.

The self-test's own packs are small, so that "long" and "many" begin early here: what counts is that
no sequence of its set is struck, and a probe is.
"""

from collections.abc import Callable
from typing import Any

import torch

from virnucpro_monitor.models.packed_attention import Pack, packed_attention
from virnucpro_monitor.models.rotary import RotaryTables
from virnucpro_monitor.validation import fault_parts as parts
from virnucpro_monitor.validation import fault_tools as tools
from virnucpro_monitor.validation.fault_tools import Tables
from virnucpro_monitor.validation.faulty_subject import Fault, Rows
from virnucpro_monitor.validation.perturb import bounds_of
from virnucpro_monitor.validation.subject import PackedBatch

_LONG_PACK = 100
_MANY = 5
_BUFFER = 40
# As a counter of 8 bits holds it; 16 bits overflow beyond 32,767 tokens in the same way.
_LARGEST_BOUND = 255


def _kept_from_first_pack(tables: RotaryTables) -> Callable[..., Tables | None]:
    """A table as long as the first pack needed it; later tokens take its last row."""
    kept: list[int] = []

    def get(original: Any, length: int, device: torch.device) -> Tables | None:
        kept.append(length)
        if length <= kept[0]:
            return None
        cos, sin = original(length, device)
        places = torch.arange(len(cos), device=device).clamp(max=kept[0] - 1)
        return cos[places], sin[places]

    return get


def _left_by_the_pass_before(
    rows: Rows, batch: PackedBatch, last: int, memory: dict[str, Any]
) -> Rows:
    """A thousandth of the mean row of the pack before is added."""
    if last not in rows:
        return rows
    before = memory.get("mean")
    memory["mean"] = rows[last].mean(0)
    return rows if before is None else {**rows, last: rows[last] + 1e-3 * before}


def _leak_in_long_packs(rows: Rows, batch: PackedBatch, last: int, memory: dict[str, Any]) -> Rows:
    bounds = bounds_of(batch)
    if last not in rows or bounds[-1] <= _LONG_PACK:
        return rows
    value = rows[last].clone()
    for slot in range(len(bounds) - 2):
        start, end = bounds[slot], bounds[slot + 1]
        value[start:end] += 1e-6 * rows[last][end]
    return {**rows, last: value}


def _share_of_long_packs(
    embed: Any,
    tokens: torch.Tensor,
    masked: torch.Tensor,
    num_masked: torch.Tensor,
    length: torch.Tensor,
) -> torch.Tensor | None:
    if len(tokens) <= _LONG_PACK:
        return None
    return tools.share_of_the_pack(embed, tokens, masked, num_masked, length)


def _doubled_among_many(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, pack: Pack, backend: str
) -> torch.Tensor | None:
    return packed_attention(2 * q, k, v, pack, backend) if pack.num_sequences >= _MANY else None


def _rows_unwritten(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, pack: Pack, backend: str
) -> torch.Tensor:
    """The last rows of the longest are never written: where memory is not poisoned, they happen to
    hold what the pass before left there, the right ones."""
    output = packed_attention(q, k, v, pack, backend)
    fresh = torch.empty_like(output)
    lengths = tools.lengths(pack)
    slot = lengths.index(max(lengths))
    unwritten = slice(max(pack.bounds[slot], pack.bounds[slot + 1] - 2), pack.bounds[slot + 1])
    there = fresh[unwritten]
    output[unwritten] = torch.where(there.isnan(), there, output[unwritten])
    return output


def _overflow_lost(packs: list[PackedBatch]) -> list[PackedBatch]:
    given = sum(len(pack.sequence_ids) for pack in packs)
    return packs[:-1] if given > _BUFFER else packs


PATH_FAULTS: tuple[Fault, ...] = (
    Fault(
        name="rotary table kept from the first pack",
        probes=True,
        signature="rotary table short",
        patches=parts.tables(_kept_from_first_pack),
    ),
    Fault(
        name="a trace of the pass before",
        probes=True,
        signature="not repeatable",
        on_rows=_left_by_the_pass_before,
    ),
    Fault(
        name="a packed pass changes a matrix",
        probes=True,
        spoils=lambda model: model.layers[2].fc1.weight,
    ),
    Fault(
        name="boundaries in too few bits",
        signature="merged",
        lengths=(129, 90, 63, 40),
        token_budget=400,
        patches=parts.bounds(
            lambda bounds: [bound for bound in bounds[:-1] if bound <= _LARGEST_BOUND] + bounds[-1:]
        ),
    ),
    Fault(
        name="a leak of 1e-6 in long packs alone",
        probes=True,
        signature="leak",
        on_rows=_leak_in_long_packs,
    ),
    Fault(
        name="<mask> rescale by the pack's share in long packs alone",
        probes=True,
        signature="mask rescale of the pack",
        patches=parts.embedding(_share_of_long_packs),
    ),
    Fault(
        name="queries doubled among many sequences",
        probes=True,
        signature="scale off",
        group="many in a pack",
        patches=parts.attention(_doubled_among_many),
    ),
    Fault(
        name="rows that nobody writes",
        probes=True,
        signature="unwritten",
        patches=parts.attention(_rows_unwritten),
    ),
    Fault(
        name="what a full buffer cannot hold is lost",
        probes=True,
        on_packs=_overflow_lost,
    ),
)
