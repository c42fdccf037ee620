"""One transformer layer of ESM-2, written out plainly, with known faults to try.

Each `Hypothesis` is one way to get the layer wrong; `run_layer` gives what it would give.
"""

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.nn import functional

from virnucpro_monitor.validation.perturb import expected_embedding

_EPS = 1e-5
Projected = tuple[
    torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor
]
"""Input rows and which tokens they are of, their places among the keys, q [H, n, d], k, v."""
Shared = dict[tuple[int, int], Projected]

PRODUCTS = ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2")
NORMS = ("self_attn_layer_norm", "final_layer_norm")


@dataclass(frozen=True, slots=True, kw_only=True)
class Hypothesis:
    """One fault of a layer. Defaults are fair-esm's own arithmetic.

    Attributes:
        name: short and stable, for the stored document.
        text: what a person reads after "looks like".
        part: "attention" or "feed-forward".
        left, right: tokens wrongly attended to before and after the sequence, [n] int64; in the
            first layer only, whose input is known for any token.
        skip_first, skip_last: the sequence's own outer tokens that are cut off.
        positions: rotary position of each token of left, own and right; None for 0, 1, 2, …
        table: rows of the rotary table; what lies beyond is what `beyond` says: "last" (the last
            row), "wrap" (from the first row on) or "none" (not turned).
        scale_power: how often the softmax scale 1/sqrt(d) is applied.
        score_factor: what attention scores are multiplied by besides, of `factor_heads` or, where
            that is empty, of all heads.
        residual_factor, attention_factor, feed_forward_factor: what the layer's input, the
            attention's output and the feed-forward part's are multiplied by as they are added.
        position_factor: what counted positions are multiplied by.
        without_bias: of `PRODUCTS` and `NORMS`, those that leave their bias out.
        rotary_dtype: what cos and sin are rounded to; angle_dtype: what positions and inverse
            frequencies are rounded to; product_dtype: what matrix products are computed in, those
            of `in_product_dtype`; `as_autocast`: fair-esm's scores, shares and GELU, too.
        attention_dtype: what q, k and v are rounded to; `rounds_shares`: the softmax, too.
        causal, window: which keys a query sees: none after itself, none further than `window`.
        zero_keys: keys and values of zeros that are attended to besides.
        hidden_keys: own tokens, counted from the end, that no query sees as keys; first_hidden:
            those counted from the beginning.
        rolled_head, roll: a head whose V is moved by `roll` tokens against K; None for none.
        heads_out: heads that give zero.
        without_feed_forward: the second product gives its bias only.
        stream_dtype: what the layer's output is rounded to; clamp: what it is held within.
        rounded: of `PRODUCTS`, whose weights are rounded to `weights_dtype`.
    """

    name: str
    text: str
    part: str = "attention"
    left: torch.Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.int64))
    right: torch.Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.int64))
    skip_first: int = 0
    skip_last: int = 0
    positions: torch.Tensor | None = None
    table: int | None = None
    beyond: str = "last"
    scale_power: int = 1
    score_factor: float = 1.0
    factor_heads: tuple[int, ...] = ()
    residual_factor: float = 1.0
    attention_factor: float = 1.0
    feed_forward_factor: float = 1.0
    position_factor: float = 1.0
    without_bias: tuple[str, ...] = ()
    base: float = 10000.0
    interleaved: bool = False
    rotate_q: bool = True
    rotate_k: bool = True
    rotary_dtype: torch.dtype | None = None
    angle_dtype: torch.dtype | None = None
    softmax_dtype: torch.dtype | None = None
    attention_dtype: torch.dtype | None = None
    rounds_shares: bool = False
    product_dtype: torch.dtype | None = None
    in_product_dtype: tuple[str, ...] = PRODUCTS
    as_autocast: bool = False
    causal: bool = False
    window: int | None = None
    zero_keys: int = 0
    hidden_keys: int = 0
    first_hidden: int = 0
    layer_norm_eps: float = _EPS
    gelu: str = "none"
    rolled_head: int | None = None
    roll: int = 1
    heads_out: tuple[int, ...] = ()
    without_feed_forward: bool = False
    stream_dtype: torch.dtype | None = None
    clamp: float | None = None
    rounded: tuple[str, ...] = ()
    weights_dtype: torch.dtype | None = None

    @property
    def projects_plainly(self) -> bool:
        """Whether q, k and v before their rotation are the right ones."""
        other_numbers = self.product_dtype or self.rounded or self.without_bias
        changed = other_numbers or self.layer_norm_eps != _EPS
        return not (changed or self.looks_at_neighbours)

    @property
    def hides_keys(self) -> bool:
        return self.hidden_keys + self.first_hidden > 0

    @property
    def looks_at_neighbours(self) -> bool:
        return len(self.left) + len(self.right) > 0


