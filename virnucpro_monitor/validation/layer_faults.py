"""Known faults of a layer: what each would make of a sequence and its neighbours."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch

from virnucpro_monitor.validation.one_layer import NORMS, PRODUCTS, Hypothesis
from virnucpro_monitor.validation.tokens import alphabet

_LONGEST_CONTEXT = 2048
_HALF = (torch.bfloat16, torch.float16)
_FEED_FORWARD = (("fc1", "fc2"), ("fc1",), ("fc2",))
# What people set windows and tables to.
_SIZES = (8, 16, 32, 64, 100, 128, 200, 256, 400, 500, 512, 768, 1000, 1022, 1024)


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Where a sequence lies in its pack.

    Attributes:
        before, after: all tokens of the pack before and after the sequence, [n] int64.
        previous, following: tokens of the direct neighbours; empty where there is none.
        longest: tokens of the longest sequence in the pack.
        other_lengths: tokens of the longest sequences of other packs.
    """

    before: torch.Tensor
    after: torch.Tensor
    previous: torch.Tensor
    following: torch.Tensor
    longest: int
    other_lengths: tuple[int, ...] = ()

    @staticmethod
    def alone(tokens: torch.Tensor) -> "Surroundings":
        """Of a sequence without neighbours."""
        return Surroundings(*(tokens[:0],) * 4, longest=len(tokens))


def without_heads(out: tuple[int, ...], heads: int) -> Hypothesis:
    numbers = ", ".join(str(head + 1) for head in out)
    which = f"head {numbers}" if len(out) == 1 else f"heads {numbers}"
    return Hypothesis(
        name="head left out", text=f"{which} of {heads} left out of attention", heads_out=out
    )


def with_zero_keys(count: int) -> Hypothesis:
    keys = "key" if count == 1 else "keys"
    text = f"{count} {keys} of zeros attended to, as padding without a mask"
    return Hypothesis(name="zero keys", text=text, zero_keys=count)


def hypotheses(num_tokens: int, around: Surroundings) -> Iterator[Hypothesis]:
    """Every known fault of a layer that applies to a sequence of `num_tokens`."""
    own = torch.arange(num_tokens, dtype=torch.float64)
    yield Hypothesis(name="scale missing", text="a missing softmax scale", scale_power=0)
    yield Hypothesis(name="scale twice", text="the softmax scale applied twice", scale_power=2)
    for base in (1e5, 1e6):
        text = f"rotary base 1e{len(f'{base:.0f}') - 1} instead of 1e4"
        yield Hypothesis(name="rotary base", text=text, base=base)
    yield Hypothesis(
        name="rotary interleaved", text="interleaved instead of half-split RoPE", interleaved=True
    )
    yield Hypothesis(name="rotary q only", text="RoPE on q only", rotate_k=False)
    yield Hypothesis(name="rotary missing", text="missing RoPE", rotate_q=False, rotate_k=False)
    yield Hypothesis(name="rotary reversed", text="RoPE turned the other way", positions=-own)
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
    yield from _table_hypotheses(num_tokens, around)
    yield from _key_hypotheses(num_tokens, around)
    yield from _precision_hypotheses()
    yield from _boundary_hypotheses(num_tokens, around)
    for gelu, text in (
        ("tanh", "tanh instead of erf GELU"),
        ("relu", "ReLU instead of GELU"),
        ("silu", "SiLU instead of GELU"),
    ):
        yield Hypothesis(name=f"gelu {gelu}", text=text, part="feed-forward", gelu=gelu)
    yield Hypothesis(
        name="feed-forward left out",
        text="a feed-forward part that is left out",
        part="feed-forward",
        without_feed_forward=True,
    )
    for eps in (1e-2, 1e-3, 1e-6, 1e-12):
        yield Hypothesis(
            name="layer norm epsilon",
            text=f"LayerNorm epsilon {eps:g} instead of 1e-5",
            part="LayerNorm",
            layer_norm_eps=eps,
        )


def _table_hypotheses(num_tokens: int, around: Surroundings) -> Iterator[Hypothesis]:
    """Rotary tables that end before the sequence does."""
    yield from _tables_of({*_SIZES, *around.other_lengths}, num_tokens)


def _tables_of(sizes: Iterable[int], num_tokens: int) -> Iterator[Hypothesis]:
    for size in sorted(sizes):
        if not 1 < size < num_tokens:
            continue
        for beyond, what in (
            ("last", "all later tokens take its last row"),
            ("wrap", "it starts again there"),
            ("none", "later tokens are not turned"),
        ):
            yield Hypothesis(
                name="rotary table short",
                text=f"a rotary table of {size} positions, too short or stale ({what})",
                table=size,
                beyond=beyond,
            )


