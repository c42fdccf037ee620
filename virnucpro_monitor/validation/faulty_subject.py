"""A model with one fault in its packed path, put in by reversible patches."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock

import torch

from virnucpro_monitor.validation import measure
from virnucpro_monitor.validation.builtin import BuiltinSubject
from virnucpro_monitor.validation.subject import Layers, PackedBatch

Rows = dict[int, torch.Tensor]
Patch = tuple[Any, str, Any]
"""An object, the name of its attribute, and what stands there while the packed pass runs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One injected change.

    Attributes:
        kind: "fault" must be killed; "arithmetic" may drown in half-precision noise; "control" is
            harmless and must not fire.
        signature: the trace's short name for it, where it has one.
        patches: model -> what to replace during the packed forward pass.
        on_batch: each pack as the collator makes it -> the pack handed on.
        on_rows: (output by layer, pack, last layer, memory) -> output by layer. The memory lives
            as long as the subject.
        on_cut: (rows [tokens, D], start, end) -> the rows that are pooled.
        token_budget: another one than the subject's.
    """

    name: str
    kind: str = "fault"
    signature: str | None = None
    patches: Callable[[Any], list[Patch]] | None = None
    on_batch: Callable[[PackedBatch], PackedBatch] | None = None
    on_rows: Callable[[Rows, PackedBatch, int, dict[str, Any]], Rows] | None = None
    on_cut: Callable[[torch.Tensor, int, int], torch.Tensor] | None = None
    token_budget: int | None = None


class FaultySubject(BuiltinSubject):
    """The package's own model with one fault in its packed path.

    Use it inside `fault_installed(fault)`, which also places a fault of the pooling.
    """

    def __init__(self, healthy: BuiltinSubject, fault: Fault) -> None:
        super().__init__(
            healthy.model,
            healthy.batch_converter,
            model_name=healthy.model_name,
            token_budget=fault.token_budget or healthy.token_budget,
        )
        self.healthy = healthy
        self.fault = fault
        self._memory: dict[str, Any] = {}

    def embed_unpacked_layers(self, tokens: torch.Tensor, layers: Sequence[int]) -> Layers:
        return self.healthy.embed_unpacked_layers(tokens, layers)

    def pack(
        self, sequences: Sequence[tuple[str, str]], *, per_call: int | None = None
    ) -> Iterator[PackedBatch]:
        for batch in super().pack(sequences, per_call=per_call):
            yield self.fault.on_batch(batch) if self.fault.on_batch else batch

    def embed_packed_layers(self, batch: PackedBatch, layers: Sequence[int]) -> Layers:
        with ExitStack() as stack:
            patches = self.fault.patches(self.model) if self.fault.patches else []
            for owner, name, value in patches:
                stack.enter_context(mock.patch.object(owner, name, value))
            rows = dict(super().embed_packed_layers(batch, layers))
        if self.fault.on_rows:
            with torch.inference_mode():
                rows = self.fault.on_rows(rows, batch, self.num_layers, self._memory)
        return rows


@contextmanager
def fault_installed(fault: Fault) -> Iterator[None]:
    """Place the part of a fault that lies in the pooling of the packed side."""
    if fault.on_cut is None:
        yield
    else:
        with mock.patch.object(measure, "cut_residues", fault.on_cut):
            yield
