"""Triton kernels for half precision on a GPU: what PyTorch would do in several passes over memory.

The matrix products stay with cuBLAS, but for the one with GELU (`linear_gelu`), the one with the
rotation (`linear_rotate`) in bfloat16, and on Hopper both up to 650M's (`overlapped`). What remains
is bound by memory: each kernel reads and writes everything once. All arithmetic is FP32.
Each has a plain twin: `ESM2WithFlashAttention._embed`, `rotary.rotate`, `functional.gelu` and
`functional.layer_norm`. Attention is in `attention_kernel`.
"""

# Triton reads the kernels' own syntax: compile-time constants in capitals, nothing annotated.
# ruff: noqa: N803
# mypy: disable-error-code="untyped-decorator,no-untyped-def,no-untyped-call"

import torch
import triton
import triton.language as tl
from torch import Tensor, nn


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
