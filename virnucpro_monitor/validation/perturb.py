"""Other packs from one pack (reordered, other residues, masks), and the exact embedding."""

import itertools
from collections.abc import Sequence
from dataclasses import replace

import torch

from virnucpro_monitor.validation.subject import PackedBatch
from virnucpro_monitor.validation.tokens import alphabet

# The 20 standard residues are tokens 4 to 23 of ESM-2's alphabet.
_FIRST_RESIDUE, _NUM_RESIDUES = 4, 20
# ESM-2 was trained with 15 % of tokens chosen and 80 % of those masked.
_TRAINED_MASK_RATIO = 0.15 * 0.8


def bounds_of(pack: PackedBatch) -> list[int]:
    """`cu_seqlens` as a list."""
    return [int(bound) for bound in pack.cu_seqlens.tolist()]


def reorder(pack: PackedBatch, order: Sequence[int]) -> PackedBatch:
    """The same sequences in another order: new slot i holds old slot `order[i]`."""
    bounds = bounds_of(pack)
    segments = [pack.input_ids[bounds[slot] : bounds[slot + 1]] for slot in order]
    ends = torch.tensor([0, *(len(segment) for segment in segments)]).cumsum(0)
    return replace(
        pack,
        input_ids=torch.cat(segments),
        cu_seqlens=ends.to(pack.cu_seqlens),
        sequence_ids=tuple(pack.sequence_ids[slot] for slot in order),
    )


def other_residues(tokens: torch.Tensor) -> torch.Tensor:
    """Each standard residue replaced by another; all other tokens kept. [T] int64 -> [T]."""
    shifted = (tokens - _FIRST_RESIDUE + 7) % _NUM_RESIDUES + _FIRST_RESIDUE
    standard = (tokens >= _FIRST_RESIDUE) & (tokens < _FIRST_RESIDUE + _NUM_RESIDUES)
    return torch.where(standard, shifted, tokens)


def mask_tokens(tokens: torch.Tensor, fraction: float) -> torch.Tensor:
    """Put `<mask>` on floor(fraction x residues) evenly spread residues. [T] int64 -> [T]."""
    masked = tokens.clone()
    for place in range(tokens.shape[0] - 2):
        if int((place + 1) * fraction) > int(place * fraction):
            masked[place + 1] = alphabet().mask_idx
    return masked


def mask_pack(pack: PackedBatch, fractions: Sequence[float]) -> tuple[PackedBatch, list[float]]:
    """Mask each slot of a pack, at the fractions in turn; also returns each slot's fraction.

    Neighbours with different fractions show a rescale taken from the wrong sequence.
    """
    bounds = bounds_of(pack)
    shares = [fractions[slot % len(fractions)] for slot in range(len(bounds) - 1)]
    segments = [
        mask_tokens(pack.input_ids[start:end], share)
        for (start, end), share in zip(itertools.pairwise(bounds), shares, strict=True)
    ]
    rest = pack.input_ids[bounds[-1] :]
    return pack.with_tokens(torch.cat([*segments, rest])), shares


def expected_embedding(table: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """fair-esm's embedding layer in float64: table [33, D], tokens [T] int64 -> [T, D].

    `<mask>` rows are zero, and the whole is scaled by 0.88 over the share of tokens not masked.
    """
    masked = tokens == alphabet().mask_idx
    rows = table.double()[tokens]
    rows[masked] = 0.0
    observed = float(masked.double().mean())
    return rows * ((1.0 - _TRAINED_MASK_RATIO) / (1.0 - observed))
