"""Small pieces that injected faults are made of: other layouts, other attention, other rotation."""

import dataclasses
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.nn import functional

from virnucpro_monitor.models.packed_attention import Pack
from virnucpro_monitor.models.rotary import RotaryTables

Attention = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, Pack, str], torch.Tensor]
"""`packed_attention`: q, k, v [tokens, heads, head_dim], pack, backend -> [tokens, heads, d]."""
Range = tuple[int, int]
Tables = tuple[torch.Tensor, torch.Tensor]

MAX_POSITION = 1024
"""Tokens of the longest sequence that the model was trained on, BOS and EOS included."""


def changed_bounds(change: Callable[[list[int]], list[int]]) -> Callable[..., Pack | None]:
    """For `Pack.from_cu_seqlens`: the boundaries are changed first."""

    def lay_out(
        original: Callable[..., Pack], cu_seqlens: torch.Tensor, max_seqlen: int, num_tokens: int
    ) -> Pack | None:
        before = [int(bound) for bound in cu_seqlens.tolist()]
        bounds = change(before)
        if bounds == before:
            return None
        longest = max(b - a for a, b in itertools.pairwise(bounds))
        changed = torch.tensor(bounds, dtype=cu_seqlens.dtype, device=cu_seqlens.device)
        return original(changed, max(max_seqlen, longest), num_tokens)

    return lay_out


def changed_positions(change: Callable[[Pack], torch.Tensor]) -> Callable[..., Pack | None]:
    """For `Pack.from_cu_seqlens`: rotary positions are changed, pack -> [tokens] int64."""

    def lay_out(
        original: Callable[..., Pack], cu_seqlens: torch.Tensor, max_seqlen: int, num_tokens: int
    ) -> Pack | None:
        pack = original(cu_seqlens, max_seqlen, num_tokens)
        positions = change(pack)
        if torch.equal(positions, pack.positions):
            return None
        return dataclasses.replace(pack, positions=positions)

    return lay_out


def positions_reset_late(pack: Pack) -> torch.Tensor:
    """A boundary's first token still counts on from its neighbour; the reset comes after it."""
    positions = pack.positions.clone()
    for start in pack.bounds[1:-1]:
        positions[start] = positions[start - 1] + 1
        end = next(bound for bound in pack.bounds if bound > start)
        positions[start + 1 : end] = torch.arange(end - start - 1, device=positions.device)
    return positions


def positions_restarted(pack: Pack) -> torch.Tensor:
    """Positions start again in the middle of each sequence."""
    lengths = pack.cu_seqlens.diff().long()[pack.sequence_index]
    return pack.positions % ((lengths + 1) // 2).clamp(min=1)


def positions_offset(pack: Pack) -> torch.Tensor:
    """The first sequence's positions start at 17, which RoPE cannot see."""
    return pack.positions + 17 * (pack.sequence_index == 0)


def positions_running_on(pack: Pack) -> torch.Tensor:
    """Positions count on through the pack, and begin anew before they would pass `MAX_POSITION`.

    FP32 angles lose bits in proportion to the position: up to where the model was trained that is
    harmless; 4,096 positions in one pack are told from the oracle, and 32,767 are a fault.
    """
    positions = pack.positions.clone()
    first = 0
    for start, end in itertools.pairwise(pack.bounds):
        if first + end - start > MAX_POSITION:
            first = 0
        positions[start:end] = torch.arange(first, first + end - start, device=positions.device)
        first += end - start
    return positions


def roll_segments(x: torch.Tensor, pack: Pack) -> torch.Tensor:
    """Roll each sequence by one token inside itself. [tokens, ...] -> the same shape."""
    rolled = x.clone()
    for start, end in itertools.pairwise(pack.bounds):
        rolled[start:end] = x[start:end].roll(1, dims=0)
    return rolled


def plain_attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    pack: Pack,
    *,
    keys: Callable[[int], Range] | None = None,
    softmax_dtype: torch.dtype = torch.float32,
    zero_keys: Callable[[int], int] | None = None,
    hidden: bool = False,
    visible: Callable[[torch.Tensor], torch.Tensor] | None = None,
) -> torch.Tensor:
    """Attention written out, each sequence by itself.

    Args:
        q, k, v: [tokens, heads, head_dim]; q comes scaled.
        keys: slot -> the range of tokens that its queries see; its own by default.
        softmax_dtype: what scores are held in for the softmax.
        zero_keys: tokens of a sequence -> how many keys and values of zeros are added to its own;
            `hidden` hides them from the queries.
        visible: key place - query place, [n, n] int64 -> whether the query sees the key.
    """
    output = torch.empty_like(q)
    for slot, (start, end) in enumerate(itertools.pairwise(pack.bounds)):
        first, last = (start, end) if keys is None else keys(slot)
        # [tokens, heads, head_dim] -> [heads, tokens, head_dim]
        queries = q[start:end].transpose(0, 1).float()
        seen, values = (x[first:last].transpose(0, 1).float() for x in (k, v))
        added = zero_keys(end - start) if zero_keys else 0
        seen, values = (functional.pad(x, (0, 0, 0, added)) for x in (seen, values))
        scores = queries @ seen.transpose(-1, -2)
        if hidden and added:
            scores[..., -added:] = float("-inf")
        if visible is not None:
            places = torch.arange(end - start, device=q.device)
            scores = scores.masked_fill(~visible(places[None, :] - places[:, None]), float("-inf"))
        scores = scores.to(softmax_dtype)
        shares = scores.softmax(-1).float()
        output[start:end] = (shares @ values).transpose(0, 1).to(q)
    return output


