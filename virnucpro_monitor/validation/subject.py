"""What the yardstick needs from a loaded model: two ways to embed, and the packs it makes."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

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

    `layer` is numbered as fair-esm numbers it: 0 the embeddings, `num_layers` the output of the
    final LayerNorm. Attributes are what the model really runs with.

    A subject that can give several layers in one pass may also have
    `embed_packed_layers(batch, layers)` and `embed_unpacked_layers(tokens, layers)`, which give
    {layer: rows} and make traces many times faster. One whose packs can be made smaller has a
    `token_budget` that can be set; out of memory halves it.
    """

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

    def embed_unpacked(self, tokens: torch.Tensor, layer: int) -> torch.Tensor:
        """Embed one sequence alone: tokens [T] int64 -> [T, D]."""
        ...

    def pack(self, sequences: Sequence[tuple[str, str]]) -> Iterator[PackedBatch]:
        """Pack (id, residues) pairs with the target's own collator, until nothing is buffered."""
        ...

    def embed_packed(self, batch: PackedBatch, layer: int) -> torch.Tensor:
        """Embed one pack: [tokens, D], rows in the order of `batch.input_ids`."""
        ...
