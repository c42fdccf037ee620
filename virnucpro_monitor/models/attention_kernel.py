"""Attention inside each sequence of a pack, as one Triton kernel.

The rows of weights are summed by the tensor cores: the same rounded weights that the values are
mixed with, times a matrix of ones. That takes an addition an element and the exchange between
threads off the pipes that set the pace, and makes the weights add up to one. Its plain twin is
`packed_attention`'s "sdpa".
"""

# ruff: noqa: N803
# mypy: disable-error-code="untyped-decorator,no-untyped-def,no-untyped-call"

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

_ONES = 8  # columns of ones: the fewest that a product takes
_HOPPER = (9, 0)


@dataclass(frozen=True)
class Tiling:
    """How the work is cut, for one size of heads.

    Attributes:
        queries: of one head that one program holds.
        keys: taken in one step.
        max_registers: of a thread, so that one program more fits a multiprocessor of Hopper.
    """

    queries: int = 64
    keys: int = 64
    num_warps: int = 4
    max_registers: int | None = None


# The fastest of those measured on an H200 (see tests/benchmarks/engine.md).
_TILINGS = {
    16: Tiling(max_registers=80),
    24: Tiling(queries=128, max_registers=128),
    32: Tiling(max_registers=80),
    64: Tiling(),
}
_OTHER_TILING = Tiling(keys=32, num_warps=8)


def tiling_of(head_dim: int) -> Tiling:
    return _TILINGS.get(head_dim, _OTHER_TILING)


@triton.jit
def _attention_kernel(
    q, k, v, out, blocks,
    STRIDE_Q: tl.constexpr, STRIDE_K: tl.constexpr, STRIDE_V: tl.constexpr,
    HEADS: tl.constexpr, HEAD_DIM: tl.constexpr, COLUMNS: tl.constexpr,
    QUERIES: tl.constexpr, KEYS: tl.constexpr, ONES: tl.constexpr,
):  # fmt: skip
    log2_e: tl.constexpr = 1.4426950408889634
    # Programs that run together take all heads of few sequences, whose rows lie side by side.
    block, head = tl.program_id(0) // HEADS, tl.program_id(0) % HEADS
    num_blocks = tl.num_programs(0) // HEADS
    begin = tl.load(blocks + block).to(tl.int64)
    length = tl.load(blocks + num_blocks + block)
    if length > 0:
        rows = tl.load(blocks + 2 * num_blocks + block) + tl.arange(0, QUERIES)
        columns = tl.arange(0, COLUMNS)
        inside = columns < HEAD_DIM
        mask = (rows < length)[:, None] & inside[None, :]
        places = q + begin * STRIDE_Q + head * HEAD_DIM
        places = places + (rows[:, None] * STRIDE_Q + columns[None, :])
        queries = tl.load(places, mask, other=0.0)
        key = k + begin * STRIDE_K + head * HEAD_DIM
        value = v + begin * STRIDE_V + head * HEAD_DIM
        # Online softmax, in powers of 2: every column of `total` holds the same sum.
        top = tl.full([QUERIES], float("-inf"), tl.float32)
        total = tl.zeros([QUERIES, ONES], tl.float32)
        mixed = tl.zeros([QUERIES, COLUMNS], tl.float32)
        for start in tl.range(0, length, KEYS):
            keys = start + tl.arange(0, KEYS)
            # [columns, keys]: the transpose that the product wants
            k_places = key + (keys[None, :] * STRIDE_K + columns[:, None])
            v_places = value + (keys[:, None] * STRIDE_V + columns[None, :])
            # Keys past the end belong to a neighbour: they are not even read, because 0 x NaN
            # would bring in what a weight of 0 keeps out.
            known = keys < length
            if HEAD_DIM == COLUMNS:
                k_block = tl.load(k_places, known[None, :], other=0.0)
                v_block = tl.load(v_places, known[:, None], other=0.0)
            else:
                k_block = tl.load(k_places, inside[:, None] & known[None, :], other=0.0)
                v_block = tl.load(v_places, known[:, None] & inside[None, :], other=0.0)
            scores = tl.dot(queries, k_block)
            if start + KEYS > length:
                scores = tl.where(known[None, :], scores, float("-inf"))
            new_top = tl.maximum(top, tl.max(scores, axis=1) * log2_e)
            weights = tl.exp2(scores * log2_e - new_top[:, None]).to(v_block.dtype)
            shrink = tl.exp2(top - new_top)[:, None]
            ones = tl.full([KEYS, ONES], 1.0, v_block.dtype)
            total = tl.dot(weights, ones, total * shrink)
            mixed = tl.dot(weights, v_block, mixed * shrink)
            top = new_top
        mixed = mixed * (ONES / tl.sum(total, axis=1))[:, None]
        places = out + begin * (HEADS * HEAD_DIM) + head * HEAD_DIM
        places = places + (rows[:, None] * (HEADS * HEAD_DIM) + columns[None, :])
        tl.store(places, mixed.to(out.dtype.element_ty), mask)


def query_blocks(cu_seqlens: Tensor, num_tokens: int, size: int) -> Tensor:
    """Cut each sequence into blocks of `size` queries, without waiting for the device.

    Returns:
        [3, blocks] int32: where the block's sequence begins, its length, and the block's first
        query in it. There are as many blocks as there might be; those not needed have length 0.
    """
    lengths = cu_seqlens.diff()
    counts = (lengths + (size - 1)) // size
    ends = counts.cumsum(0)
    num_sequences = counts.numel()
    blocks = torch.arange(num_tokens // size + num_sequences, device=cu_seqlens.device)
    sequence = torch.searchsorted(ends, blocks, right=True).clamp(max=num_sequences - 1)
    start = (blocks - (ends - counts)[sequence]) * size
    length = torch.where(blocks < ends[-1], lengths[sequence], 0)
    return torch.stack((cu_seqlens[sequence], length, start)).int()


def attention(q: Tensor, k: Tensor, v: Tensor, blocks: Tensor) -> Tensor:
    """Softmax attention inside each sequence of a pack.

    Args:
        q, k, v: [tokens, heads, head_dim], the last two axes contiguous; q comes scaled.
        blocks: of `query_blocks`, for the `queries` of `tiling_of(head_dim)`.

    Returns:
        [tokens, heads, head_dim]
    """
    _, heads, head_dim = q.shape
    out = torch.empty(q.shape, dtype=q.dtype, device=q.device)
    tiling = tiling_of(head_dim)
    on_hopper = q.is_cuda and torch.cuda.get_device_capability(q.device) == _HOPPER
    _attention_kernel[(blocks.shape[1] * heads,)](
        q, k, v, out, blocks,
        STRIDE_Q=q.stride(0), STRIDE_K=k.stride(0), STRIDE_V=v.stride(0),
        HEADS=heads, HEAD_DIM=head_dim, COLUMNS=max(16, triton.next_power_of_2(head_dim)),
        QUERIES=tiling.queries, KEYS=tiling.keys, ONES=_ONES,
        num_warps=tiling.num_warps, num_stages=3,
        maxnreg=tiling.max_registers if on_hopper else None,
    )  # fmt: skip
    return out
