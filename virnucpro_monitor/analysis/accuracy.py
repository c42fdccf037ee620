"""Each side's distance to FP32: a promise of its own, beside the agreement of the two.

Two sides can come closer to each other while one, or both, move away from the truth. Distances are
relative L2 against the oracle.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise

from virnucpro_monitor.records import Culprit, Run, SequenceResult

FLOOR = 1e-6
"""Distances below this are FP32's own rounding, which another order of sums changes."""
MIN_DECADES = 0.04
"""A distance that changes by less than a tenth has not moved. Unlike the error between the sides it
is no difference of two near-equal things, and repeats on one machine to the last digits."""

SIDES = (Culprit.PACKED, Culprit.UNPACKED)


class Movement(StrEnum):
    FURTHER = "further from FP32"
    CLOSER = "closer to FP32"
    SAME = "as far from FP32"
    UNKNOWN = "distance to FP32 not known"


@dataclass(frozen=True, slots=True, kw_only=True)
class SideAccuracy:
    """One side's worst distance to FP32 in two runs, over the sequences that both have.

    Attributes:
        base, head: relative L2; None where it is not known of every sequence.
        num_further, num_closer: sequences whose own distance moved.
    """

    side: Culprit
    base: float | None
    head: float | None
    movement: Movement
    num_further: int
    num_closer: int

    @property
    def decades(self) -> float | None:
        """Positive where it moved away; None where a distance is not known."""
        return _decades(self.base, self.head)


@dataclass(frozen=True, slots=True, kw_only=True)
class AccuracyMove:
    """Between two neighbouring measured runs of a series a side's worst distance moved."""

    side: Culprit
    before: Run
    after: Run
    base: float
    head: float
    movement: Movement


def find_movement(base: float | None, head: float | None) -> Movement:
    decades = _decades(base, head)
    if decades is None:
        return Movement.UNKNOWN
    if abs(decades) < MIN_DECADES:
        return Movement.SAME
    return Movement.FURTHER if decades > 0 else Movement.CLOSER


def distance(result: SequenceResult, side: Culprit) -> float | None:
    """Relative L2 of one side's pooled embedding against the oracle."""
    return result.packed_relative_l2 if side is Culprit.PACKED else result.unpacked_relative_l2


def worst_distance(run: Run, side: Culprit) -> float | None:
    if run.figures is None:
        return None
    if side is Culprit.PACKED:
        return run.figures.max_packed_relative_l2
    return run.figures.max_unpacked_relative_l2


def moves_away(base: SequenceResult, head: SequenceResult) -> bool:
    """Whether either side of a sequence is further from FP32 than before."""
    return any(
        find_movement(distance(base, side), distance(head, side)) is Movement.FURTHER
        for side in SIDES
    )


def compare_accuracy(
    pairs: Sequence[tuple[SequenceResult, SequenceResult]],
) -> tuple[SideAccuracy, ...]:
    """Both sides' distances over (base, head) results of the same sequences."""
    return tuple(_side(pairs, side) for side in SIDES)


def _side(pairs: Sequence[tuple[SequenceResult, SequenceResult]], side: Culprit) -> SideAccuracy:
    distances = [(distance(base, side), distance(head, side)) for base, head in pairs]
    moves = [find_movement(base, head) for base, head in distances]
    base = _worst([base for base, _ in distances])
    head = _worst([head for _, head in distances])
    return SideAccuracy(
        side=side,
        base=base,
        head=head,
        movement=find_movement(base, head),
        num_further=moves.count(Movement.FURTHER),
        num_closer=moves.count(Movement.CLOSER),
    )


def find_accuracy_moves(runs: Sequence[Run]) -> tuple[AccuracyMove, ...]:
    """Where a side's worst distance moved between neighbouring measured runs of one series.

    Runs under another protocol, benchmark digest or environment are not set against each other.
    """
    measured = [run for run in runs if run.outcome.has_verdict and run.figures is not None]
    return tuple(
        AccuracyMove(side=side, before=before, after=after, base=base, head=head, movement=movement)
        for before, after in pairwise(measured)
        if _yardstick(before) == _yardstick(after)
        for side in SIDES
        if (base := worst_distance(before, side)) is not None
        and (head := worst_distance(after, side)) is not None
        and (movement := find_movement(base, head)) in (Movement.FURTHER, Movement.CLOSER)
    )


def _yardstick(run: Run) -> tuple[object, ...]:
    return run.benchmark_digest, run.protocol_digest, run.configuration, run.environment


def _worst(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return max(known) if known and len(known) == len(values) else None


def _decades(base: float | None, head: float | None) -> float | None:
    if base is None or head is None or not (math.isfinite(base) and math.isfinite(head)):
        return None
    return math.log10(max(head, FLOOR)) - math.log10(max(base, FLOOR))
