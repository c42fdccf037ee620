"""The first transformer layer of ESM-2, written out plainly, with known faults to try.

Each `Hypothesis` is one way to get the first layer wrong. `explain` runs all that apply to a
sequence and its neighbours, and names the one that reproduces what the packed path really gave;
those of single heads, of which there are many, only where no other does.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.nn import functional

from virnucpro_monitor.validation import measures
from virnucpro_monitor.validation.perturb import expected_embedding
from virnucpro_monitor.validation.tokens import alphabet

# A hypothesis explains the packed layer where it is this many times closer than the right layer.
EXPLAINS_FACTOR = 4.0
_LONGEST_CONTEXT = 2048


@dataclass(frozen=True, slots=True, kw_only=True)
class Hypothesis:
    """One fault of the first layer. Defaults are fair-esm's own arithmetic.

    Attributes:
        name: short and stable, for the stored document.
        text: what a person reads after "looks like".
        part: "attention" or "feed-forward".
        left, right: tokens wrongly attended to before and after the sequence, [n] int64.
        skip_first, skip_last: the sequence's own outer tokens that are cut off.
        positions: rotary position of each token of left, own and right; None for 0, 1, 2, …
        scale_power: how often the softmax scale 1/sqrt(d) is applied.
        rotary_dtype: what cos and sin are rounded to; angle_dtype: what positions and inverse
            frequencies are rounded to.
        rolled_head, roll: a head whose V is moved by `roll` tokens against K; None for none.
    """

    name: str
    text: str
    part: str = "attention"
    left: torch.Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.int64))
    right: torch.Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.int64))
    skip_first: int = 0
    skip_last: int = 0
    positions: torch.Tensor | None = None
    scale_power: int = 1
    base: float = 10000.0
    interleaved: bool = False
    rotate_q: bool = True
    rotate_k: bool = True
    rotary_dtype: torch.dtype | None = None
    angle_dtype: torch.dtype | None = None
    softmax_dtype: torch.dtype | None = None
    layer_norm_eps: float = 1e-5
    gelu: str = "none"
    rolled_head: int | None = None
    roll: int = 1


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Where a sequence lies in its pack.

    Attributes:
        before, after: all tokens of the pack before and after the sequence, [n] int64.
        previous, following: tokens of the direct neighbours; empty where there is none.
        longest: tokens of the longest sequence in the pack.
    """

    before: torch.Tensor
    after: torch.Tensor
    previous: torch.Tensor
    following: torch.Tensor
    longest: int


@dataclass(frozen=True, slots=True)
class Explanation:
    """The best hypothesis: its error and the right layer's, both relative L2 over residues."""

    hypothesis: Hypothesis
    error: float
    error_of_right_layer: float


def explain(
    model: Any,
    tokens: torch.Tensor,
    packed: torch.Tensor,
    surroundings: Surroundings,
) -> Explanation | None:
    """Find the hypothesis that reproduces the packed first layer.

    Args:
        model: fair-esm's ESM2 in FP32.
        tokens: [T] int64 of the sequence alone.
        packed: [T, D], what the packed path gave after layer 1.

    Returns:
        The best one, or None where none is at least `EXPLAINS_FACTOR` times closer than right.
    """
    device = next(model.parameters()).device
    seen = packed[1:-1].double().to(device)
    right = Hypothesis(name="right", text="")
    error = _error(model, tokens, seen, right)
    if error is None:
        return None
    heads = int(model.layers[0].self_attn.num_heads)
    for tried in (hypotheses(len(tokens), surroundings), head_hypotheses(heads)):
        best: Explanation | None = None
        for hypothesis in tried:
            found = _error(model, tokens, seen, hypothesis)
            if found is not None and (best is None or found < best.error):
                best = Explanation(hypothesis, found, error)
        if best and best.error * EXPLAINS_FACTOR < error:
            return best
    return None


