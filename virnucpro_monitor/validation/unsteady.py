"""A pack that gives other values each time: dropout, or a race."""

import itertools
from collections.abc import Callable, Sequence

import torch

from virnucpro_monitor.validation.perturb import bounds_of
from virnucpro_monitor.validation.probe_rows import same
from virnucpro_monitor.validation.signature import Signature
from virnucpro_monitor.validation.signatures import DROPOUT_ON, NOT_REPEATABLE
from virnucpro_monitor.validation.subject import Layers, PackedBatch, Subject, embed_packed
from virnucpro_monitor.validation.worst_rows import WorstRows

# Passes whose mean tells dropout, which is right on average, from a race.
_DROPOUT_PASSES = 8

Right = Callable[[torch.Tensor, Sequence[int]], Layers]
"""Tokens [T] of a sequence and layers -> its right rows of each, [T, D]."""


def name_unsteady(
    subject: Subject, right: Right, batch: PackedBatch, seen: WorstRows | None = None
) -> Signature | None:
    """Whether the same pack twice gives other values, and whether they are right on average.

    Args:
        seen: rows of one of its sequences, from an earlier pass.
    """
    first = embed_packed(subject, batch)
    if seen is not None:
        start = seen.result.offset or 0
        if same(first[start : start + len(seen.packed)], seen.packed):
            return None
    if same(first, embed_packed(subject, batch)):
        return None
    layer = _first_unsteady(subject, batch)
    passes = [
        subject.embed_packed_layers(batch, [layer])[layer].double() for _ in range(_DROPOUT_PASSES)
    ]
    mean = torch.stack(passes).mean(0)
    spread = [float((one - mean).norm()) for one in passes]
    exact = torch.cat(
        [
            right(batch.input_ids[start:end], [layer])[layer].to(mean)
            for start, end in itertools.pairwise(bounds_of(batch))
        ]
    )
    off = float((mean - exact).norm())
    steady = min(spread) > 0.5 * max(spread)
    # The mean of n passes lies 1 / sqrt(n - 1) of their spread from the right values.
    if steady and off < max(spread):
        return DROPOUT_ON
    return NOT_REPEATABLE


def _first_unsteady(subject: Subject, batch: PackedBatch) -> int:
    """The first layer whose rows two passes give otherwise: all later ones do, too."""
    low, high = 0, subject.num_layers
    while high - low > 1:
        middle = (low + high) // 2
        one, other = (subject.embed_packed_layers(batch, [middle])[middle] for _ in range(2))
        low, high = (middle, high) if same(one, other) else (low, middle)
    return high
