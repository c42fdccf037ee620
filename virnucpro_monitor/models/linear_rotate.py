"""The projection to q, k and v with its rotation as one kernel, for Hopper and later.

q and k are rounded once, after the rotation. In bfloat16 cuBLAS needs a product in FP32 for that,
which is written out and read again: twice the memory, and 3.5 % of a 650M model's speed on an H200
(2.8 % at 3B). In float16 cuBLAS and a rotation in place are as fast as Triton's kernel here, but
not as `overlapped`.
"""

# ruff: noqa: N803
# mypy: disable-error-code="untyped-decorator,no-untyped-def,no-untyped-call"

import torch
import triton
import triton.language as tl
from torch import Tensor, nn
from triton.tools.tensor_descriptor import TensorDescriptor

from virnucpro_monitor.models.tiles import (
    DEPTH,
    ROWS,
    halves,
    has_tensor_copies,
    num_multiprocessors,
    place_of_tile,
    product_of_tile,
    rotation_overlaps,
)

_COLUMNS, _HEAD_DIM, _GROUP = 256, 64, 16


@triton.jit
def _store_head(
    part, bias, out, c, s, row, column, factor, ROWS: tl.constexpr, HEAD_DIM: tl.constexpr,
):  # fmt: skip
    half: tl.constexpr = HEAD_DIM // 2
    a, b = halves(part, ROWS, HEAD_DIM)
    columns = column + tl.arange(0, half)
    a = (a + tl.load(bias + columns).to(tl.float32)[None, :]) * factor
    b = (b + tl.load(bias + columns + half).to(tl.float32)[None, :]) * factor
    out.store([row, column], (a * c - b * s).to(out.dtype))
    out.store([row, column + half], (b * c + a * s).to(out.dtype))


@triton.jit
def _linear_rotate_kernel(
    x, weight, bias, out, cos, sin, num_rows, num_columns, depth, scale,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr, GROUP: tl.constexpr,
    PROGRAMS: tl.constexpr, WIDTH: tl.constexpr, HEAD_DIM: tl.constexpr,
):  # fmt: skip
    # Persistent: each program computes every PROGRAMS-th tile, which is four heads of q, k or v.
    tiles = tl.cdiv(num_rows, ROWS) * tl.cdiv(num_columns, COLUMNS)
    for tile in tl.range(tl.program_id(0), tiles, PROGRAMS, flatten=True):
        row, column = place_of_tile(tile, num_rows, num_columns, ROWS, COLUMNS, GROUP)
        total = product_of_tile(x, weight, row, column, depth, ROWS, COLUMNS, DEPTH)
        rows = row + tl.arange(0, ROWS)
        places = rows[:, None] * (HEAD_DIM // 2) + tl.arange(0, HEAD_DIM // 2)[None, :]
        turned = (rows < tl.where(column < 2 * WIDTH, num_rows, 0))[:, None]
        c = tl.load(cos + places, turned, other=1.0)
        s = tl.load(sin + places, turned, other=0.0)
        factor = tl.where(column < WIDTH, scale, 1.0)
        left, right = halves(total, ROWS, COLUMNS)
        first, second = halves(left, ROWS, COLUMNS // 2)
        third, fourth = halves(right, ROWS, COLUMNS // 2)
        _store_head(first, bias, out, c, s, row, column, factor, ROWS, HEAD_DIM)
        _store_head(second, bias, out, c, s, row, column + HEAD_DIM, factor, ROWS, HEAD_DIM)
        _store_head(third, bias, out, c, s, row, column + 2 * HEAD_DIM, factor, ROWS, HEAD_DIM)
        _store_head(fourth, bias, out, c, s, row, column + 3 * HEAD_DIM, factor, ROWS, HEAD_DIM)


def can_rotate(x: Tensor, num_heads: int) -> bool:
    """Whether a product of x [tokens, embed_dim] with its rotation runs, ahead of two passes.

    No tile may cut a head, nor q from k.
    """
    if rotation_overlaps(x, num_heads):
        return True
    width = x.shape[1]
    fits = width == _HEAD_DIM * num_heads and width % _COLUMNS == 0
    return fits and x.dtype == torch.bfloat16 and has_tensor_copies(x.device)


def linear_rotate(x: Tensor, linear: nn.Linear, cos: Tensor, sin: Tensor, num_heads: int) -> Tensor:
    """`linear(x)` with q scaled and q and k turned; sums and rotation in FP32, rounded once.

    Args:
        x: [tokens, embed_dim], contiguous, where `can_rotate`.
        cos, sin: [tokens, head_dim / 2] FP32, of each token's position.

    Returns:
        [tokens, 3 * embed_dim] in the dtype of `x`.
    """
    if rotation_overlaps(x, num_heads):
        from virnucpro_monitor.models import overlapped

        return overlapped.linear_rotate(x, linear, cos, sin, num_heads)
    rows, depth = x.shape
    columns = linear.out_features
    out = torch.empty(rows, columns, dtype=x.dtype, device=x.device)
    programs = num_multiprocessors(x.device)
    _linear_rotate_kernel[(programs,)](
        TensorDescriptor.from_tensor(x, [ROWS, DEPTH]),
        TensorDescriptor.from_tensor(linear.weight, [_COLUMNS, DEPTH]),
        linear.bias,
        TensorDescriptor.from_tensor(out, [ROWS, _HEAD_DIM // 2]),
        cos, sin, rows, columns, depth, _HEAD_DIM**-0.5,
        ROWS=ROWS, COLUMNS=_COLUMNS, DEPTH=DEPTH, GROUP=_GROUP, PROGRAMS=programs,
        WIDTH=columns // 3, HEAD_DIM=_HEAD_DIM, num_warps=8, num_stages=4,
    )  # fmt: skip
    return out
