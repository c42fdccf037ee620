"""Recognised faults: what a layer that departs from the right one looks like.

Each is a short name, which is stored, and the words for a person, told at the layer where a side
departs first.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch.nn import functional

from virnucpro_monitor.validation import measures
from virnucpro_monitor.validation.embedding_faults import name_embedding_fault
from virnucpro_monitor.validation.hypotheses import EXPLAINS_FACTOR, explain
from virnucpro_monitor.validation.layer_faults import Surroundings
from virnucpro_monitor.validation.one_layer import Hypothesis
from virnucpro_monitor.validation.signature import Signature
from virnucpro_monitor.validation.subject import Layers
from virnucpro_monitor.validation.tokens import alphabet

# Single rows are wrong where at most this share is, each by this much and this many times the
# median row's error: a fault of a layer's arithmetic moves all rows alike.
_FEW_ROWS = 0.02
_ROW_IS_WRONG = 0.05
_ROW_STANDS_OUT = 20.0

LAYER_OFF_BY_ONE = Signature("layer off by one", "a hidden layer off by one")
FINAL_NORM_MISSING = Signature("final norm missing", "a missing final LayerNorm")
NOT_REPEATABLE = Signature(
    "not repeatable",
    "the same pack twice gives other values, as dropout, a stale buffer or a race does",
)
NOT_FINITE = Signature("not finite", "NaN or infinity")
ROWS_REPLACED = Signature("rows replaced", "rows overwritten after they were computed")
UNWRITTEN = Signature(
    "unwritten", "rows are left unwritten, and hold what lay in memory before, often the right rows"
)
INPUT_CHANGED = Signature(
    "input changed", "a pass writes into its input, and a caller may use that again"
)
ROWS_OF_OTHERS = Signature(
    "rows of others",
    "rows of other sequences of the pack, as an order that is restored wrongly gives",
)
DROPOUT_ON = Signature(
    "dropout", "dropout that is left on: each pass gives other values, around the right ones"
)
OUTSIDE = Signature("outside", "the fault lies outside the model: ids, boundaries or pooling")


def describe(
    departs: int,
    side: str,
    seen: Layers,
    exact: Layers,
    model: Any,
    tokens: torch.Tensor,
    around: Surroundings,
    last: int,
) -> tuple[str, Signature | None, str | None]:
    """The finding in words, its signature, and the part of the layer where it departs.

    Args:
        departs: the first layer that is wrong.
        side: "packed", "unpacked" or "both sides": what is wrong.
        seen, exact: what that side gave at that layer, and what is right there and one before.
        model: fair-esm in FP32; without it only what its rows tell is looked into.
        tokens: [T] int64 of the sequence.
        last: the last layer, after the final LayerNorm.
    """
    who = "" if side == "packed" else f"{side} "
    verb = "depart" if side == "both sides" else "departs"
    if not bool(torch.isfinite(seen[departs]).all()):
        where = "after the last layer" if departs == last else f"from {_layer_name(departs)} on"
        return f"{who}not finite {where}", NOT_FINITE, None
    if departs == 0:
        table = None if model is None else model.embed_tokens.weight.detach().cpu()
        signature = name_embedding_fault(
            seen[0], exact[0], tokens, pack_share=_pack_share(tokens, around), table=table
        )
        text = f"{who}{verb} at the embedding"
        factor = measures.scale_factor(seen[0], exact[0])
        if factor is not None and _only_scaled(seen[0], exact[0], factor):
            text += f": factor {factor:.3f}"
        return _looks_like(text, signature), signature, "embedding"
    where = "after the last layer" if departs == last else f"in layer {departs}"
    text, signature, part = f"{who}{verb} {where}", None, None
    after = None
    few = describe_few_rows(seen[departs], exact[departs])
    replaced = _looks_like(f"{text}: {few}", ROWS_REPLACED), ROWS_REPLACED, "output"
    # Within a layer one residue may only be the one that a fault of all of them moves most.
    if few and (departs == last or model is None):
        return replaced
    if departs == last:
        signature = _name_last_layer(seen, exact, model, last)
        if signature is not None:
            return _looks_like(text, signature), signature, "output"
        # What the last layer gives is seen behind the final LayerNorm alone.
        text = f"{who}{verb} in the last layer or after it"
        after = None if model is None else model.emb_layer_norm_after
    elif _is_close(seen[departs], exact[departs - 1], exact[departs]):
        return _looks_like(text, LAYER_OFF_BY_ONE), LAYER_OFF_BY_ONE, "output"
    if model is not None:
        found = explain(
            model,
            tokens,
            seen[departs],
            _as_seen(around, tokens, side),
            departs,
            exact[departs - 1],
            after,
        )
        if found is not None:
            signature = _signature_of(found.hypothesis, side)
            part = found.hypothesis.part or None
            text = f"{who}{verb} in layer {departs}"
            text += f" {part}" if part else ""
        elif few:
            return replaced
    return _looks_like(text, signature), signature, part


def _signature_of(hypothesis: Hypothesis, side: str) -> Signature:
    """A side without packs has no boundaries that could be wrong, but a token may be left out."""
    if side != "packed" and (hypothesis.skip_first or hypothesis.skip_last):
        which = "first" if hypothesis.skip_first else "last"
        return Signature("token left out", f"its {which} token left out of attention")
    return Signature(hypothesis.name, hypothesis.text)


def _as_seen(around: Surroundings, tokens: torch.Tensor, side: str) -> Surroundings:
    return Surroundings.alone(tokens) if side == "unpacked" else around


def _pack_share(tokens: torch.Tensor, around: Surroundings) -> float:
    """Of `<mask>` among all tokens of the pack."""
    pack = torch.cat([around.before, tokens.cpu(), around.after])
    return float((pack == alphabet().mask_idx).double().mean())


def _name_last_layer(seen: Layers, exact: Layers, model: Any, last: int) -> Signature | None:
    """The output may be the layer before it, or that before the final LayerNorm: the closer one."""
    candidates = [(exact[last - 1], LAYER_OFF_BY_ONE)]
    for dtype in (torch.bfloat16, torch.float16):
        name = str(dtype).removeprefix("torch.")
        rounded = Signature(f"output {name}", f"an output rounded to {name}")
        candidates.append((exact[last].to(dtype).to(exact[last]), rounded))
    factor = measures.scale_factor(seen[last], exact[last])
    if factor is not None:
        scaled = Signature("output scaled", f"an output scaled by {factor:.4g}")
        candidates.append((exact[last] * factor, scaled))
    if model is not None:
        device = next(model.parameters()).device
        # fair-esm's layers are [T, B, D].
        stream = exact[last - 1].to(device)[:, None]
        before_norm = model.layers[last - 1](stream)[0][:, 0].cpu()
        candidates.append((before_norm, FINAL_NORM_MISSING))
        candidates += _other_final_norms(before_norm, model.emb_layer_norm_after)
    errors = [(measures.relative_l2(seen[last], rows), named) for rows, named in candidates]
    known = [(error, named) for error, named in errors if error is not None]
    right = measures.relative_l2(seen[last], exact[last])
    if not known or right is None:
        return None
    error, named = min(known, key=lambda pair: pair[0])
    return named if error * EXPLAINS_FACTOR < right else None


def _other_final_norms(before: torch.Tensor, norm: Any) -> Iterator[tuple[torch.Tensor, Signature]]:
    """What the final LayerNorm gives with another epsilon, or without its bias or weight."""
    weight, bias = norm.weight.detach().cpu(), norm.bias.detach().cpu()
    shape = before.shape[-1:]
    for eps in (1e-2, 1e-3, 1e-6, 1e-8, 1e-12):
        rows = functional.layer_norm(before, shape, weight, bias, eps)
        text = f"a final LayerNorm with epsilon {eps:g} instead of 1e-5"
        yield rows, Signature("final norm epsilon", text)
    for some, what in (((weight, None), "bias"), ((None, bias), "weight"), ((None, None), "both")):
        missing = "weight and bias" if what == "both" else what
        text = f"a final LayerNorm without its {missing}"
        rows = functional.layer_norm(before, shape, some[0], some[1], norm.eps)
        yield rows, Signature("final norm parameters", text)


def describe_few_rows(seen: torch.Tensor, exact: torch.Tensor) -> str | None:
    """Say which residues are wrong where nearly all others are right; else None.

    Args:
        seen, exact: [T, D] of one layer, BOS and EOS included.
    """
    errors = measures.residue_relative_l2(seen[1:-1], exact[1:-1])
    count = len(errors)
    stands_out = max(_ROW_IS_WRONG, _ROW_STANDS_OUT * float(errors.median())) if count else 0.0
    wrong = (errors > stands_out).nonzero().flatten().tolist()
    if not 0 < len(wrong) <= max(1, int(_FEW_ROWS * count)) or count < 4:
        return None
    worst = max(wrong, key=lambda row: float(errors[row]))
    verb = "is" if len(wrong) == 1 else "are"
    text = f"only {len(wrong)} of {count} residues {verb} wrong (residue {worst + 1}"
    row = seen[worst + 1].double()
    distances = (exact[1:-1].double() - row).norm(dim=-1) / row.norm()
    donor = int(distances.argmin())
    if float(distances[donor]) * EXPLAINS_FACTOR < float(errors[worst]):
        text += f", which holds the row of residue {donor + 1}"
    return f"{text})"


def _is_close(seen: torch.Tensor, candidate: torch.Tensor, right: torch.Tensor) -> bool:
    """Whether what was seen is clearly closer to a candidate than to the right layer."""
    error, plain = measures.relative_l2(seen, candidate), measures.relative_l2(seen, right)
    return error is not None and plain is not None and error * EXPLAINS_FACTOR < plain


def _looks_like(text: str, signature: Signature | None) -> str:
    if signature is None:
        return text
    return f"{text}{',' if ':' in text else ':'} looks like {signature.text}"


def _only_scaled(a: torch.Tensor, b: torch.Tensor, factor: float) -> bool:
    error = measures.relative_l2(a, factor * b.double())
    return error is not None and error < 0.02


def _layer_name(layer: int) -> str:
    return "the embedding" if layer == 0 else f"layer {layer}"
