"""Linear layers whose epilogue passes beside the next tile's product, for Hopper.

GELU and the rotation of q and k take no time of their own here, where cuBLAS leaves them to a pass
over memory, and Triton's kernels to a moment without products.
"""

from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.nvidia.hopper import TensorDescriptor

from virnucpro_monitor.models.overlapped_kernel import GELU, ROTATE, linear_kernel
from virnucpro_monitor.models.tiles import DEPTH, OVERLAPPED_PART, ROWS, num_multiprocessors

_COLUMNS, _STAGES, _GROUP = 128, 5, 8
_NUM_WARPS = 4
"""Of each of the two groups that multiply; the copying is one warp's."""
_REGISTERS = 168
"""Of a thread as the kernel starts: nearly all there are for 384, which then deal them anew."""


def linear_gelu(x: Tensor, linear: nn.Linear) -> Tensor:
    """`gelu(linear(x))`: [rows, in_features] -> [rows, out_features], sums and GELU in FP32."""
    out = torch.empty(len(x), linear.out_features, dtype=x.dtype, device=x.device)
    return _run(x, linear.weight, out, linear.bias, GELU)


def linear_rotate(x: Tensor, linear: nn.Linear, cos: Tensor, sin: Tensor, num_heads: int) -> Tensor:
    """`linear(x)` with q scaled and q and k turned; sums and rotation in FP32, rounded once.

    Args:
        x: [tokens, embed_dim], contiguous, where `rotation_overlaps`.
        cos, sin: [tokens, head_dim / 2] FP32, of each token's position.

    Returns:
        [tokens, 3 * embed_dim] in the dtype of `x`.
    """
    width = linear.out_features // 3
    out = torch.empty(len(x), 3 * width, dtype=x.dtype, device=x.device)
    return _run(x, linear.weight, out, linear.bias, ROTATE, (cos, sin), width, width // num_heads)


def _run(
    x: Tensor,
    weight: Tensor,
    out: Tensor,
    bias: Tensor,
    epilogue: int,
    tables: tuple[Tensor, Tensor] | None = None,
    width: int = 0,
    head_dim: int = OVERLAPPED_PART,
) -> Tensor:
    """Launch the kernel; what an epilogue does not read may be any tensor."""
    (rows, depth), columns = x.shape, weight.shape[0]
    programs = num_multiprocessors(x.device)
    linear_kernel[(programs,)](
        _tiles(x, ROWS, DEPTH), _tiles(weight, _COLUMNS, DEPTH), _tiles(out, ROWS, OVERLAPPED_PART),
        bias, *(tables or (bias, bias)), rows, columns, depth, width, head_dim**-0.5,
        ROWS=ROWS, COLUMNS=_COLUMNS, PART=OVERLAPPED_PART, DEPTH=DEPTH,
        GROUP=_GROUP, PROGRAMS=programs, STAGES=_STAGES, EPILOGUE=epilogue,
        HEAD_DIM=head_dim, num_warps=_NUM_WARPS, maxnreg=_REGISTERS,
    )  # fmt: skip
    return out


def _tiles(tensor: Tensor, rows: int, columns: int) -> TensorDescriptor:
    return TensorDescriptor.from_tensor(tensor, [rows, columns], _layout(rows, columns))


@cache
def _layout(rows: int, columns: int) -> Any:
    """Of a tile in shared memory, in both half precisions."""
    return gl.NVMMASharedLayout.get_default_for([rows, columns], gl.float16)
