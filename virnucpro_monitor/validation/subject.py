"""What the yardstick needs from a loaded model: two ways to embed, and the packs it makes."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch

Layers = Mapping[int, torch.Tensor]
"""Hidden states by layer, each [tokens, D]."""


@dataclass(frozen=True, slots=True)
class PackedBatch:
    """One pack, as the target's own collator made it.

    Attributes:
        input_ids: [tokens] int64.
        cu_seqlens: [n + 1] int32, from 0 to `tokens`.
        max_seqlen: the longest sequence, in tokens (BOS and EOS included).
        sequence_ids: n ids, in the order of `cu_seqlens`.
    """

    input_ids: torch.Tensor
    cu_seqlens: torch.Tensor
    max_seqlen: int
    sequence_ids: tuple[str, ...]

    def with_tokens(self, input_ids: torch.Tensor) -> "PackedBatch":
        """The same pack with other tokens of the same lengths."""
        return replace(self, input_ids=input_ids)


class Subject(Protocol):
    """A model under test, made by an adapter.

    Layers are numbered as fair-esm numbers them: 0 the embeddings, `num_layers` the output of the
    final LayerNorm. Attributes are what the model really runs with.

    Attributes:
        token_budget: tokens in one pack, BOS and EOS included. It can be set: out of memory halves
            it, and probes ask for larger packs.
    """

    token_budget: int

    @property
    def model_name(self) -> str: ...

    @property
    def num_layers(self) -> int: ...

    @property
    def dtype(self) -> torch.dtype: ...

    @property
    def device(self) -> torch.device: ...

    @property
    def backend(self) -> str: ...

    def tensors(self) -> Mapping[str, torch.Tensor]:
        """The model's parameters and buffers by name, themselves and not copies."""
        ...

    def embed_unpacked_layers(self, tokens: torch.Tensor, layers: Sequence[int]) -> Layers:
        """Embed one sequence alone: tokens [T] int64 -> {layer: [T, D]}, in one pass."""
        ...

    def pack(
        self, sequences: Sequence[tuple[str, str]], *, per_call: int | None = None
    ) -> Iterator[PackedBatch]:
        """Pack (id, residues) pairs with one of the target's own collators, to the last of them.

        Args:
            per_call: most sequences that the collator gets at one time; None leaves it open.
        """
        ...

    def embed_packed_layers(self, batch: PackedBatch, layers: Sequence[int]) -> Layers:
        """Embed one pack: {layer: [tokens, D]}, rows in the order of `batch.input_ids`."""
        ...


class WrappedSubject:
    """A subject as it is, for a class that changes some of what it does."""

    def __init__(self, subject: Subject) -> None:
        self._subject = subject

    def __getattr__(self, name: str) -> Any:
        return getattr(self._subject, name)

    @property
    def token_budget(self) -> int:
        return self._subject.token_budget

    @token_budget.setter
    def token_budget(self, budget: int) -> None:
        self._subject.token_budget = budget


def embed_packed(subject: Subject, batch: PackedBatch, layer: int | None = None) -> torch.Tensor:
    """One layer of a pack, the last if not given: [tokens, D]."""
    wanted = subject.num_layers if layer is None else layer
    return subject.embed_packed_layers(batch, [wanted])[wanted]


def foresee_packs(
    subject: Subject,
    packs: Sequence[PackedBatch],
    layers: Sequence[int],
    fill: str,
    *,
    at_once: bool = False,
) -> None:
    """Say which packs are embedded next, where nothing else is asked of the subject in between.

    A subject whose passes run elsewhere has a method of its own for it: those need not wait for
    what is done with the rows of the one before.

    Args:
        fill: of memory that nobody wrote, "nan", "zeros", or "" as it comes.
        at_once: begin now, since other work comes before the first of them is wanted.
    """
    foresee = getattr(subject, "foresee_packs", None)
    if foresee is not None and are_known(subject):
        foresee(packs, layers, fill, at_once=at_once)


def are_known(subject: Subject) -> bool:
    """Whether rows of sequences alone come from an earlier commit, so that they are not asked."""
    return bool(getattr(subject, "reuses", False))


def embed_slot_layers(
    subject: Subject, batch: PackedBatch, span: tuple[int, int], layers: Sequence[int]
) -> Layers:
    """Layers of one sequence of a pack, {layer: [T, D]}.

    A subject whose rows come from afar has a method of its own for it, `embed_packed_span`.

    Args:
        span: its first row in the pack, and the one behind its last.
    """
    embed = getattr(subject, "embed_packed_span", None)
    if embed is not None:
        found: Layers = embed(batch, span, layers)
        return found
    found = subject.embed_packed_layers(batch, layers)
    # Cloned, since a slice would keep the whole pack's rows.
    return {layer: rows[slice(*span)].clone() for layer, rows in found.items()}


def embed_unpacked(
    subject: Subject, tokens: torch.Tensor, layer: int | None = None
) -> torch.Tensor:
    """One layer of a sequence alone, the last if not given: tokens [T] int64 -> [T, D]."""
    wanted = subject.num_layers if layer is None else layer
    return subject.embed_unpacked_layers(tokens, [wanted])[wanted]


def dtype_name(dtype: torch.dtype) -> str:
    """ "float32", "float16" or "bfloat16"."""
    return str(dtype).removeprefix("torch.")