def run_layer(
    model: Any,
    tokens: torch.Tensor,
    hypothesis: Hypothesis,
    number: int = 1,
    before: torch.Tensor | None = None,
    wanted: torch.Tensor | None = None,
    shared: Shared | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """A layer under a hypothesis: ([rows, D] float32, [rows] int64 which tokens they belong to).

    Rows are of the sequence's own tokens that the hypothesis keeps.

    Args:
        model: fair-esm's ESM2 in FP32.
        tokens: [T] int64 of the sequence alone.
        number: 1 for the first layer.
        before: [T, D], the layer's right input; None for the embedding of the tokens, whose
            neighbours are known too.
        wanted: [n] int64, rising: the tokens whose rows are computed; all by default.
        shared: keeps what hypotheses have in common, of one layer, its input and `wanted`.

    Raises:
        ValueError: neighbours' tokens are asked for in a later layer.
    """
    h = hypothesis
    layer = model.layers[number - 1]
    attention = layer.self_attn
    first, end = h.skip_first, len(tokens) - h.skip_last
    found = None if shared is None else shared.get((first, end))
    if found is None or not h.projects_plainly:
        found = _project(model, layer, tokens, h, before, wanted)
        if shared is not None and h.projects_plainly:
            shared[first, end] = found
    x, asked, at, q, k, v = found
    counted = torch.arange(k.shape[1], dtype=torch.float64)
    positions = counted * h.position_factor if h.positions is None else h.positions
    if h.rolled_head is not None:
        v = v.clone()
        v[h.rolled_head] = v[h.rolled_head].roll(h.roll, dims=0)
    q = q * float(q.shape[-1]) ** (-0.5 * h.scale_power)
    if h.score_factor != 1.0:
        q[list(h.factor_heads) or slice(None)] *= h.score_factor
    cos, sin = (table.to(x) for table in _rotary_tables(positions, q.shape[-1], h))
    q = _rotate(q, cos[at], sin[at], h.interleaved) if h.rotate_q else q
    k = _rotate(k, cos, sin, h.interleaved) if h.rotate_k else k
    mixed = _attend(q, k, v, at, h)
    if h.heads_out:
        mixed[list(h.heads_out)] = 0.0
    mixed = mixed.transpose(0, 1).flatten(1)  # [H, n, d] -> [n, D]
    attended = _product(mixed, attention.out_proj, "out_proj", h)
    x = h.residual_factor * x + h.attention_factor * attended
    normed = _layer_norm(layer, "final_layer_norm", x, h)
    inner = _gelu(_product(normed, layer.fc1, "fc1", h), h)
    inner = torch.zeros_like(inner) if h.without_feed_forward else inner
    x = x + h.feed_forward_factor * _product(inner, layer.fc2, "fc2", h)
    if h.clamp is not None:
        x = x.clamp(-h.clamp, h.clamp)
    return (x if h.stream_dtype is None else x.to(h.stream_dtype).float()), asked


def _project(
    model: Any,
    layer: Any,
    tokens: torch.Tensor,
    h: Hypothesis,
    before: torch.Tensor | None,
    wanted: torch.Tensor | None,
) -> Projected:
    attention = layer.self_attn
    heads = int(attention.num_heads)
    first, end = h.skip_first, len(tokens) - h.skip_last
    x = _input(model, tokens[first:end], h, None if before is None else before[first:end])
    asked = torch.arange(len(tokens)) if wanted is None else wanted
    asked = asked[(asked >= first) & (asked < end)]
    at = (asked - first + len(h.left)).to(x.device)
    normed = _layer_norm(layer, "self_attn_layer_norm", x, h)
    q, k, v = (
        _product(rows, getattr(attention, name), name, h).view(len(rows), heads, -1).transpose(0, 1)
        for name, rows in (("q_proj", normed[at]), ("k_proj", normed), ("v_proj", normed))
    )  # [H, n, d], 2 x [H, T, d]
    return x[at], asked, at, q, k, v


def _input(
    model: Any, own: torch.Tensor, h: Hypothesis, before: torch.Tensor | None
) -> torch.Tensor:
    """[T, D]"""
    table = model.embed_tokens.weight.detach()
    if before is not None:
        if h.looks_at_neighbours:
            raise ValueError("what a neighbour's tokens are in a later layer is not known")
        return before.to(table)
    return expected_embedding(table.cpu(), torch.cat([h.left, own, h.right])).to(table)


def _product(x: torch.Tensor, module: Any, name: str, h: Hypothesis) -> torch.Tensor:
    weight, bias = module.weight, module.bias
    if name in h.without_bias:
        bias = torch.zeros_like(bias)
    if h.weights_dtype is not None and name in h.rounded:
        weight = weight.to(h.weights_dtype).float()
    if h.product_dtype is not None and name in h.in_product_dtype:
        dtype = h.product_dtype
        return functional.linear(x.to(dtype), weight.to(dtype), bias.to(dtype)).float()
    return functional.linear(x, weight, bias)


def _gelu(x: torch.Tensor, h: Hypothesis) -> torch.Tensor:
    if h.as_autocast and h.product_dtype is not None:
        x = x.to(h.product_dtype)
        return (x * 0.5 * (1.0 + torch.erf(x / 2**0.5))).float()
    if h.gelu == "relu":
        return functional.relu(x)
    if h.gelu == "silu":
        return functional.silu(x)
    if h.gelu == "sigmoid":
        return x * torch.sigmoid(1.702 * x)
    return functional.gelu(x, approximate=h.gelu)


def _attend(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, at: torch.Tensor, h: Hypothesis
) -> torch.Tensor:
    """q [H, n, d] of the rows `at`, k and v [H, T, d] -> [H, n, d] float32."""
    if h.as_autocast and h.product_dtype is not None:
        q, k, v = (x.to(h.product_dtype) for x in (q, k, v))
        shares = (q @ k.transpose(-1, -2)).float().softmax(-1).to(h.product_dtype)
        return (shares @ v).float()
    if h.attention_dtype is not None:
        q, k, v = (x.to(h.attention_dtype) for x in (q, k, v))
        if h.rounds_shares:
            return functional.scaled_dot_product_attention(q[None], k[None], v[None], scale=1.0)[
                0
            ].float()
        q, k, v = (x.float() for x in (q, k, v))
    if h.hides_keys:
        kept = slice(h.first_hidden, k.shape[1] - h.hidden_keys)
        k, v = k[:, kept], v[:, kept]
    scores = q @ k.transpose(-1, -2)  # [H, n, T]
    if h.causal or h.window is not None:
        apart = torch.arange(scores.shape[-1], device=q.device)[None, :] - at[:, None]
        hidden = apart > 0 if h.causal else torch.zeros_like(apart, dtype=torch.bool)
        if h.window is not None:
            hidden = hidden | (apart.abs() > h.window)
        scores = scores.masked_fill(hidden, float("-inf"))
    if h.zero_keys:
        scores = functional.pad(scores, (0, h.zero_keys))
        v = functional.pad(v, (0, 0, 0, h.zero_keys))
    if h.softmax_dtype is not None:
        return scores.to(h.softmax_dtype).softmax(-1).to(scores) @ v
    mixed = scores.softmax(-1) @ v
    return mixed if h.attention_dtype is None else mixed.to(h.attention_dtype).float()


def _layer_norm(layer: Any, name: str, x: torch.Tensor, h: Hypothesis) -> torch.Tensor:
    module = getattr(layer, name)
    bias = None if name in h.without_bias else module.bias
    return functional.layer_norm(x, x.shape[-1:], module.weight, bias, h.layer_norm_eps)


def _rotary_tables(
    positions: torch.Tensor, head_dim: int, h: Hypothesis
) -> tuple[torch.Tensor, torch.Tensor]:
    """cos and sin, [T, d / 2] float64."""
    exponents = torch.arange(0, head_dim, 2, dtype=torch.float64) / head_dim
    frequencies = torch.exp(-exponents * math.log(h.base))
    if h.table is not None:
        inside = positions < h.table
        other = {
            "last": positions.clamp(max=h.table - 1),
            "wrap": positions % h.table,
            "none": torch.where(inside, positions, 0.0),
        }
        positions = other[h.beyond]
    if h.angle_dtype is not None:
        positions = positions.to(h.angle_dtype)
        frequencies = frequencies.to(h.angle_dtype)
    angles = (positions[:, None] * frequencies[None, :]).double()
    cos, sin = angles.cos(), angles.sin()
    if h.rotary_dtype is not None:
        cos, sin = cos.to(h.rotary_dtype).double(), sin.to(h.rotary_dtype).double()
    return cos, sin


def _rotate(
    x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, interleaved: bool
) -> torch.Tensor:
    """Rotate pairs of channels. x [H, T, d]; pairs are (i, i + d/2), or (2i, 2i + 1)."""
    if interleaved:
        a, b = x[..., 0::2], x[..., 1::2]
        return torch.stack((a * cos - b * sin, b * cos + a * sin), dim=-1).flatten(-2)
    a, b = x.chunk(2, dim=-1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1)
