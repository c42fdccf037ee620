"""Known faults of a layer, tried on what a path really gave.

`explain` runs all that apply to a sequence and its neighbours, and names the one that reproduces
the layer; those of single heads or matrices, of which there are many, only where no other does.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import torch

from virnucpro_monitor.validation import measures
from virnucpro_monitor.validation.layer_faults import (
    Surroundings,
    bias_hypotheses,
    head_hypotheses,
    hypotheses,
    rarer_hypotheses,
    weight_hypotheses,
    with_zero_keys,
    without_heads,
)
from virnucpro_monitor.validation.one_layer import Hypothesis, Shared, run_layer

# A hypothesis explains the packed layer where it is this many times closer than the right layer.
EXPLAINS_FACTOR = 4.0
# Rows of one layer depend on each other in attention alone: some of them tell as much as all.
_MOST_ROWS = 96
# Of two that explain about equally well, the one that speaks for more rows.
_ABOUT_EQUAL = 1.5
_MOST_HEADS_OUT = 4
_BASE = 10_000.0  # of the rotary frequencies
# Factors that are tried first, and how often the best one's surroundings are then narrowed.
_FACTORS = (-2.0, -1.0, 0.0, 0.25, 0.5, 0.7, 0.9, 1.1, 1.4, 2.0, 4.0)
_NARROWINGS = 24
_NUDGE = 1.1  # shows in which direction a factor moves the layer
_UNRELATED = 0.1  # cosine to that direction, of what no such factor brings about
_GOLDEN = 0.618


@dataclass(frozen=True, slots=True)
class Explanation:
    """The best hypothesis: its error and the right layer's, both relative L2 over residues."""

    hypothesis: Hypothesis
    error: float
    error_of_right_layer: float