def _key_hypotheses(num_tokens: int, around: Surroundings) -> Iterator[Hypothesis]:
    """Keys that a query should see and does not, or the other way round."""
    yield Hypothesis(name="causal", text="causal attention", causal=True)
    for size in _SIZES:
        if size < num_tokens - 1:
            text = f"attention within a window of {size} tokens to either side"
            yield Hypothesis(name="window", text=text, window=size)
            yield Hypothesis(name="window", text=f"causal {text}", window=size, causal=True)
    fills = {(-num_tokens) % step for step in (2, 4, 8, 16, 32, 64, 128)}
    for count in sorted({*fills, around.longest - num_tokens, 1} - {0}):
        yield with_zero_keys(count)
    for count in (1, 2):
        if num_tokens > 2 * count:
            last = "last key" if count == 1 else f"last {count} keys"
            yield Hypothesis(
                name="last key dropped",
                text=f"the sequence's {last} left out of attention",
                hidden_keys=count,
            )
    if num_tokens > 2:
        text = "the sequence's first key left out of attention"
        yield Hypothesis(name="first key dropped", text=text, first_hidden=1)
        text = "the sequence's first and last key left out of attention"
        yield Hypothesis(name="outer keys dropped", text=text, first_hidden=1, hidden_keys=1)


def _precision_hypotheses() -> Iterator[Hypothesis]:
    for dtype in _HALF:
        name = str(dtype).removeprefix("torch.")
        text = f"rotary tables in {name}"
        yield Hypothesis(name=f"rotary {name}", text=text, rotary_dtype=dtype)
        yield Hypothesis(name=f"rotary {name}", text=text, angle_dtype=dtype)
        yield Hypothesis(name=f"rotary {name}", text=text, angle_dtype=dtype, rotary_dtype=dtype)
        yield Hypothesis(name=f"softmax {name}", text=f"softmax in {name}", softmax_dtype=dtype)
        text = f"attention in {name}"
        yield Hypothesis(name=f"attention {name}", text=text, attention_dtype=dtype)
        yield Hypothesis(
            name=f"attention {name}", text=text, attention_dtype=dtype, rounds_shares=True
        )
        text = f"a residual stream in {name}"
        yield Hypothesis(name=f"stream {name}", text=text, part="", stream_dtype=dtype)
        text = f"matrix products in {name}, as autocast makes them"
        for attention in (None, dtype):
            yield Hypothesis(
                name=f"products {name}",
                text=text,
                part="",
                product_dtype=dtype,
                attention_dtype=attention,
                rounds_shares=attention is not None,
            )


def rarer_hypotheses(num_tokens: int) -> Iterator[Hypothesis]:
    """Faults that are tried where the usual ones explain nothing."""
    own = torch.arange(num_tokens, dtype=torch.float64)
    yield Hypothesis(
        name="positions start late",
        text="positions that count from the second token on",
        positions=(own - 1).clamp(min=0),
    )
    # Of <cls> and <eos>, and of an index that is one less than a count.
    yield from _tables_of((num_tokens - forgotten for forgotten in range(1, 5)), num_tokens)
    yield Hypothesis(
        name="gelu sigmoid",
        text="x sigmoid(1.702 x) instead of GELU",
        part="feed-forward",
        gelu="sigmoid",
    )
    for dtype in _HALF:
        name = str(dtype).removeprefix("torch.")
        rounded = own.to(dtype).double()
        if not torch.equal(rounded, own):  # else they are exact in it
            text = f"rotary positions in {name}"
            yield Hypothesis(name=f"rotary {name}", text=text, positions=rounded)
        text = f"matrix products in {name}, as autocast makes them"
        yield Hypothesis(
            name=f"products {name}", text=text, part="", product_dtype=dtype, as_autocast=True
        )
        for some, part in ((PRODUCTS[:4], "attention"), *((one, "") for one in _FEED_FORWARD)):
            yield Hypothesis(
                name=f"products {name}",
                text=f"matrix products in {name} ({', '.join(some)})",
                part=part or "feed-forward",
                product_dtype=dtype,
                in_product_dtype=some,
            )


def weight_hypotheses() -> Iterator[Hypothesis]:
    """Weights of a layer rounded to half precision, all of them or one matrix."""
    for dtype in _HALF:
        name = str(dtype).removeprefix("torch.")
        for some in (PRODUCTS, PRODUCTS[:3], *((one,) for one in PRODUCTS)):
            which = "all of the layer's" if len(some) == len(PRODUCTS) else ", ".join(some)
            yield Hypothesis(
                name=f"weights {name}",
                text=f"weights rounded to {name} ({which})",
                part="",
                rounded=some,
                weights_dtype=dtype,
            )


def bias_hypotheses() -> Iterator[Hypothesis]:
    """A bias that is left out."""
    for some in (PRODUCTS[:3], *((one,) for one in PRODUCTS), NORMS, *((one,) for one in NORMS)):
        yield Hypothesis(
            name="bias missing",
            text=f"a missing bias ({', '.join(some)})",
            part="",
            without_bias=some,
        )


def head_hypotheses(num_heads: int) -> Iterator[Hypothesis]:
    """Faults of one head of a layer, or of all together."""
    yield Hypothesis(
        name="attention left out",
        text="attention that gives zero",
        heads_out=tuple(range(num_heads)),
    )
    for head in range(num_heads):
        yield without_heads((head,), num_heads)
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