def rotate_interleaved(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """RoPE on neighbouring channels (2i, 2i + 1) instead of (i, i + d/2). x [..., heads, d]."""
    wide = x.float()
    a, b = wide[..., 0::2], wide[..., 1::2]
    return torch.stack((a * cos - b * sin, b * cos + a * sin), dim=-1).flatten(-2).to(x)


def rotate_every_other() -> Callable[..., torch.Tensor | None]:
    """For `rotate`: the first of each two calls (q) is rotated, the second (k) left as it is."""
    calls = 0

    def rotate_q_only(
        original: Any, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor
    ) -> torch.Tensor | None:
        nonlocal calls
        calls += 1
        return None if calls % 2 else x

    return rotate_q_only


def tables_with_base(tables: RotaryTables, base: float) -> Callable[..., Tables]:
    """For `RotaryTables.get`: another base than 1e4."""
    other = RotaryTables(tables.inv_freq ** (math.log(base) / math.log(1e4)))
    return lambda original, length, device: other.get(length, device)


def rounded_tables(tables: RotaryTables, dtype: torch.dtype) -> Callable[..., Tables]:
    """For `RotaryTables.get`: positions and frequencies rounded to a half-precision dtype."""

    def get(original: Any, length: int, device: torch.device) -> Tables:
        positions = torch.arange(max(length, 1024)).to(dtype)
        angles = (positions[:, None] * tables.inv_freq.to(dtype)[None, :]).to(dtype).float()
        cos, sin = angles.cos().to(dtype).float(), angles.sin().to(dtype).float()
        return cos.to(device), sin.to(device)

    return get


def longer_tables(length: int) -> Callable[..., Tables]:
    """For `RotaryTables.get`: long enough for positions that a fault has enlarged."""
    return lambda original, asked, device: original(max(asked, length), device)


def swap_lengths(bounds: list[int]) -> list[int]:
    """Exchange the lengths of two neighbours that differ."""
    lengths = [b - a for a, b in itertools.pairwise(bounds)]
    for slot in range(len(lengths) - 1):
        if lengths[slot] != lengths[slot + 1]:
            lengths[slot], lengths[slot + 1] = lengths[slot + 1], lengths[slot]
            break
    return accumulate(lengths)


def lengths(pack: Pack) -> list[int]:
    """Tokens of each sequence."""
    return [end - start for start, end in itertools.pairwise(pack.bounds)]


def accumulate(lengths: Sequence[int]) -> list[int]:
    """Lengths -> boundaries from 0."""
    bounds = [0]
    for length in lengths:
        bounds.append(bounds[-1] + length)
    return bounds


def padded_with(model: Any, token: int) -> Callable[..., dict[str, Any]]:
    """A `forward_packed` that pads to the longest sequence with `token` and masks nothing."""

    def forward_packed(
        original: Any,
        input_ids: torch.Tensor,
        cu_seqlens: torch.Tensor,
        max_seqlen: int,
        repr_layers: Sequence[int] = (),
    ) -> dict[str, Any]:
        lengths = cu_seqlens.diff().tolist()
        padded = input_ids.new_full((len(lengths), max(lengths)), token)
        for row, segment in zip(padded, torch.split(input_ids, lengths), strict=True):
            row[: len(segment)] = segment
        found = model.forward(padded, repr_layers=repr_layers)["representations"]
        return {
            "representations": {
                layer: torch.cat([row[:length] for row, length in zip(rows, lengths, strict=True)])
                for layer, rows in found.items()
            }
        }

    return forward_packed


def share_of_the_pack(
    embed: Any,
    tokens: torch.Tensor,
    masked: torch.Tensor,
    num_masked: torch.Tensor,
    length: torch.Tensor,
) -> torch.Tensor | None:
    """The embedding with `<mask>` counted over the whole pack; None where there is none."""
    if not bool(masked.any()):
        return None
    total = torch.full_like(num_masked, int(masked.sum()))
    found: torch.Tensor = embed(tokens, masked, total, torch.full_like(length, len(tokens)))
    return found
