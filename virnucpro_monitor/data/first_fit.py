"""First-fit decreasing: which sequences share a pack."""

from collections.abc import Sequence
from heapq import heappop, heappush
from itertools import pairwise
from typing import NamedTuple

import numpy as np


class PackPlan(NamedTuple):
    """One pack to be made.

    Attributes:
        indices: places in the input, longest sequence first.
        num_tokens: their lengths' sum.
        oversized: the pack is one sequence that is longer than the budget.
    """

    indices: tuple[int, ...]
    num_tokens: int
    oversized: bool


class GreedyPacker:
    """First-fit decreasing packing: O(n log n), deterministic.

    From the longest sequence to the shortest (equal ones in input order), each goes into the first
    pack that has room for it, and into a new one if none has. A sequence longer than the budget
    gets a pack to itself.

    Args:
        max_tokens_per_batch: the budget, in tokens; a sequence takes its residues + 2.
    """

    def __init__(self, max_tokens_per_batch: int = 4096) -> None:
        if max_tokens_per_batch < 1:
            raise ValueError(f"max_tokens_per_batch is {max_tokens_per_batch}; it is at least 1")
        self.max_tokens_per_batch = max_tokens_per_batch

    def pack(self, lengths: Sequence[int]) -> list[PackPlan]:
        """Plan packs for sequences of these lengths, in tokens.

        Returns:
            Packs in the order they were opened; each input index is in exactly one.

        Raises:
            ValueError: a length is below 1.
        """
        sizes = np.asarray(lengths, dtype=np.int64)
        if sizes.size == 0:
            return []
        if sizes.min() < 1:
            raise ValueError(f"sequence {int(sizes.argmin())} has {sizes.min()} tokens; at least 1")
        order = np.argsort(-sizes, kind="stable")
        distinct, counts = np.unique(sizes, return_counts=True)
        packs, run_lengths = self._place(distinct[::-1].tolist(), counts[::-1].tolist())
        pack_of_item = np.repeat(packs, run_lengths)
        # Stable, so each pack keeps its longest sequence first.
        by_pack = np.argsort(pack_of_item, kind="stable")
        indices = order[by_pack]
        ends = np.cumsum(np.bincount(pack_of_item))
        tokens = np.diff(np.concatenate(([0], np.cumsum(sizes[indices])[ends - 1])))
        flat = tuple(indices.tolist())
        bounds = [0, *ends.tolist()]
        oversized = (tokens > self.max_tokens_per_batch).tolist()
        return [
            PackPlan(flat[start:end], num_tokens, is_oversized)
            for (start, end), num_tokens, is_oversized in zip(
                pairwise(bounds), tokens.tolist(), oversized, strict=True
            )
        ]

    def _place(self, sizes: list[int], counts: list[int]) -> tuple[list[int], list[int]]:
        """Place `counts[i]` sequences of `sizes[i]` each, sizes strictly decreasing.

        Returns:
            Runs: `pack` and how many sequences in a row go into it, in the order of placement.
        """
        budget = self.max_tokens_per_batch
        # As sizes only decrease, a pack that has room for one size has room for all later ones
        # until something is put into it. So packs are either `fitting` (a heap by index, for the
        # first one) or wait, by their room, for a size that is small enough.
        fitting: list[int] = []
        waiting: dict[int, list[int]] = {}
        waiting_rooms: list[int] = []  # the keys, as a heap with the largest first
        rooms: list[int] = []
        packs: list[int] = []
        run_lengths: list[int] = []
        for size, count in zip(sizes, counts, strict=True):
            while waiting_rooms and -waiting_rooms[0] >= size:
                for pack in waiting.pop(-heappop(waiting_rooms)):
                    heappush(fitting, pack)
            while count:
                if not fitting:
                    # The oversized one has its pack to itself: as if it filled it exactly.
                    rooms.append(max(budget, size))
                    fitting.append(len(rooms) - 1)
                pack = fitting[0]
                room = rooms[pack]
                placed = min(count, room // size)
                packs.append(pack)
                run_lengths.append(placed)
                count -= placed
                room -= placed * size
                rooms[pack] = room
                if room < size:
                    heappop(fitting)
                    if room not in waiting:
                        waiting[room] = []
                        heappush(waiting_rooms, -room)
                    waiting[room].append(pack)
        return packs, run_lengths
