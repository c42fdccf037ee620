"""The promise: packed inference gives the embeddings that unpacked inference gives."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from virnucpro_monitor.data.collators import VarlenCollator
from virnucpro_monitor.data.limits import MAX_RESIDUES
from virnucpro_monitor.data.pooling import cosine_similarity, mean_pool


def validate_packed_equivalence(
    model: Any,
    batch_converter: Any,
    sequences: Sequence[tuple[str, str]],
    device: torch.device | str,
    strict_threshold: float = 0.999,
    lenient_threshold: float = 0.995,
    lenient_fraction: float = 0.01,
) -> tuple[bool, dict[str, Any]]:
    """Compare each sequence's pooled embedding, packed with all others against alone.

    Passed means: no sequence below `lenient_threshold` or not finite, and at most
    `floor(lenient_fraction * n)` sequences that are not above `strict_threshold`.

    Args:
        model: has `num_layers`, `model(tokens, repr_layers=...)` and `forward_packed`. It comes
            back as it was given.
        batch_converter: fair-esm's.
        sequences: (id, residues); of longer ones both sides see the first 1022 residues.
        device: the model's.
        strict_threshold: cosine similarity that all but a few must exceed.
        lenient_threshold: cosine similarity that none may fall short of.
        lenient_fraction: share of sequences that may lie between the two.

    Returns:
        Whether it passed, and details:
            per_sequence: {id: similarity}; NaN where an embedding is not finite
            strict_pass_rate: share of sequences above `strict_threshold`
            min_similarity, max_similarity: NaN if any similarity is
            failed_sequences: ids below `lenient_threshold` or not finite
            lenient_sequences: the other ids that are not above `strict_threshold`
            allowed_lenient: how many of these may be
            not_finite, truncated: ids
            num_sequences, num_packs: counts

    Raises:
        ValueError: nothing to validate, two sequences with one id, an empty sequence, a character
            that the alphabet lacks, or thresholds out of order.
    """
    _check(sequences, strict_threshold, lenient_threshold, lenient_fraction)
    collator = VarlenCollator(batch_converter, pin_memory=torch.device(device).type == "cuda")
    layer = int(model.num_layers)
    # Tokenised before any model runs, so that bad input costs nothing.
    packs = list(
        collator.stream({"id": name, "sequence": residues} for name, residues in sequences)
    )
    with _as_evaluated(model), torch.no_grad():
        packed = _embed_packed(model, packs, layer, device)
        unpacked = {
            name: _embed_alone(model, batch_converter, name, residues, layer, device)
            for name, residues in sequences
        }
    similarities = {name: cosine_similarity(packed[name], unpacked[name]) for name, _ in sequences}
    not_finite = [name for name, value in similarities.items() if not math.isfinite(value)]
    failed = [name for name, value in similarities.items() if not value >= lenient_threshold]
    strict = [name for name, value in similarities.items() if value > strict_threshold]
    lenient = sorted(set(similarities) - set(failed) - set(strict), key=list(similarities).index)
    # The small addition is for products such as 0.29 * 100, a rounding below the whole number.
    allowed = math.floor(lenient_fraction * len(similarities) + 1e-9)
    passed = not failed and len(lenient) <= allowed
    details = {
        "per_sequence": similarities,
        "strict_pass_rate": len(strict) / len(similarities),
        "min_similarity": math.nan if not_finite else min(similarities.values()),
        "max_similarity": math.nan if not_finite else max(similarities.values()),
        "failed_sequences": failed,
        "lenient_sequences": lenient,
        "allowed_lenient": allowed,
        "not_finite": not_finite,
        "truncated": [name for pack in packs for name in pack["truncated_ids"]],
        "num_sequences": len(similarities),
        "num_packs": len(packs),
    }
    return passed, details


def _check(
    sequences: Sequence[tuple[str, str]], strict: float, lenient: float, fraction: float
) -> None:
    if not sequences:
        raise ValueError("there is nothing to validate: no sequences were given")
    seen: set[str] = set()
    for name, _ in sequences:
        if name in seen:
            raise ValueError(f"two sequences have the id {name!r}")
        seen.add(name)
    if not -1 <= lenient <= strict <= 1:
        raise ValueError(f"thresholds out of order: lenient {lenient}, strict {strict}")
    if not 0 <= fraction <= 1:
        raise ValueError(f"lenient_fraction is {fraction}; it is from 0 to 1")


def _embed_alone(
    model: Any,
    batch_converter: Any,
    name: str,
    residues: str,
    layer: int,
    device: torch.device | str,
) -> Tensor:
    """One sequence, pooled: [D] float64 on the CPU."""
    _, _, tokens = batch_converter([(name, residues[:MAX_RESIDUES])])
    output = model(tokens.to(device), repr_layers=[layer])["representations"][layer]
    return _pool(output[0])


def _embed_packed(
    model: Any, packs: Sequence[dict[str, Any]], layer: int, device: torch.device | str
) -> dict[str, Tensor]:
    """All sequences of all packs, pooled: {id: [D] float64 on the CPU}."""
    pooled = {}
    for pack in packs:
        output = model.forward_packed(
            pack["input_ids"].to(device),
            pack["cu_seqlens"].to(device),
            pack["max_seqlen"],
            repr_layers=[layer],
        )["representations"][layer]
        bounds = pack["cu_seqlens"].tolist()
        for slot, name in enumerate(pack["sequence_ids"]):
            pooled[name] = _pool(output[bounds[slot] : bounds[slot + 1]])
    return pooled


def _pool(embedding: Tensor) -> Tensor:
    """[tokens, D] with BOS and EOS -> [D]."""
    return mean_pool(embedding[1:-1].cpu())


@contextmanager
def _as_evaluated(model: Any) -> Iterator[None]:
    """Evaluation mode, and afterwards each module's own mode again."""
    modules = list(model.modules()) if isinstance(model, nn.Module) else []
    modes = [module.training for module in modules]
    for module in modules:
        module.training = False
    try:
        yield
    finally:
        for module, mode in zip(modules, modes, strict=True):
            module.training = mode
