"""Leak trace: in which layer a neighbour's residues first reach a sequence, and which rows."""

import itertools
from dataclasses import dataclass

import torch

from virnucpro_monitor.validation.perturb import bounds_of, other_residues
from virnucpro_monitor.validation.signature import Signature
from virnucpro_monitor.validation.subject import (
    PackedBatch,
    Subject,
    embed_packed,
    embed_slot_layers,
)


@dataclass(frozen=True, slots=True)
class Leak:
    """Where a sequence's rows change with a neighbour's residues.

    Attributes:
        layer: the first one, 0 for the embedding.
        size: the largest absolute change in the last layer.
    """

    sequence_id: str
    layer: int
    size: float
    signature: Signature


def trace_leak(subject: Subject, batch: PackedBatch) -> Leak | None:
    """The largest leak in a pack; None where every sequence keeps its bits, or it has no layers.

    The last layer is looked at first; all of them only of the sequence where most has leaked.
    """
    bounds = bounds_of(batch)
    slots = len(bounds) - 1
    if slots < 2:
        return None
    base = embed_packed(subject, batch)
    worst: tuple[float, int, PackedBatch] | None = None
    for changed in _changes(slots):
        tokens = batch.input_ids.clone()
        for slot in changed:
            segment = tokens[bounds[slot] : bounds[slot + 1]]
            segment[:] = other_residues(segment)
        other = batch.with_tokens(tokens)
        moved = _moved(embed_packed(subject, other), base)
        for slot in sorted(set(range(slots)) - set(changed)):
            size = float(moved[bounds[slot] : bounds[slot + 1]].max())
            if size > 0 and (worst is None or size > worst[0]):
                worst = size, slot, other
    return None if worst is None else _locate(subject, batch, *worst)


def _changes(slots: int) -> list[list[int]]:
    """Even slots, odd ones, then the first and the last alone."""
    found = [list(range(0, slots, 2)), list(range(1, slots, 2)), [0], [slots - 1]]
    return [list(one) for one, _ in itertools.groupby(found)]


def _moved(after: torch.Tensor, before: torch.Tensor) -> torch.Tensor:
    """[tokens], by how much each row has moved; infinite where it is finite only once."""
    apart = (after.double() - before.double()).abs()
    same = (after == before) | (after.isfinite().logical_not() & before.isfinite().logical_not())
    apart = torch.where(same, 0.0, apart.nan_to_num(nan=torch.inf, posinf=torch.inf))
    return apart.amax(-1).cpu()


def _locate(
    subject: Subject, batch: PackedBatch, size: float, slot: int, other: PackedBatch
) -> Leak | None:
    layers = list(range(subject.num_layers + 1))
    bounds = bounds_of(batch)
    span = bounds[slot], bounds[slot + 1]
    base, after = (embed_slot_layers(subject, one, span, layers) for one in (batch, other))
    moved = {layer: _moved(after[layer], base[layer]) for layer in layers}
    first = next((layer for layer in layers if bool(moved[layer].ne(0).any())), None)
    if first is None:
        return None
    last = layers[-1]
    rows = moved[first].ne(0).nonzero().flatten().tolist()
    length = span[1] - span[0]
    where = (
        "at the embedding"
        if first == 0
        else "after the last layer"
        if first == last
        else f"in layer {first}"
    )
    if set(rows) <= {0, length - 1}:
        which = "<cls>" if rows == [0] else "<eos>" if rows == [length - 1] else "<cls> and <eos>"
        text = f"a neighbour's residues reach only the {which} row {where}, no residue's"
        signature = Signature("leak into <cls>", text)
    else:
        text = f"a neighbour's residues reach a sequence {where}"
        signature = Signature("leak", text)
    return Leak(batch.sequence_ids[slot], first, size, signature)
