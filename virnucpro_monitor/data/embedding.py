"""Embed many sequences on a GPU: as large packs as fit, and honest about what went wrong."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from virnucpro_monitor.data.collators import Batch, VarlenCollator
from virnucpro_monitor.data.limits import MAX_RESIDUES, SPECIAL_TOKENS
from virnucpro_monitor.errors import DeviceError

# Peak memory of a pack beyond the weights, in units of one row [embed_dim] of the model's dtype for
# each token. Measured on an H200: 9 in float16. bfloat16 needs more: it keeps its residual stream
# and its projections to q, k and v in FP32.
_ROWS_PER_TOKEN = 16
_LARGEST_BUDGET = 65536  # larger packs use more memory and are no faster
_SMALLEST_BUDGET = MAX_RESIDUES + SPECIAL_TOKENS


@dataclass(frozen=True, slots=True)
class Overflow:
    """A sequence whose embedding is not finite, and the first layer where that was so.

    Attributes:
        layer: numbered as fair-esm numbers it; 0 is the embeddings.
    """

    sequence_id: str
    layer: int


@dataclass(frozen=True, slots=True)
class Embeddings:
    """What came of `embed_sequences`.

    Attributes:
        pooled: {id: [embed_dim] float64 on the CPU}, the mean over residues.
        token_budget: of the last packs.
        reduced_from: the budgets that did not fit into memory, in order; empty if all went well.
        overflows: sequences that are not finite.
    """

    pooled: dict[str, Tensor]
    token_budget: int
    reduced_from: tuple[int, ...]
    overflows: tuple[Overflow, ...]


def calculate_token_budget(
    embed_dim: int, dtype: torch.dtype, free_bytes: int, *, share: float = 0.8
) -> int:
    """Tokens of a pack that fit into `share` of the free GPU memory.

    Args:
        free_bytes: for instance `torch.cuda.mem_get_info(device)[0]`, after the model is loaded.

    Raises:
        DeviceError: not even one sequence of full length fits.
    """
    bytes_per_token = _ROWS_PER_TOKEN * embed_dim * dtype.itemsize
    budget = int(share * free_bytes / bytes_per_token)
    if budget < _SMALLEST_BUDGET:
        raise DeviceError(
            f"{free_bytes / 2**20:.0f} MiB of free memory hold a pack of {budget} tokens, and one "
            f"sequence can have {_SMALLEST_BUDGET}; free some memory or take a smaller model."
        )
    return min(budget, _LARGEST_BUDGET)


def embed_sequences(
    model: Any,
    batch_converter: Any,
    sequences: Sequence[tuple[str, str]],
    *,
    token_budget: int,
) -> Embeddings:
    """Embed sequences in packs; out of memory, halve the packs and go on.

    Args:
        model: an `ESM2WithFlashAttention`.
        sequences: (id, residues), ids distinct.

    Raises:
        DeviceError: a single sequence does not fit into memory.
        ValueError: see `VarlenCollator`.
    """
    pooled: dict[str, Tensor] = {}
    reduced_from: list[int] = []
    overflows: list[Overflow] = []
    pending = list(sequences)
    while pending:
        collator = VarlenCollator(batch_converter, token_budget)
        records = ({"id": name, "sequence": residues} for name, residues in pending)
        for batch in collator.stream(records, model.device):
            try:
                means = _embed(model, batch)
            except torch.OutOfMemoryError as error:
                if batch["num_sequences"] == 1:
                    raise DeviceError(
                        f"Sequence {batch['sequence_ids'][0]!r} of {batch['max_seqlen']} tokens "
                        "does not fit into the GPU's memory; free some or take a smaller model."
                    ) from error
                reduced_from.append(token_budget)
                token_budget = max(1, min(token_budget, batch["input_ids"].numel()) // 2)
                break
            for name, mean in zip(batch["sequence_ids"], means, strict=True):
                pooled[name] = mean
            if not bool(means.isfinite().all()):
                overflows += _find_overflows(model, batch, means)
        torch.cuda.empty_cache()
        pending = [pair for pair in pending if pair[0] not in pooled]
    ordered = {name: pooled[name] for name, _ in sequences}
    return Embeddings(ordered, token_budget, tuple(reduced_from), tuple(overflows))


def _embed(model: Any, batch: Batch) -> Tensor:
    """[n, embed_dim] float64 on the CPU: each sequence's mean without BOS and EOS."""
    layer = model.num_layers
    rows = model.forward_packed(
        batch["input_ids"],
        batch["cu_seqlens"],
        batch["max_seqlen"],
        repr_layers=[layer],
        check=False,
    )["representations"][layer]
    ends = batch["cu_seqlens"].long()
    lengths = ends.diff()
    special = torch.cat((ends[:-1], ends[1:] - 1))
    inner = rows.float().index_fill(0, special, 0.0)
    # Not index_add: on a GPU its order, and so its last bits, change from run to run.
    sums: Tensor = torch.segment_reduce(inner, "sum", lengths=lengths)
    means: Tensor = sums.double() / (lengths - SPECIAL_TOKENS)[:, None]
    return means.cpu()


def _find_overflows(model: Any, batch: Batch, means: Tensor) -> list[Overflow]:
    """Run each sequence that is not finite by itself, with all layers shown."""
    found = []
    bounds = batch["cu_seqlens"].tolist()
    for slot in (~means.isfinite().all(dim=1)).nonzero().flatten().tolist():
        tokens = batch["input_ids"][bounds[slot] : bounds[slot + 1]]
        alone = torch.tensor([0, tokens.numel()], dtype=torch.int32, device=tokens.device)
        layers = range(model.num_layers + 1)
        states = model.forward_packed(tokens, alone, tokens.numel(), repr_layers=layers)
        finite = (bool(states["representations"][layer].isfinite().all()) for layer in layers)
        first = next((layer for layer, ok in enumerate(finite) if not ok), model.num_layers)
        found.append(Overflow(batch["sequence_ids"][slot], first))
    return found