class _Seen:
    """A layer as a path gave it, against which hypotheses are held."""

    def __init__(
        self,
        model: Any,
        tokens: torch.Tensor,
        rows: torch.Tensor,
        number: int,
        before: torch.Tensor | None,
        after: Callable[[torch.Tensor], torch.Tensor] | None,
    ) -> None:
        device = next(model.parameters()).device
        self._model, self._tokens, self._number = model, tokens, number
        self._before = None if before is None else before.to(device)
        self._after = after or (lambda rows: rows)
        self._rows = rows.double().to(device)
        count = len(tokens)
        # The outer ones, where boundaries show, and others evenly spread.
        spread = torch.linspace(0, count - 1, min(count, _MOST_ROWS)).round().long()
        outer = torch.tensor([0, 1, 2, count - 3, count - 2, count - 1]).clamp(0, count - 1)
        self._shared: Shared = {}
        self._right: torch.Tensor | None = None
        self._wanted = torch.unique(torch.cat([spread, outer]))

    def error(self, hypothesis: Hypothesis, *, whole: bool = False) -> float | None:
        """Relative L2 over the residues that the hypothesis keeps; `whole`: BOS and EOS too."""
        return measures.relative_l2(*self._both(hypothesis, whole=whole))

    def turns_towards(self, hypothesis: Hypothesis) -> float:
        """Cosine between what a hypothesis changes of the right layer and what is seen to be."""
        if self._right is None:
            self._right = self._both(Hypothesis(name="right", text=""))[1].double()
        right = self._right
        seen, rows = self._both(hypothesis)
        change, wanted = (rows.double() - right).flatten(), (seen - right).flatten()
        return float(change @ wanted / (change.norm() * wanted.norm()).clamp(min=1e-300))

    def _both(
        self, hypothesis: Hypothesis, *, whole: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Rows as seen and under a hypothesis, each [n, D]."""
        rows, at = run_layer(
            self._model,
            self._tokens,
            hypothesis,
            self._number,
            self._before,
            self._wanted,
            self._shared,
        )
        kept = (at >= (0 if whole else 1)) & (at < len(self._tokens) - (0 if whole else 1))
        return self._rows[at[kept]], self._after(rows[kept])


def explain(
    model: Any,
    tokens: torch.Tensor,
    packed: torch.Tensor,
    surroundings: Surroundings,
    number: int = 1,
    before: torch.Tensor | None = None,
    after: Callable[[torch.Tensor], torch.Tensor] | None = None,
) -> Explanation | None:
    """Find the hypothesis that reproduces the packed layer.

    Args:
        model: fair-esm's ESM2 in FP32.
        tokens: [T] int64 of the sequence alone.
        packed: [T, D], what the packed path gave after layer `number`.
        before: [T, D], that layer's right input; not needed for the first.
        after: what comes between the layer and what was seen, [n, D] -> [n, D]: a final LayerNorm.

    Returns:
        The best one, or None where none is at least `EXPLAINS_FACTOR` times closer than right.
    """
    seen = _Seen(model, tokens, packed, number, before if number > 1 else None, after)
    right = seen.error(Hypothesis(name="right", text=""))
    if right is None:
        return None
    heads = int(model.layers[0].self_attn.num_heads)
    around = surroundings if number == 1 else Surroundings.alone(tokens)
    largest = float(packed.abs().max())
    clamped = Hypothesis(
        name="stream clamped",
        text=f"a residual stream held within ±{largest:g}",
        part="",
        clamp=largest,
    )
    usual = [*([] if after else [clamped]), *hypotheses(len(tokens), around)]
    # Behind a final LayerNorm most of what is seen came after the layer: only the usual is tried.
    weights = () if after else weight_hypotheses()
    found = _first_that_explains(seen, (usual, weights, head_hypotheses(heads)), right)
    if found is not None or after is not None:
        return found
    found = _heads_out(seen, heads, right)
    if found is None:
        rarer = rarer_hypotheses(len(tokens)), bias_hypotheses()
        found = _first_that_explains(seen, rarer, right) or _factor(seen, heads, right)
    return found


def _first_that_explains(
    seen: _Seen, families: Iterable[Iterable[Hypothesis]], right: float
) -> Explanation | None:
    """The best hypothesis of the first family that has one."""
    for tried in families:
        best = _best(seen, tried, right)
        if best is not None and best.error * EXPLAINS_FACTOR < right:
            return best
    return None


def _best(seen: _Seen, tried: Iterable[Hypothesis], right: float) -> Explanation | None:
    found = []
    for hypothesis in tried:
        # A key that is dropped and a boundary that lies too early differ in the last row alone.
        error = seen.error(hypothesis, whole=hypothesis.hides_keys)
        if error is not None:
            found.append(Explanation(hypothesis, error, right))
    if not found:
        return None
    nearest = min(found, key=lambda one: one.error)
    if nearest.hypothesis.base != _BASE:
        found.append(_rebased(seen, nearest))
    sized: dict[tuple[object, ...], Explanation] = {}
    for one in sorted(found, key=lambda one: one.error):
        h = one.hypothesis
        if h.window is not None or h.table is not None or h.zero_keys:
            sized.setdefault((h.name, h.causal, h.beyond), one)
    found += [_refined(seen, one) for one in sized.values()]
    best = min(found, key=lambda one: one.error)
    for one in found:
        if one.hypothesis.hides_keys and one.error <= _ABOUT_EQUAL * best.error:
            return one
    return best


def _refined(seen: _Seen, best: Explanation) -> Explanation:
    """The best size of a window or a table, or number of keys, near the one that was tried."""
    size = _size(best.hypothesis)
    step = max(1, size // 4)
    # Attention that gives zero is nearer with each further key of zeros.
    most = max(8, 2 * size) if best.hypothesis.zero_keys else math.inf
    while step:
        for other in (size - step, size + step):
            if not 1 <= other <= most:
                continue
            changed = _resized(best.hypothesis, other)
            error = seen.error(changed)
            if error is not None and error < best.error:
                best = Explanation(changed, error, best.error_of_right_layer)
        found = _size(best.hypothesis)
        step = step // 2 if found == size else step
        size = found
    return best


def _size(h: Hypothesis) -> int:
    return h.window or h.table or h.zero_keys


def _resized(h: Hypothesis, size: int) -> Hypothesis:
    if h.zero_keys:
        return with_zero_keys(size)
    text = h.text.replace(str(_size(h)), str(size))
    return (
        replace(h, text=text, table=size)
        if h.window is None
        else replace(h, text=text, window=size)
    )


def _rebased(seen: _Seen, best: Explanation) -> Explanation:
    """The rotary base near the one that was tried."""
    low, high = math.log10(best.hypothesis.base) - 1, math.log10(best.hypothesis.base) + 1

    def at(exponent: float) -> Explanation:
        h = replace(best.hypothesis, base=10**exponent)
        error = seen.error(h)
        return replace(best, hypothesis=h, error=math.inf if error is None else error)

    found = at(_narrowed(lambda exponent: at(exponent).error, low, high))
    text = f"rotary base {float(f'{found.hypothesis.base:.2g}'):,g} instead of 10,000"
    return replace(found, hypothesis=replace(found.hypothesis, text=text))


def _heads_out(seen: _Seen, heads: int, right: float) -> Explanation | None:
    """Several heads that give zero, the most telling first."""
    out: tuple[int, ...] = ()
    error = right
    while len(out) < min(_MOST_HEADS_OUT, heads):
        tried = [(*out, head) for head in range(heads) if head not in out]
        errors = [seen.error(without_heads(some, heads)) for some in tried]
        known = [(e, some) for e, some in zip(errors, tried, strict=True) if e is not None]
        if not known or min(known)[0] >= 0.9 * error:
            return None
        error, out = min(known)
        if error * EXPLAINS_FACTOR < right:
            return Explanation(without_heads(tuple(sorted(out)), heads), error, right)
    return None


# Field of `Hypothesis` -> its part of the layer, and what is multiplied.
_FACTORED: dict[str, tuple[str, str]] = {
    "score_factor": ("attention", "attention scores"),
    "position_factor": ("attention", "rotary positions"),
    "attention_factor": ("attention", "what attention adds"),
    "feed_forward_factor": ("feed-forward", "what the feed-forward part adds"),
    "residual_factor": ("", "the residual stream"),
}


def _factor(seen: _Seen, heads: int, right: float) -> Explanation | None:
    """One part of the layer multiplied by some number, or the attention scores of one head."""
    for field in _FACTORED:
        if abs(seen.turns_towards(_with_factor(field, _NUDGE, ()))) < _UNRELATED:
            continue
        found = _fitted(seen, field, heads, (), right)
        if found.error * EXPLAINS_FACTOR < right:
            return found
    towards = {
        head: abs(seen.turns_towards(_with_factor("score_factor", _NUDGE, (head,))))
        for head in range(heads)
    }
    likely = max(towards, key=lambda head: towards[head])
    if towards[likely] < _UNRELATED:
        return None
    found = _fitted(seen, "score_factor", heads, (likely,), right)
    return found if found.error * EXPLAINS_FACTOR < right else None


def _fitted(
    seen: _Seen, field: str, heads: int, some: tuple[int, ...], right: float
) -> Explanation:
    """The best factor, by narrowing around the best of a few."""
    errors = {factor: _error_with(seen, field, factor, some) for factor in _FACTORS}
    place = _FACTORS.index(min(errors, key=lambda one: errors[one]))
    low, high = _FACTORS[max(0, place - 1)], _FACTORS[min(len(_FACTORS) - 1, place + 1)]
    factor = _narrowed(lambda one: _error_with(seen, field, one, some), low, high)
    part, what = _FACTORED[field]
    what += f" of head {some[0] + 1} of {heads}" if some else ""
    hypothesis = replace(
        _with_factor(field, factor, some),
        name="scale off" if field == "score_factor" else "factor",
        text=f"{what} multiplied by {factor:.4g}",
        part=part,
    )
    return Explanation(hypothesis, _error_with(seen, field, factor, some), right)


def _narrowed(error: Callable[[float], float], low: float, high: float) -> float:
    """Where in a range an error is least, by golden-section search."""
    for _ in range(_NARROWINGS):
        one, other = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
        low, high = (low, other) if error(one) <= error(other) else (one, high)
    return (low + high) / 2


def _error_with(seen: _Seen, field: str, factor: float, some: tuple[int, ...]) -> float:
    error = seen.error(_with_factor(field, factor, some))
    return float("inf") if error is None else error


def _with_factor(field: str, factor: float, some: tuple[int, ...]) -> Hypothesis:
    changes: dict[str, Any] = {field: factor, "factor_heads": some}
    return replace(Hypothesis(name="", text=""), **changes)
