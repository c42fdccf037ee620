"""One sequence of a pack: its tokens, its surroundings, and a shorter pack that shows the same."""

import itertools
from collections.abc import Callable, Sequence

import torch

from virnucpro_monitor.validation.layer_faults import Surroundings
from virnucpro_monitor.validation.perturb import bounds_of, reorder
from virnucpro_monitor.validation.subject import (
    Layers,
    PackedBatch,
    Subject,
    embed_packed,
    embed_slot_layers,
    embed_unpacked,
)
from virnucpro_monitor.validation.worst_rows import WorstRows


def tokens_of(batch: PackedBatch, slot: int) -> torch.Tensor:
    bounds = bounds_of(batch)
    return batch.input_ids[bounds[slot] : bounds[slot + 1]].cpu()


def shorten(
    subject: Subject,
    batch: PackedBatch,
    slot: int,
    seen: WorstRows | None = None,
    *,
    asked: Callable[[PackedBatch], Sequence[int]],
) -> tuple[PackedBatch, int, Layers]:
    """A pack of the sequence, its neighbours, the first and the longest, if it is as wrong there.

    A trace keeps every layer of a pack, so a short one saves time and memory.

    Args:
        seen: the sequence's rows in the whole pack and alone, where they are known.
        asked: the layers, the last one among them, that are to be told of such a pack.

    Returns:
        The pack, the sequence's slot, and its rows there: of the layers that were asked, or none
        where it is the whole pack.
    """
    bounds = bounds_of(batch)
    lengths = [end - start for start, end in itertools.pairwise(bounds)]
    longest = lengths.index(max(lengths))
    kept = sorted({0, slot - 1, slot, slot + 1, longest} & set(range(len(lengths))))
    if len(kept) == len(lengths):
        return batch, slot, {}
    short = reorder(batch, kept)
    new_slot = kept.index(slot)
    start = int(short.cu_seqlens[new_slot])
    # Alone are the sequence's own tokens, and the pack may hold others.
    if seen is None or seen.alone.shape != seen.packed.shape:
        here = slice(bounds[slot], bounds[slot + 1])
        before = embed_packed(subject, batch)[here].double()
        alone = embed_unpacked(subject, batch.input_ids[here].to(subject.device)).to(before)
    else:
        before, alone = seen.packed.double(), seen.alone.to(seen.packed).double()
    after = embed_slot_layers(subject, short, (start, start + lengths[slot]), asked(short))
    moved = (after[subject.num_layers].double() - before).norm()
    # False, too, where a value is not finite.
    if bool(moved <= 0.5 * (before - alone).norm()):
        return short, new_slot, after
    return batch, slot, {}


def surroundings(batch: PackedBatch, slot: int, other_lengths: tuple[int, ...]) -> Surroundings:
    tokens = batch.input_ids.cpu()
    bounds = bounds_of(batch)
    start, end = bounds[slot], bounds[slot + 1]
    nothing = tokens[:0]
    return Surroundings(
        before=tokens[:start],
        after=tokens[end:],
        previous=tokens[bounds[slot - 1] : start] if slot > 0 else nothing,
        following=tokens[end : bounds[slot + 2]] if slot + 2 < len(bounds) else nothing,
        longest=max(b - a for a, b in itertools.pairwise(bounds)),
        other_lengths=other_lengths,
    )
