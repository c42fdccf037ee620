"""Layer trace: at which layer the packed path departs, and what that looks like.

For the worst sequences of a failed run, the error of every layer is measured on the residual
stream, packed against unpacked and both against the oracle model, and the first departure is named.
"""

import itertools
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from virnucpro_monitor.errors import MonitorError
from virnucpro_monitor.models.weights import load_checkpoint
from virnucpro_monitor.records import Json, SequenceResult, SequenceStatus
from virnucpro_monitor.validation import measures
from virnucpro_monitor.validation.hypotheses import Surroundings
from virnucpro_monitor.validation.oracle import Oracle, full_float32
from virnucpro_monitor.validation.perturb import bounds_of, reorder
from virnucpro_monitor.validation.signatures import NOT_REPEATABLE, OUTSIDE, describe
from virnucpro_monitor.validation.subject import (
    Layers,
    PackedBatch,
    Subject,
    embed_packed,
    embed_unpacked,
)

_TRACED_SEQUENCES = 2
# A layer departs where its error is beyond this many roundings of the dtype …
_DEPARTS_EPS = 8.0
# … and this many times what the unpacked side has at that layer.
_DEPARTS_FACTOR = 5.0
# Layers of a pack that are held at one time: 37 layers of 3B width would take gigabytes.
_PART_BYTES = 128 * 1024**2


def trace(
    subject: Subject,
    sequences: Sequence[SequenceResult],
    batches: Sequence[PackedBatch],
    oracle: Oracle | None,
) -> dict[str, Json]:
    """Trace the worst sequences: {"finding", "signature", "layer", "part", "sequences"}.

    A target that does not give its hidden layers gets {"not_traced": why}. The document is empty
    where no sequence has a place in a pack.
    """
    chosen = worst_sequences(sequences)
    if not chosen:
        return {}
    first, again = (embed_packed(subject, batches[chosen[0].pack or 0]) for _ in range(2))
    if not torch.equal(first.nan_to_num(), again.nan_to_num()):
        return {"finding": NOT_REPEATABLE.text, "signature": NOT_REPEATABLE.name, "sequences": []}
    model = _load_oracle_model(oracle, subject.device)
    traced: list[dict[str, Json]] = []
    try:
        for result in chosen:
            with full_float32(), torch.inference_mode():
                batch = batches[result.pack or 0]
                traced.append(_trace_one(subject, result, batch, model, first.shape[-1]))
            if traced[-1]["signature"]:
                break
    except MonitorError:
        raise
    except Exception as error:  # the target's own code, asked for layers it need not have
        return {"not_traced": f"The target does not give its hidden layers ({error!r})."}
    told = next((t for t in traced if t["signature"]), traced[0])
    return {
        "finding": told["finding"],
        "signature": told["signature"],
        "layer": told["departs_at"],
        "part": told["part"],
        "reference": "oracle" if model is not None else "unpacked",
        "sequences": traced,
    }


def worst_sequences(sequences: Sequence[SequenceResult]) -> list[SequenceResult]:
    """Those that differ most, one whose value is not finite first; ties go to the shorter.

    Of a doubled one it is the copy that differs most.
    """
    placed = [s for s in sequences if s.pack is not None and s.status is not SequenceStatus.LOST]

    def badness(s: SequenceResult) -> tuple[float, int]:
        error = s.packed_relative_l2 if s.packed_relative_l2 is not None else s.relative_l2
        return (float("inf") if error is None else error, -s.length)

    return sorted(placed, key=badness, reverse=True)[:_TRACED_SEQUENCES]


def first_departure(
    packed: Sequence[float | None], unpacked: Sequence[float | None], eps: float
) -> int | None:
    """Index of the first layer whose packed error is far beyond rounding and the other side's."""
    for layer, error in enumerate(packed):
        if error is None:
            return layer
        other = unpacked[layer] if layer < len(unpacked) else None
        if error > max(_DEPARTS_EPS * eps, _DEPARTS_FACTOR * (other or 0.0)):
            return layer
    return None


def _trace_one(
    subject: Subject,
    result: SequenceResult,
    batch: PackedBatch,
    model: Any,
    width: int,
) -> dict[str, Json]:
    layers = list(range(subject.num_layers + 1))
    batch, slot = _shorten(subject, batch, result)
    around = _surroundings(batch, slot)
    packed_errors: list[float | None] = []
    unpacked_errors: list[float | None] = []
    between: list[float | None] = []
    for some in _in_parts(layers, batch.input_ids.numel() * width * subject.dtype.itemsize):
        packed, unpacked, exact = _embed_three_ways(subject, batch, slot, model, some)
        packed_errors += _errors(packed, exact, some)
        between += _errors(packed, unpacked, some)
        if model is not None:
            unpacked_errors += _errors(unpacked, exact, some)
    eps = torch.finfo(subject.dtype).eps
    departs = first_departure(packed_errors, unpacked_errors, eps)
    side = "packed"
    if departs is None and model is not None:
        departs = first_departure(unpacked_errors, packed_errors, eps)
        side = "unpacked"
    finding, signature, part = None, None, None
    if departs is not None:
        some = [layer for layer in (departs - 1, departs) if layer >= 0]
        packed, unpacked, exact = (
            {layer: rows.cpu() for layer, rows in side_rows.items()}
            for side_rows in _embed_three_ways(subject, batch, slot, model, some)
        )
        seen = packed if side == "packed" else unpacked
        tokens = _tokens_of(batch, slot)
        finding, signature, part = describe(
            departs, side, seen, exact, model, tokens, around, layers[-1]
        )
    elif _lies_outside(result, packed_errors[-1], unpacked_errors):
        finding, signature, part = f"every layer is right, so {OUTSIDE.text}", OUTSIDE, None
    return {
        "sequence_id": result.sequence_id,
        "departs_at": departs,
        "side": side,
        "part": part,
        "finding": finding,
        "signature": signature.name if signature else None,
        "packed": packed_errors,
        "unpacked": unpacked_errors,
        "packed_unpacked": between,
    }


