"""Collates sequences into packs: token ids end to end, and where each sequence begins."""

from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any

import torch

from tinypack.data.packing import plan_packs

Record = dict[str, str]


class VarlenCollator:
    """Buffers records until `buffer_size` are there, then hands out one pack a call."""

    def __init__(
        self,
        batch_converter: Callable[..., Any],
        max_tokens_per_batch: int = 4096,
        buffer_size: int = 256,
        enable_packing: bool = True,
    ) -> None:
        self.batch_converter = batch_converter
        self.max_tokens_per_batch = max_tokens_per_batch
        self.buffer_size = buffer_size
        self.enable_packing = enable_packing
        self.buffer: list[Record] = []
        self.ready: list[list[Record]] = []

    def __call__(self, records: Sequence[Record]) -> dict[str, Any]:
        """Take records with "id" and "sequence"; return a pack, or {} while buffering."""
        if not self.enable_packing:
            return self._collate(list(records))
        self.buffer.extend(records)
        if len(self.buffer) >= self.buffer_size:
            self._plan()
        return self._collate(self.ready.pop(0)) if self.ready else {}

    def flush(self) -> list[dict[str, Any]]:
        """All packs that are left."""
        self._plan()
        packs, self.ready = self.ready, []
        return [self._collate(pack) for pack in packs]

    def _plan(self) -> None:
        lengths = [len(record["sequence"]) + 2 for record in self.buffer]
        plan = plan_packs(lengths, self.max_tokens_per_batch)
        self.ready.extend([self.buffer[index] for index in pack] for pack in plan)
        self.buffer = []

    def _collate(self, records: list[Record]) -> dict[str, Any]:
        pairs = [(record["id"], record["sequence"]) for record in records]
        rows = [self.batch_converter([pair])[2][0] for pair in pairs]
        lengths = [len(row) for row in rows]
        return {
            "input_ids": torch.cat(rows),
            "cu_seqlens": torch.tensor([0, *accumulate(lengths)], dtype=torch.int32),
            "max_seqlen": max(lengths),
            "sequence_ids": [name for name, _ in pairs],
            "num_sequences": len(pairs),
        }
