"""From sequences to packs: buffer, plan, tokenise.

{"id", "sequence"} ... -> buffer -> GreedyPacker -> {"input_ids", "cu_seqlens", ...} ...
"""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from virnucpro_monitor.data.first_fit import GreedyPacker, PackPlan
from virnucpro_monitor.data.limits import MAX_RESIDUES, SPECIAL_TOKENS

_MASK_TEXT = "<mask>"
# Control characters stand for the special tokens while a pack is one byte string.
_BOS, _EOS, _MASK = "\x01", "\x02", "\x03"

Batch = dict[str, Any]


class VarlenCollator:
    """Turns sequences into packs for `forward_packed`.

    Called with records, it returns one pack or, while it buffers, `{}`; `flush` gives the rest.
    `stream` does both for an iterable. Every record comes out exactly once, whatever the buffer
    size, the order or the sizes of the calls.

    Args:
        batch_converter: fair-esm's, whose alphabet is used.
        max_tokens_per_batch: budget of a pack, BOS and EOS included. A sequence longer than that
            is a pack of its own.
        max_sequence_length: residues kept of a sequence, from its N-terminus.
        buffer_size: how many sequences are planned together; more fill packs better.
        enable_packing: False keeps the input's order: a pack ends where the next sequence does
            not fit.
        pin_memory: page-locked tensors, which copy to a GPU while it computes; by default where
            there is a GPU.
    """

    def __init__(
        self,
        batch_converter: Any,
        max_tokens_per_batch: int = 4096,
        *,
        max_sequence_length: int = MAX_RESIDUES,
        buffer_size: int = 2000,
        enable_packing: bool = True,
        pin_memory: bool | None = None,
    ) -> None:
        if buffer_size < 1:
            raise ValueError(f"buffer_size is {buffer_size}; it is at least 1")
        if max_sequence_length < 1:
            raise ValueError(f"max_sequence_length is {max_sequence_length}; it is at least 1")
        self.packer = GreedyPacker(max_tokens_per_batch)
        self.max_tokens_per_batch = max_tokens_per_batch
        self.max_sequence_length = max_sequence_length
        self.buffer_size = buffer_size
        self.enable_packing = enable_packing
        self.pin_memory = torch.cuda.is_available() if pin_memory is None else pin_memory
        self._ids_by_byte, self._known = _byte_table(batch_converter.alphabet)
        self._buffer: list[_Sequence] = []
        self._planned: deque[list[_Sequence]] = deque()

    def __call__(self, records: Sequence[Mapping[str, str]] | Mapping[str, str]) -> Batch:
        """Take records in; give one pack back, or `{}` while there is none to give.

        Args:
            records: mappings with "id" and "sequence"; one alone will do.

        Returns:
            {"input_ids": [tokens] int64, "cu_seqlens": [n + 1] int32, "max_seqlen": int,
            "sequence_ids": n ids, "num_sequences": n, "truncated_ids": ids that were cut}

        Raises:
            ValueError: an empty sequence, or a character that the alphabet lacks. Nothing of the
                call is taken in then.
        """
        if isinstance(records, Mapping):
            records = [records]
        self._buffer += [self._read(record) for record in records]
        if not self._planned and len(self._buffer) >= self._threshold:
            self._plan(keep_last=True)
        return self._next()

    def flush(self) -> list[Batch]:
        """All packs of what is still held; afterwards nothing is."""
        return list(self._drain())

    def stream(
        self,
        records: Iterable[Mapping[str, str]],
        device: torch.device | str | None = None,
    ) -> Iterator[Batch]:
        """Packs of all records, each made while the GPU still computes on the one before.

        Args:
            device: where the tensors shall be; they are copied without waiting.
        """
        for record in records:
            self._buffer.append(self._read(record))
            if len(self._buffer) >= self._threshold:
                self._plan(keep_last=True)
                while self._planned:
                    yield _on_device(self._next(), device)
        for batch in self._drain():
            yield _on_device(batch, device)

    @property
    def _threshold(self) -> int:
        return self.buffer_size if self.enable_packing else 1

    def _read(self, record: Mapping[str, str]) -> "_Sequence":
        name, residues = record["id"], record["sequence"]
        text = residues.replace(_MASK_TEXT, _MASK)
        unknown = set(text) - self._known
        if not text:
            raise ValueError(f"sequence {name!r} is empty")
        if unknown:
            place = min(text.index(character) for character in unknown)
            raise ValueError(
                f"sequence {name!r} has {text[place]!r} at position {place + 1}, which the "
                "alphabet lacks"
            )
        truncated = len(text) > self.max_sequence_length
        return _Sequence(name, text[: self.max_sequence_length], truncated)

    def _plan(self, *, keep_last: bool) -> None:
        """Plan packs for the buffer. The last pack, seldom full, may wait for more to come."""
        lengths = [sequence.num_tokens for sequence in self._buffer]
        if self.enable_packing:
            plans = self.packer.pack(lengths)
        else:
            plans = _in_order(lengths, self.max_tokens_per_batch)
        kept = plans.pop() if keep_last and len(plans) > 1 else None
        self._planned.extend([self._buffer[index] for index in plan.indices] for plan in plans)
        self._buffer = [self._buffer[index] for index in kept.indices] if kept else []

    def _next(self) -> Batch:
        return self._tokenise(self._planned.popleft()) if self._planned else {}

    def _drain(self) -> Iterator[Batch]:
        while self._planned or self._buffer:
            if not self._planned:
                self._plan(keep_last=False)
            yield self._next()

    def _tokenise(self, sequences: list["_Sequence"]) -> Batch:
        text = "".join(f"{_BOS}{sequence.text}{_EOS}" for sequence in sequences)
        codes = np.frombuffer(text.encode("latin-1"), dtype=np.uint8)
        input_ids = torch.from_numpy(self._ids_by_byte[codes])
        lengths = [sequence.num_tokens for sequence in sequences]
        cu_seqlens = torch.from_numpy(np.cumsum([0, *lengths], dtype=np.int32))
        if self.pin_memory:
            input_ids, cu_seqlens = input_ids.pin_memory(), cu_seqlens.pin_memory()
        return {
            "input_ids": input_ids,
            "cu_seqlens": cu_seqlens,
            "max_seqlen": max(lengths),
            "sequence_ids": [sequence.id for sequence in sequences],
            "num_sequences": len(sequences),
            "truncated_ids": [sequence.id for sequence in sequences if sequence.truncated],
        }


