"""Leak trace: in which layer a neighbour's residues first reach a sequence, and which rows."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from virnucpro_monitor.validation.perturb import bounds_of, other_residues
from virnucpro_monitor.validation.signature import Signature
from virnucpro_monitor.validation.subject import Layers, PackedBatch, Subject


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
    """The largest leak in a pack; None where every sequence keeps its bits, or it has no layers."""
    bounds = bounds_of(batch)
    slots = len(bounds) - 1
    layers = list(range(subject.num_layers + 1))
    if slots < 2:
        return None
    base = subject.embed_packed_layers(batch, layers)
    worst: Leak | None = None
    for changed in _changes(slots):
        tokens = batch.input_ids.clone()
        for slot in changed:
            segment = tokens[bounds[slot] : bounds[slot + 1]]
            segment[:] = other_residues(segment)
        after = subject.embed_packed_layers(batch.with_tokens(tokens), layers)
        for slot in sorted(set(range(slots)) - set(changed)):
            here = slice(bounds[slot], bounds[slot + 1])
            found = _compare(batch, slot, base, after, here, layers, changed)
            if found is not None and (worst is None or found.size > worst.size):
                worst = found
    return worst


def _changes(slots: int) -> list[list[int]]:
    """Even slots, odd ones, then the first and the last alone."""
    found = [list(range(0, slots, 2)), list(range(1, slots, 2)), [0], [slots - 1]]
    return [list(one) for one, _ in itertools.groupby(found)]


def _compare(
    batch: PackedBatch,
    slot: int,
    base: Layers,
    after: Layers,
    here: slice,
    layers: Sequence[int],
    changed: Sequence[int],
) -> Leak | None:
    moved = {
        layer: (after[layer][here].double() - base[layer][here].double()).abs().amax(-1)
        for layer in layers
    }
    first = next((layer for layer in layers if bool(moved[layer].ne(0).any())), None)
    if first is None:
        return None
    last = layers[-1]
    size = float(moved[last].max())
    rows = moved[first].ne(0).nonzero().flatten().tolist()
    length = here.stop - here.start
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
