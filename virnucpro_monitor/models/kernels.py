"""Triton kernels for half precision on a GPU: what PyTorch would do in several passes over memory.

The matrix products stay with cuBLAS, but for the one with GELU (`linear_gelu`) and, in bfloat16,
the one with the rotation (`linear_rotate`). What remains is bound by memory: each kernel reads and
writes everything once. All arithmetic is FP32.
Each has a plain twin: `ESM2WithFlashAttention._embed`,
`rotary.rotate`, `functional.gelu`, `functional.layer_norm` and
`packed_attention`'s "sdpa".
"""

# Triton reads the kernels' own syntax: compile-time constants in capitals, nothing annotated.
# ruff: noqa: N803
# mypy: disable-error-code="untyped-decorator,no-untyped-def,no-untyped-call"

import torch
import triton
import triton.language as tl
from torch import Tensor, nn

QUERIES = 64
"""Queries that one program of the attention kernel holds."""


@triton.jit
def _embed_kernel(
    input_ids, table, masked, num_masked, length, out, num_rows, width, scale,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    known = rows < num_rows
    token = tl.load(input_ids + rows, known, other=0)
    zeroed = tl.load(masked + rows, known, other=0) != 0
    count = tl.load(num_masked + rows, known, other=0).to(tl.float32)
    total = tl.load(length + rows, known, other=1).to(tl.float32)
    observed = 1.0 - tl.div_rn(count, total)
    for first in range(0, width, COLUMNS):
        columns = first + tl.arange(0, COLUMNS)
        inside = known[:, None] & (columns < width)[None, :]
        # A masked token's row is not even read, because 0 x NaN would bring in what it keeps out.
        read = inside & (zeroed == 0)[:, None]
        places = token.to(tl.int64)[:, None] * width + columns[None, :]
        embedded = tl.load(table + places, read, other=0.0).to(tl.float32)
        value = tl.div_rn(embedded * scale, tl.broadcast_to(observed[:, None], (ROWS, COLUMNS)))
        places = rows.to(tl.int64)[:, None] * width + columns[None, :]
        tl.store(out + places, value.to(out.dtype.element_ty), inside)


def embed(
    input_ids: Tensor, table: Tensor, masked: Tensor, num_masked: Tensor, length: Tensor, *,
    scale: float,
) -> Tensor:  # fmt: skip
    """Embeddings, masked ones zeroed, divided by the sequence's share of unmasked tokens.

    Args:
        input_ids: [tokens]
        table: [vocabulary, width]
        masked: [tokens] bool, which rows are zeroed.
        num_masked, length: of the token's sequence, [tokens].
        scale: multiplies every row first.

    Returns:
        [tokens, width] in the dtype of `table`.
    """
    num_rows, width = input_ids.numel(), table.shape[1]
    out = torch.empty(num_rows, width, dtype=table.dtype, device=table.device)
    # The kernel reads one after another; one count expanded to all rows has a single one in memory.
    num_masked, length = num_masked.contiguous(), length.contiguous()
    rows = 16
    _embed_kernel[(triton.cdiv(num_rows, rows),)](
        input_ids, table, masked, num_masked, length, out, num_rows, width, scale,
        ROWS=rows, COLUMNS=128, num_warps=4,
    )  # fmt: skip
    return out


@triton.jit
def _norm_kernel(
    hidden, shift, weight, bias, normed, num_rows, width: tl.constexpr, eps,
    ROWS: tl.constexpr, LEFT: tl.constexpr, RIGHT: tl.constexpr,
):  # fmt: skip
    # ESM-2's widths are 5/4 of a power of 2, nearly all: a row is read in two parts, because
    # rounding it up to one power of 2 would leave over a third of the threads idle.
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    left, right = tl.arange(0, LEFT), LEFT + tl.arange(0, RIGHT)
    inside = right < width
    in_left = (rows < num_rows)[:, None]
    in_right = in_left & inside[None, :]
    starts = rows.to(tl.int64)[:, None] * width
    x = tl.load(hidden + starts + left[None, :], in_left, other=0.0).to(tl.float32)
    y = tl.load(hidden + starts + right[None, :], in_right, other=0.0).to(tl.float32)
    x += tl.load(shift + left)[None, :]
    y += tl.load(shift + right, inside, other=0.0)[None, :]
    mean = (tl.sum(x, axis=1) + tl.sum(y, axis=1)) / width
    x = x - mean[:, None]
    y = tl.where(inside[None, :], y - mean[:, None], 0.0)
    variance = (tl.sum(x * x, axis=1) + tl.sum(y * y, axis=1)) / width
    scale = tl.rsqrt(variance + eps)[:, None]
    w = tl.load(weight + left).to(tl.float32)[None, :]
    b = tl.load(bias + left).to(tl.float32)[None, :]
    x = x * scale * w + b
    w = tl.load(weight + right, inside, other=0.0).to(tl.float32)[None, :]
    b = tl.load(bias + right, inside, other=0.0).to(tl.float32)[None, :]
    y = y * scale * w + b
    tl.store(normed + starts + left[None, :], x.to(normed.dtype.element_ty), in_left)
    tl.store(normed + starts + right[None, :], y.to(normed.dtype.element_ty), in_right)


def shifted_norm(hidden: Tensor, shift: Tensor, norm: nn.LayerNorm) -> Tensor:
    """LayerNorm of `hidden + shift`.

    Args:
        hidden: [rows, width], contiguous, in half precision or FP32.
        shift: [width] FP32.

    Returns:
        [rows, width] in the dtype of the norm's weight.
    """
    num_rows, width = hidden.shape
    rows, left = 2, triton.next_power_of_2(width) // 2
    normed = torch.empty_like(hidden, dtype=norm.weight.dtype)
    # One warp for 1,024 columns of both rows was the fastest of 1 to 4 rows and 1 to 8 warps.
    _norm_kernel[(triton.cdiv(num_rows, rows),)](
        hidden, shift, norm.weight, norm.bias, normed, num_rows, width, norm.eps,
        ROWS=rows, LEFT=left, RIGHT=triton.next_power_of_2(width - left),
        num_warps=max(1, left // 1024),
    )  # fmt: skip
    return normed


@triton.jit
def gelu(x):
    # x Phi(x) = max(x, 0) - |x| Phi(-|x|), and log2 Phi(-s) is nearly a polynomial: this one, fit
    # up to s = 6 and falling beyond, errs by less than a hundredth of float16's last place. It has
    # one special function an element, where an error function with a division has two, and in a
    # product's epilogue those set the pace.
    size = tl.abs(x)
    log = 5.260592661215924e-05 - 1.2546659036161145e-06 * size
    log = -0.0008764570811763406 + log * size
    log = 0.008348839357495308 + log * size
    log = -0.05372286215424538 + log * size
    log = -0.4586319923400879 + log * size
    log = -1.1512056589126587 + log * size
    log = -0.9999971389770508 + log * size
    return tl.maximum(x, 0.0) - size * tl.exp2(log)


@triton.jit
def _gelu_kernel(x, size, BLOCK: tl.constexpr):
    places = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = places < size
    value = tl.load(x + places, mask, other=0.0).to(tl.float32)
    tl.store(x + places, gelu(value).to(x.dtype.element_ty), mask)


def gelu_(x: Tensor) -> Tensor:
    """Exact (erf) GELU, in place, of a contiguous tensor."""
    block = 4096
    _gelu_kernel[(triton.cdiv(x.numel(), block),)](x, x.numel(), BLOCK=block, num_warps=8)
    return x


@triton.jit
def _rotate_kernel(
    source, bias, target, cos, sin, positions, num_rows, scale,
    HEADS: tl.constexpr, HEAD_DIM: tl.constexpr, HALF: tl.constexpr, PARTS: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, HAS_BIAS: tl.constexpr,
):  # fmt: skip
    # A row is one head of q, of k or (with PARTS = 3) of v, of one token.
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    columns = tl.arange(0, COLUMNS)
    token = rows // (PARTS * HEADS)
    part = rows % (PARTS * HEADS)
    mask = (rows < num_rows)[:, None] & (columns < HALF)[None, :]
    in_token = part[:, None] * HEAD_DIM + columns[None, :]
    first = token.to(tl.int64)[:, None] * (3 * HEADS * HEAD_DIM) + in_token
    turned = (part < 2 * HEADS)[:, None] & mask
    position = tl.load(positions + token, rows < num_rows, other=0)
    angles = position[:, None] * HALF + columns[None, :]
    c = tl.load(cos + angles, turned, other=1.0)
    s = tl.load(sin + angles, turned, other=0.0)
    a = tl.load(source + first, mask, other=0.0).to(tl.float32)
    b = tl.load(source + first + HALF, mask, other=0.0).to(tl.float32)
    if HAS_BIAS:
        a += tl.load(bias + in_token, mask, other=0.0).to(tl.float32)
        b += tl.load(bias + in_token + HALF, mask, other=0.0).to(tl.float32)
    factor = tl.where(part < HEADS, scale, 1.0)[:, None]
    a, b = a * factor, b * factor
    tl.store(target + first, (a * c - b * s).to(target.dtype.element_ty), mask)
    tl.store(target + first + HALF, (b * c + a * s).to(target.dtype.element_ty), mask)


def rotate_(qkv: Tensor, cos: Tensor, sin: Tensor, positions: Tensor, num_heads: int) -> Tensor:
    """Scale q, then turn q and k, in place.

    Args:
        qkv: [tokens, 3 * heads * head_dim], contiguous.
        cos, sin: [positions, head_dim / 2] FP32.
        positions: [tokens] int64.
    """
    return _rotate(qkv, None, qkv, cos, sin, positions, num_heads)


def add_bias_and_rotate(
    product: Tensor, bias: Tensor, cos: Tensor, sin: Tensor, positions: Tensor, num_heads: int
) -> Tensor:
    """The same from an FP32 product without its bias, rounded once at the end.

    Args:
        product: [tokens, 3 * heads * head_dim] FP32, contiguous.
        bias: [3 * heads * head_dim]

    Returns:
        Like `product`, in the dtype of `bias`.
    """
    target = torch.empty(product.shape, dtype=bias.dtype, device=product.device)
    return _rotate(product, bias, target, cos, sin, positions, num_heads)


def _rotate(
    source: Tensor, bias: Tensor | None, target: Tensor,
    cos: Tensor, sin: Tensor, positions: Tensor, num_heads: int,
) -> Tensor:  # fmt: skip
    head_dim = source.shape[1] // (3 * num_heads)
    half = head_dim // 2
    columns = triton.next_power_of_2(half)
    rows = max(1, 2048 // columns)
    parts = 2 if bias is None else 3  # in place, v is as it should be
    num_rows = source.shape[0] * parts * num_heads
    _rotate_kernel[(triton.cdiv(num_rows, rows),)](
        source, bias, target, cos, sin, positions, num_rows, head_dim**-0.5,
        HEADS=num_heads, HEAD_DIM=head_dim, HALF=half, PARTS=parts,
        ROWS=rows, COLUMNS=columns, HAS_BIAS=bias is not None, num_warps=4,
    )  # fmt: skip
    return target


@triton.jit
def _attend_keys(
    q, key, value, low, high, length, stride_k, stride_v, top, total, mixed,
    HEAD_DIM: tl.constexpr, COLUMNS: tl.constexpr, KEYS: tl.constexpr, TAIL: tl.constexpr,
):  # fmt: skip
    """One pass of the online softmax, in powers of 2, over keys `low` to `high`."""
    columns = tl.arange(0, COLUMNS)
    for start in tl.range(low, high, KEYS):
        keys = start + tl.arange(0, KEYS)
        # [columns, keys]: the transpose that the product wants
        k_places = key + keys[None, :] * stride_k + columns[:, None]
        v_places = value + keys[:, None] * stride_v + columns[None, :]
        if TAIL or HEAD_DIM != COLUMNS:
            # Keys past the end belong to a neighbour: they are not even read, because 0 x NaN
            # would bring in what a weight of 0 keeps out.
            known, inside = keys < length, columns < HEAD_DIM
            k = tl.load(k_places, inside[:, None] & known[None, :], other=0.0)
            v = tl.load(v_places, known[:, None] & inside[None, :], other=0.0)
        else:
            k = tl.load(k_places)
            v = tl.load(v_places)
        scores = tl.dot(q, k)
        if TAIL:
            scores = tl.where((keys < length)[None, :], scores, float("-inf"))
        new_top = tl.maximum(top, tl.max(scores, axis=1) * 1.4426950408889634)
        weights = tl.exp2(scores * 1.4426950408889634 - new_top[:, None])
        shrink = tl.exp2(top - new_top)
        total = total * shrink + tl.sum(weights, axis=1)
        mixed = tl.dot(weights.to(v.dtype), v, mixed * shrink[:, None])
        top = new_top
    return top, total, mixed


@triton.jit
def _attention_kernel(
    q, k, v, out, cu_seqlens, block_sequence, block_start,
    stride_q, stride_k, stride_v, stride_out,
    HEAD_DIM: tl.constexpr, COLUMNS: tl.constexpr, QUERIES: tl.constexpr, KEYS: tl.constexpr,
):  # fmt: skip
    block = tl.program_id(0)
    head = tl.program_id(1)
    sequence = tl.load(block_sequence + block)
    if sequence >= 0:
        begin = tl.load(cu_seqlens + sequence).to(tl.int64)
        length = (tl.load(cu_seqlens + sequence + 1) - begin).to(tl.int32)
        rows = tl.load(block_start + block) + tl.arange(0, QUERIES)
        columns = tl.arange(0, COLUMNS)
        mask = (rows < length)[:, None] & (columns < HEAD_DIM)[None, :]
        q_places = q + begin * stride_q + head * HEAD_DIM
        queries = tl.load(q_places + rows[:, None] * stride_q + columns[None, :], mask, other=0.0)
        key = k + begin * stride_k + head * HEAD_DIM
        value = v + begin * stride_v + head * HEAD_DIM
        top = tl.full([QUERIES], float("-inf"), tl.float32)
        total = tl.zeros([QUERIES], tl.float32)
        mixed = tl.zeros([QUERIES, COLUMNS], tl.float32)
        whole = length // KEYS * KEYS
        top, total, mixed = _attend_keys(
            queries, key, value, 0, whole, length, stride_k, stride_v, top, total, mixed,
            HEAD_DIM, COLUMNS, KEYS, False,
        )  # fmt: skip
        if whole < length:
            top, total, mixed = _attend_keys(
                queries, key, value, whole, length, length, stride_k, stride_v,
                top, total, mixed, HEAD_DIM, COLUMNS, KEYS, True,
            )  # fmt: skip
        mixed = mixed / total[:, None]
        out_places = out + begin * stride_out + head * HEAD_DIM
        out_places = out_places + rows[:, None] * stride_out + columns[None, :]
        tl.store(out_places, mixed.to(out.dtype.element_ty), mask)


def query_blocks(cu_seqlens: Tensor, num_tokens: int, size: int) -> tuple[Tensor, Tensor]:
    """Cut each sequence into blocks of `size` queries, without waiting for the device.

    Returns:
        Each block's sequence and its first query in it, [blocks] int32. There are as many blocks
        as there might be; those not needed have sequence -1.
    """
    counts = (cu_seqlens.diff() + (size - 1)) // size
    ends = counts.cumsum(0)
    num_sequences = counts.numel()
    blocks = torch.arange(num_tokens // size + num_sequences, device=cu_seqlens.device)
    sequence = torch.searchsorted(ends, blocks, right=True)
    known = sequence.clamp(max=num_sequences - 1)
    start = (blocks - (ends - counts)[known]) * size
    return torch.where(blocks < ends[-1], sequence, -1).int(), start.int()


def attention(
    q: Tensor, k: Tensor, v: Tensor, cu_seqlens: Tensor, blocks: tuple[Tensor, Tensor]
) -> Tensor:
    """Softmax attention inside each sequence of a pack.

    Args:
        q, k, v: [tokens, heads, head_dim], the last two axes contiguous; q comes scaled.
        blocks: of `query_blocks`, for blocks of `QUERIES`.

    Returns:
        [tokens, heads, head_dim]
    """
    _, heads, head_dim = q.shape
    out = torch.empty(q.shape, dtype=q.dtype, device=q.device)
    # The fastest of those measured on an H200, with 64 or 128 queries, 32 to 128 keys, 4 or 8
    # warps, 2 to 4 stages, keys loaded by address or by descriptor, and q turned before or here.
    keys, num_warps = (64, 4) if head_dim <= 64 else (32, 8)
    _attention_kernel[(blocks[0].numel(), heads)](
        q, k, v, out, cu_seqlens, blocks[0], blocks[1],
        q.stride(0), k.stride(0), v.stride(0), out.stride(0),
        HEAD_DIM=head_dim, COLUMNS=max(16, triton.next_power_of_2(head_dim)),
        QUERIES=QUERIES, KEYS=keys, num_warps=num_warps, num_stages=3,
    )  # fmt: skip
    return out
