"""Rows of the sequences that differ most, kept as they were measured: what a trace is about.

A failed run is explained from them, so that nothing is embedded again only to be looked at, and
what is shown of a target that does not repeat itself is what decided.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from virnucpro_monitor.records import SequenceResult, SequenceStatus

_NUM_KEPT = 2


@dataclass(frozen=True, slots=True)
class WorstRows:
    """One sequence that differs, and its rows.

    Attributes:
        result: where it lies in which pack, and how far it is off.
        packed: [T, D], its slot of the pack, BOS and EOS included.
        residues: [len, D], what was cut out of the pack as its residues.
        alone: [T, D] by itself, BOS and EOS included.
    """

    result: SequenceResult
    packed: torch.Tensor
    residues: torch.Tensor
    alone: torch.Tensor


class KeptRows:
    """The worst sequences so far; the rows of no other are held."""

    def __init__(self) -> None:
        self._kept: dict[int, WorstRows] = {}

    def offer(
        self,
        result: SequenceResult,
        rows: torch.Tensor,
        span: tuple[int, int],
        residues: torch.Tensor,
        alone: torch.Tensor,
    ) -> None:
        """Keep a copy where the sequence, or this copy of it, is among the worst.

        Args:
            rows: [tokens, D] of the pack.
            span: the sequence's slot in it.
        """
        if result.status is SequenceStatus.LOST:
            return
        others = {index: one for index, one in self._kept.items() if index != result.index}
        if len(others) == _NUM_KEPT:
            mildest = min(others, key=lambda index: _badness(others[index].result))
            if _badness(result) <= _badness(others[mildest].result):
                return
            del others[mildest]
        # Cloned, since a slice would keep the whole pack's rows.
        own = WorstRows(result, rows[slice(*span)].clone(), residues.clone(), alone)
        self._kept = {**others, result.index: own}

    def sorted(self, sequences: Sequence[SequenceResult]) -> tuple[WorstRows, ...]:
        """Those that differ most, one whose value is not finite first; ties go to the shorter.

        Of a doubled one it is the copy that differs most.

        Args:
            sequences: by index, as they turned out.
        """
        found = [replace(one, result=sequences[index]) for index, one in self._kept.items()]
        return tuple(sorted(found, key=lambda one: _badness(one.result), reverse=True))


def _badness(result: SequenceResult) -> tuple[float, int]:
    error = result.packed_relative_l2
    error = result.relative_l2 if error is None else error
    return (float("inf") if error is None else error, -result.length)
