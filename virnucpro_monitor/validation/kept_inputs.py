"""A subject whose passes keep their inputs: what a target writes into them is noted and undone.

A caller may use a pack again. Without this, the next pass over it would be blamed for what an
earlier one wrote.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from virnucpro_monitor.records import Culprit
from virnucpro_monitor.validation.subject import Layers, PackedBatch, Subject, WrappedSubject


class KeptInputs(WrappedSubject):
    """A `Subject` as it is, but for its inputs.

    Attributes:
        changed: (side, name of the input) -> the largest change of a value that was seen.
    """

    def __init__(self, subject: Subject) -> None:
        super().__init__(subject)
        self.changed: dict[tuple[Culprit, str], float] = {}
        span = getattr(subject, "embed_packed_span", None)
        if span is not None:
            self.embed_packed_span = self._keeping_packs(span)

    def embed_unpacked_layers(self, tokens: torch.Tensor, layers: Sequence[int]) -> Layers:
        with self._keeping(Culprit.UNPACKED, tokens=tokens):
            return self._subject.embed_unpacked_layers(tokens, layers)

    def embed_packed_layers(self, batch: PackedBatch, layers: Sequence[int]) -> Layers:
        return self._keeping_packs(self._subject.embed_packed_layers)(batch, layers)

    def _keeping_packs(self, embed: Callable[..., Layers]) -> Callable[..., Layers]:
        def keeping(batch: PackedBatch, *others: Any) -> Layers:
            inputs = {"input_ids": batch.input_ids, "cu_seqlens": batch.cu_seqlens}
            with self._keeping(Culprit.PACKED, **inputs):
                return embed(batch, *others)

        return keeping

    @contextmanager
    def _keeping(self, side: Culprit, **inputs: torch.Tensor) -> Iterator[None]:
        kept = {name: value.clone() for name, value in inputs.items()}
        try:
            yield
        finally:
            for name, value in inputs.items():
                if not torch.equal(value, kept[name]):
                    change = float((value.double() - kept[name].double()).abs().max())
                    self.changed[side, name] = max(change, self.changed.get((side, name), 0.0))
                    value.copy_(kept[name])