def _in_parts(layers: Sequence[int], layer_bytes: int) -> Iterator[Sequence[int]]:
    """The layers in parts whose rows of one pack take about `_PART_BYTES`."""
    count = max(1, _PART_BYTES // max(1, layer_bytes))
    for first in range(0, len(layers), count):
        yield layers[first : first + count]


def _tokens_of(batch: PackedBatch, slot: int) -> torch.Tensor:
    bounds = bounds_of(batch)
    return batch.input_ids[bounds[slot] : bounds[slot + 1]].cpu()


def _embed_three_ways(
    subject: Subject, batch: PackedBatch, slot: int, model: Any, layers: Sequence[int]
) -> tuple[Layers, Layers, Layers]:
    """One sequence packed, unpacked and by the oracle model (None: unpacked again)."""
    bounds, tokens = bounds_of(batch), _tokens_of(batch, slot).to(subject.device)
    # Cloned, since a slice would keep the whole pack's rows.
    packed = {
        layer: rows[bounds[slot] : bounds[slot + 1]].clone()
        for layer, rows in subject.embed_packed_layers(batch, layers).items()
    }
    unpacked = subject.embed_unpacked_layers(tokens, layers)
    if model is None:
        return packed, unpacked, unpacked
    exact = _model_layers(model, tokens, layers)
    return packed, unpacked, {layer: rows.to(subject.device) for layer, rows in exact.items()}


def _lies_outside(
    result: SequenceResult, packed: float | None, unpacked: Sequence[float | None]
) -> bool:
    """Whether the layers are right although the sequence's pooled embedding is not."""
    wrong = result.packed_relative_l2 if unpacked else result.relative_l2
    if packed is None or wrong is None:
        return False
    return wrong > 10.0 * packed


def _shorten(
    subject: Subject, batch: PackedBatch, result: SequenceResult
) -> tuple[PackedBatch, int]:
    """A pack of the sequence, its neighbours, the first and the longest, if it is as wrong there.

    A trace keeps every layer of a pack, so a short one saves time and memory.
    """
    slot = result.slot or 0
    bounds = bounds_of(batch)
    lengths = [end - start for start, end in itertools.pairwise(bounds)]
    longest = lengths.index(max(lengths))
    kept = sorted({0, slot - 1, slot, slot + 1, longest} & set(range(len(lengths))))
    if len(kept) == len(lengths):
        return batch, slot
    short = reorder(batch, kept)
    new_slot = kept.index(slot)
    start = int(short.cu_seqlens[new_slot])
    here = slice(bounds[slot], bounds[slot + 1])
    before = embed_packed(subject, batch)[here].double()
    after = embed_packed(subject, short)[start : start + lengths[slot]]
    tokens = batch.input_ids[here].to(subject.device)
    alone = embed_unpacked(subject, tokens).to(before)
    moved = (after.double() - before).norm()
    # False, too, where a value is not finite.
    if bool(moved <= 0.5 * (before - alone).norm()):
        return short, new_slot
    return batch, slot


def _surroundings(batch: PackedBatch, slot: int) -> Surroundings:
    tokens = batch.input_ids.cpu()
    bounds = bounds_of(batch)
    start, end = bounds[slot], bounds[slot + 1]
    nothing = tokens[:0]
    return Surroundings(
        before=tokens[:start],
        after=tokens[end:],
        previous=tokens[bounds[slot - 1] : start] if slot > 0 else nothing,
        following=tokens[end : bounds[slot + 2]] if slot + 2 < len(bounds) else nothing,
        longest=max(b - a for a, b in itertools.pairwise(bounds)),
    )


def _errors(rows: Layers, exact: Layers, layers: Sequence[int]) -> list[float | None]:
    """Relative L2 over the residues of each layer."""
    return [measures.relative_l2(rows[layer][1:-1], exact[layer][1:-1]) for layer in layers]


def _model_layers(
    model: Any, tokens: torch.Tensor, layers: Sequence[int]
) -> dict[int, torch.Tensor]:
    device = next(model.parameters()).device
    output = model(tokens.to(device)[None], repr_layers=list(layers))
    return {layer: output["representations"][layer][0] for layer in layers}


def _load_oracle_model(oracle: Oracle | None, device: torch.device) -> Any:
    """fair-esm in FP32 from the oracle's own checkpoint; None where that is gone."""
    if oracle is None or not oracle.weights_path.is_file():
        return None
    return _loaded(oracle.model_name, oracle.weights_path, str(device))


@lru_cache(maxsize=1)
def _loaded(model_name: str, path: Path, device: str) -> Any:
    """Kept for the next trace: loading takes longer than tracing."""
    model = load_checkpoint(model_name, path)[0]
    try:
        return model.to(device)
    except torch.OutOfMemoryError:
        return model.cpu()