class _Sequence:
    """A record, read: its residues with each `<mask>` as one character."""

    __slots__ = ("id", "num_tokens", "text", "truncated")

    def __init__(self, name: str, text: str, truncated: bool) -> None:
        self.id = name
        self.text = text
        self.truncated = truncated
        self.num_tokens = len(text) + SPECIAL_TOKENS


def _byte_table(alphabet: Any) -> tuple[np.ndarray[Any, np.dtype[np.int64]], frozenset[str]]:
    """Token ids by byte value, and the characters that a sequence may hold."""
    table = np.full(256, alphabet.unk_idx, dtype=np.int64)
    letters = [token for token in alphabet.all_toks if len(token) == 1]
    for letter in letters:
        table[ord(letter)] = alphabet.get_idx(letter)
    table[ord(_BOS)] = alphabet.cls_idx
    table[ord(_EOS)] = alphabet.eos_idx
    table[ord(_MASK)] = alphabet.mask_idx
    return table, frozenset([*letters, _MASK])


def _in_order(lengths: list[int], budget: int) -> list[PackPlan]:
    plans: list[PackPlan] = []
    indices: list[int] = []
    total = 0
    for index, length in enumerate(lengths):
        if indices and total + length > budget:
            plans.append(PackPlan(tuple(indices), total, total > budget))
            indices, total = [], 0
        indices.append(index)
        total += length
    if indices:
        plans.append(PackPlan(tuple(indices), total, total > budget))
    return plans


def _on_device(batch: Batch, device: torch.device | str | None) -> Batch:
    if device is None:
        return batch
    moved = {
        name: batch[name].to(device, non_blocking=True) for name in ("input_ids", "cu_seqlens")
    }
    return batch | moved