def hypotheses(num_tokens: int, around: Surroundings) -> Iterator[Hypothesis]:
    """Every known fault of the first layer that applies to a sequence of `num_tokens`."""
    own = torch.arange(num_tokens, dtype=torch.float64)
    yield Hypothesis(name="scale missing", text="a missing softmax scale", scale_power=0)
    yield Hypothesis(name="scale twice", text="the softmax scale applied twice", scale_power=2)
    yield Hypothesis(name="rotary base", text="rotary base 1e5 instead of 1e4", base=1e5)
    yield Hypothesis(
        name="rotary interleaved", text="interleaved instead of half-split RoPE", interleaved=True
    )
    yield Hypothesis(name="rotary q only", text="RoPE on q only", rotate_k=False)
    yield Hypothesis(name="rotary missing", text="missing RoPE", rotate_q=False, rotate_k=False)
    yield Hypothesis(name="positions doubled", text="doubled positions", positions=2 * own)
    for half in (num_tokens // 2, (num_tokens + 1) // 2):
        yield Hypothesis(
            name="positions restarted",
            text="positions restarted in mid-sequence",
            positions=own % max(1, half),
        )
    if len(around.previous):
        for late in (len(around.previous), len(around.previous) - 1):
            yield Hypothesis(
                name="positions late",
                text="positions reset one token late",
                positions=torch.cat([torch.tensor([float(late)]), own[:-1]]).double(),
            )
    for dtype in (torch.bfloat16, torch.float16):
        name = str(dtype).removeprefix("torch.")
        text = f"rotary tables in {name}"
        yield Hypothesis(name=f"rotary {name}", text=text, rotary_dtype=dtype)
        yield Hypothesis(name=f"rotary {name}", text=text, angle_dtype=dtype)
        yield Hypothesis(name=f"rotary {name}", text=text, angle_dtype=dtype, rotary_dtype=dtype)
        yield Hypothesis(name=f"softmax {name}", text=f"softmax in {name}", softmax_dtype=dtype)
    yield from _boundary_hypotheses(num_tokens, around)
    yield Hypothesis(
        name="gelu tanh", text="tanh instead of erf GELU", part="feed-forward", gelu="tanh"
    )
    for eps in (1e-2, 1e-3, 1e-6, 1e-12):
        yield Hypothesis(
            name="layer norm epsilon",
            text=f"LayerNorm epsilon {eps:g} instead of 1e-5",
            part="LayerNorm",
            layer_norm_eps=eps,
        )


def head_hypotheses(num_heads: int) -> Iterator[Hypothesis]:
    """Faults of one head of the first layer."""
    for head in range(num_heads):
        for roll in (1, -1):
            yield Hypothesis(
                name="head rolled",
                text=f"V of one head (head {head + 1} of {num_heads}) moved by one token against K",
                rolled_head=head,
                roll=roll,
            )


def _swapped_hypotheses(num_tokens: int, around: Surroundings) -> Iterator[Hypothesis]:
    """The lengths of the sequence and of a neighbour exchanged.

    The neighbour's tokens between the wrong boundary and the right one fall to the sequence, or its
    own to the neighbour; then either part is a segment that can be recognised.
    """
    name, text = "boundaries swapped", "the boundaries of two neighbours swapped"
    more = len(around.previous) - num_tokens
    if len(around.previous) and more > 0:
        yield Hypothesis(name=name, text=text, left=around.previous[num_tokens:])
    elif len(around.previous) and more < 0:
        yield Hypothesis(name=name, text=text, skip_first=-more)
        yield Hypothesis(name=name, text=text, left=around.previous, skip_last=len(around.previous))
    more = len(around.following) - num_tokens
    if len(around.following) and more > 0:
        yield Hypothesis(name=name, text=text, right=around.following[:more])
    elif len(around.following) and more < 0:
        yield Hypothesis(name=name, text=text, skip_last=-more)
        yield Hypothesis(
            name=name, text=text, skip_first=len(around.following), right=around.following
        )


def _boundary_hypotheses(num_tokens: int, around: Surroundings) -> Iterator[Hypothesis]:
    off_by_one = "a boundary (`cu_seqlens`) off by one"
    if len(around.after):
        yield Hypothesis(
            name="boundary late", text=off_by_one, skip_first=1, right=around.after[:1]
        )
        yield Hypothesis(name="boundary late", text=off_by_one, right=around.after[:1])
    if len(around.before):
        yield Hypothesis(
            name="boundary early", text=off_by_one, skip_last=1, left=around.before[-1:]
        )
        yield Hypothesis(name="boundary early", text=off_by_one, left=around.before[-1:])
    for token, side in ((around.following[:1], "after"), (around.previous[-1:], "before")):
        if len(token):
            own = torch.arange(num_tokens, dtype=torch.float64)
            place = 0.0 if side == "after" else float(len(around.previous) - 1)
            yield Hypothesis(
                name="neighbour token",
                text=f"one token of the sequence {side} it attended to (a boundary off by one)",
                left=token if side == "before" else token[:0],
                right=token if side == "after" else token[:0],
                positions=torch.cat(
                    [own, own.new_tensor([place])]
                    if side == "after"
                    else [own.new_tensor([place]), own]
                ),
            )
    yield Hypothesis(name="boundary late", text=off_by_one, skip_first=1)
    yield Hypothesis(name="boundary early", text=off_by_one, skip_last=1)
    merged = "two sequences merged into one"
    if len(around.previous):
        yield Hypothesis(name="merged", text=merged, left=around.previous)
    if len(around.following):
        yield Hypothesis(name="merged", text=merged, right=around.following)
    total = len(around.before) + len(around.after) + num_tokens
    if total <= _LONGEST_CONTEXT and len(around.before) + len(around.after):
        yield Hypothesis(
            name="one segment",
            text="the whole pack taken as one sequence",
            left=around.before,
            right=around.after,
        )
    yield from _swapped_hypotheses(num_tokens, around)
    missing = around.longest - num_tokens
    if missing > 0:
        for token, name in ((alphabet().cls_idx, "<cls>"), (alphabet().padding_idx, "<pad>")):
            yield Hypothesis(
                name=f"padding {name}",
                text=f"padding with {name} that is attended to",
                right=torch.full((missing,), token, dtype=torch.int64),
            )


def first_layer(
    model: Any, tokens: torch.Tensor, hypothesis: Hypothesis
) -> tuple[torch.Tensor, int, int]:
    """Layer 1 under a hypothesis: ([rows, D] float32 of own tokens kept, first, end).

    Rows belong to the sequence's tokens `first` to `end - 1`.
    """
    h = hypothesis
    layer = model.layers[0]
    attention = layer.self_attn
    table = model.embed_tokens.weight.detach()
    heads = int(attention.num_heads)
    first, end = h.skip_first, len(tokens) - h.skip_last
    own = tokens[first:end]
    row = torch.cat([h.left, own, h.right])
    x = expected_embedding(table.cpu(), row).to(table)  # [T, D]
    counted = torch.arange(len(row), dtype=torch.float64)
    positions = counted if h.positions is None else h.positions
    normed = _layer_norm(layer.self_attn_layer_norm, x, h.layer_norm_eps)
    q, k, v = (
        functional.linear(normed, part.weight, part.bias).view(len(row), heads, -1).transpose(0, 1)
        for part in (attention.q_proj, attention.k_proj, attention.v_proj)
    )  # 3 x [H, T, d]
    if h.rolled_head is not None:
        v = v.clone()
        v[h.rolled_head] = v[h.rolled_head].roll(h.roll, dims=0)
    q = q * float(q.shape[-1]) ** (-0.5 * h.scale_power)
    cos, sin = _rotary_tables(positions, q.shape[-1], h)
    q = _rotate(q, cos.to(q), sin.to(q), h.interleaved) if h.rotate_q else q
    k = _rotate(k, cos.to(k), sin.to(k), h.interleaved) if h.rotate_k else k
    scores = q @ k.transpose(-1, -2)  # [H, T, T]
    if h.softmax_dtype is None:
        shares = scores.softmax(-1)
    else:
        shares = scores.to(h.softmax_dtype).softmax(-1).to(scores)
    mixed = (shares @ v).transpose(0, 1).flatten(1)  # [H, T, d] -> [T, D]
    x = x + functional.linear(mixed, attention.out_proj.weight, attention.out_proj.bias)
    normed = _layer_norm(layer.final_layer_norm, x, h.layer_norm_eps)
    hidden = functional.gelu(
        functional.linear(normed, layer.fc1.weight, layer.fc1.bias), approximate=h.gelu
    )
    x = x + functional.linear(hidden, layer.fc2.weight, layer.fc2.bias)
    start = len(h.left)
    return x[start : start + len(own)], first, end


def _error(
    model: Any, tokens: torch.Tensor, seen: torch.Tensor, hypothesis: Hypothesis
) -> float | None:
    """Relative L2 over the residues of what was seen [T - 2, D] against the hypothesis."""
    rows, first, _ = first_layer(model, tokens, hypothesis)
    # Token i is residue i - 1; BOS and EOS are left out on both sides.
    low = max(first, 1)
    wanted = rows[low - first :][: len(tokens) - 1 - low]
    return measures.relative_l2(seen[low - 1 : low - 1 + len(wanted)], wanted)


def _layer_norm(module: Any, x: torch.Tensor, eps: float) -> torch.Tensor:
    return functional.layer_norm(x, x.shape[-1:], module.weight, module.bias, eps)


def _rotary_tables(
    positions: torch.Tensor, head_dim: int, h: Hypothesis
) -> tuple[torch.Tensor, torch.Tensor]:
    """cos and sin, [T, d / 2] float64."""
    exponents = torch.arange(0, head_dim, 2, dtype=torch.float64) / head_dim
    frequencies = torch.exp(-exponents * math.log(h.base))
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
