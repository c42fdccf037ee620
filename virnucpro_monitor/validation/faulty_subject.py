"""A model with one fault in its packed path, put in by reversible patches."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from virnucpro_monitor.validation import measure
from virnucpro_monitor.validation.builtin import BuiltinSubject
from virnucpro_monitor.validation.planting import Patch, Witness, planted
from virnucpro_monitor.validation.subject import Layers, PackedBatch

Rows = dict[int, torch.Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One injected change.

    Attributes:
        kind: "fault" must be killed; "arithmetic" may drown in half-precision noise; "range" acts
            on values that not all weights reach; "control" is harmless and must not fire.
        signature: the trace's short name for it, where it has one.
        group: the short name of the sequences that it strikes, where they are to be named.
        lengths: residues of the self-test's sequences that show it; None for the usual ones.
        probes: whether the probes are asked even where the sequences' own gates see it.
        patches: model -> the functions to exchange during the packed forward pass.
        plain: plain PyTorch instead of the fused kernels, whose arithmetic no patch can reach.
        on_batch: each pack as the collator makes it -> the pack handed on; the same where the
            fault does not touch it.
        on_packs: all packs of a set -> those handed on, the same where the fault does not touch
            them.
        on_rows: (output by layer, pack, last layer, memory) -> output by layer, the same where the
            fault does not touch it. The memory lives as long as the subject.
        on_cut: (rows [tokens, D], start, end) -> the rows that are pooled.
        spoils: model -> the weight that the first packed pass changes in place.
        token_budget: another one than the subject's.
    """

    name: str
    kind: str = "fault"
    signature: str | None = None
    group: str | None = None
    lengths: tuple[int, ...] | None = None
    probes: bool = False
    patches: Callable[[Any], list[Patch]] | None = None
    plain: bool = False
    on_batch: Callable[[PackedBatch], PackedBatch] | None = None
    on_packs: Callable[[list[PackedBatch]], list[PackedBatch]] | None = None
    on_rows: Callable[[Rows, PackedBatch, int, dict[str, Any]], Rows] | None = None
    on_cut: Callable[[torch.Tensor, int, int], torch.Tensor] | None = None
    spoils: Callable[[Any], torch.Tensor] | None = None
    token_budget: int | None = None


class FaultySubject(BuiltinSubject):
    """The package's own model with one fault in its packed path.

    Use it inside `fault_installed(fault, witness)`, which also places a fault of the pooling.

    Attributes:
        witness: how often each part of the fault acted.
    """

    def __init__(
        self, healthy: BuiltinSubject, fault: Fault, witness: Witness | None = None
    ) -> None:
        super().__init__(
            healthy.model,
            healthy.batch_converter,
            model_name=healthy.model_name,
            token_budget=fault.token_budget or healthy.token_budget,
        )
        self.healthy = healthy
        self.fault = fault
        self.witness = Witness() if witness is None else witness
        self._memory: dict[str, Any] = {}
        self._unspoilt: torch.Tensor | None = None
        self._patches = fault.patches(self.model) if fault.patches else []
        for hook in ("on_batch", "on_packs", "on_rows", "spoils"):
            if getattr(fault, hook) is not None:
                self.witness.setdefault(hook, 0)

    def embed_unpacked_layers(self, tokens: torch.Tensor, layers: Sequence[int]) -> Layers:
        return self.healthy.embed_unpacked_layers(tokens, layers)

    def pack(
        self, sequences: Sequence[tuple[str, str]], *, per_call: int | None = None
    ) -> Iterator[PackedBatch]:
        packs = super().pack(sequences, per_call=per_call)
        if self.fault.on_packs:
            whole = list(packs)
            kept = self.fault.on_packs(whole)
            self.witness["on_packs"] += kept is not whole
            packs = iter(kept)
        for batch in packs:
            changed = self.fault.on_batch(batch) if self.fault.on_batch else batch
            if self.fault.on_batch:
                self.witness["on_batch"] += changed is not batch
            yield changed

    def embed_packed_layers(self, batch: PackedBatch, layers: Sequence[int]) -> Layers:
        self._spoil()
        used_kernels, used_graphs = self.model.use_kernels, self.model.use_graphs
        self.model.use_kernels = used_kernels and not self.fault.plain
        self.model.use_graphs = used_graphs and not self._patches  # captured without them
        try:
            with planted(self._patches, self.witness):
                rows = dict(super().embed_packed_layers(batch, layers))
        finally:
            self.model.use_kernels, self.model.use_graphs = used_kernels, used_graphs
        if self.fault.on_rows:
            with torch.inference_mode():
                changed = self.fault.on_rows(rows, batch, self.num_layers, self._memory)
            self.witness["on_rows"] += changed is not rows
            rows = changed
        return rows

    def _spoil(self) -> None:
        if self.fault.spoils is None or self._unspoilt is not None:
            return
        weight = self.fault.spoils(self.model)
        self._unspoilt = weight.detach().clone()
        with torch.no_grad():
            weight.mul_(1 + 2**-7)  # told apart in every dtype
        self.witness["spoils"] += 1

    def mend(self) -> None:
        """Give the model back as it was: the next fault is put into the same one."""
        if self.fault.spoils is not None and self._unspoilt is not None:
            with torch.no_grad():
                self.fault.spoils(self.model).copy_(self._unspoilt)
            self._unspoilt = None


@contextmanager
def fault_installed(fault: Fault, witness: Witness | None = None) -> Iterator[None]:
    """Place the part of a fault that lies in the pooling of the packed side.

    Raises:
        FaultNotInPlaceError: the function that cuts a sequence out has another name by now.
    """
    cut = fault.on_cut
    patches = []
    if cut is not None:
        patches = [Patch(measure, "cut_residues", lambda original, *given: cut(*given))]
    with planted(patches, Witness() if witness is None else witness):
        yield
