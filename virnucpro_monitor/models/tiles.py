"""Products of matrices in tiles, for Triton kernels that go on with a tile in registers."""

# ruff: noqa: N803
# mypy: disable-error-code="untyped-decorator,no-untyped-def,no-untyped-call"

from functools import cache

import torch
import triton
import triton.language as tl
from torch import Tensor

ROWS, DEPTH = 128, 64
"""Of a tile."""
SHARED_MEMORY = 227 * 1024
"""Bytes that one program may need: Hopper's."""
OVERLAPPED_PART = 64
"""Columns that `overlapped` stores at once; heads end where they do."""
_MANY_ROWS = 8192


@triton.jit
def place_of_tile(tile, num_rows, num_columns, ROWS: tl.constexpr, COLUMNS: tl.constexpr, GROUP: tl.constexpr):  # fmt: skip  # noqa: E501
    """First row and column of a tile. Tiles go in groups of GROUP rows of tiles, so that a group's
    inputs stay in the L2 cache."""
    tile_rows = tl.cdiv(num_rows, ROWS)
    tile_columns = tl.cdiv(num_columns, COLUMNS)
    group = tile // (GROUP * tile_columns)
    group_rows = min(tile_rows - group * GROUP, GROUP)
    row = (group * GROUP + tile % group_rows) * ROWS
    column = (tile % (GROUP * tile_columns)) // group_rows * COLUMNS
    return row, column


@triton.jit
def product_of_tile(x, weight, row, column, depth, ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr):  # fmt: skip  # noqa: E501
    """[ROWS, COLUMNS] FP32 of x W^T; `x` and `weight` are tensor descriptors."""
    total = tl.zeros((ROWS, COLUMNS), tl.float32)
    for step in range(tl.cdiv(depth, DEPTH)):
        a = x.load([row, step * DEPTH])
        b = weight.load([column, step * DEPTH])
        total = tl.dot(a, b.T, total)
    return total


@triton.jit
def halves(part, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """The left and the right half of the columns; nothing moves between threads."""
    return tl.split(tl.permute(tl.reshape(part, (ROWS, 2, COLUMNS // 2)), (0, 2, 1)))


@cache
def has_tensor_copies(device: torch.device) -> bool:
    """Whether the GPU copies tiles by descriptor, as Hopper and later do, and has room for them.

    Blackwell's cards for workstations do the one, but have less than half the shared memory.
    """
    if device.type == "cpu":  # Triton's interpreter
        return True
    if torch.cuda.get_device_capability(device) < (9, 0):
        return False
    properties = triton.runtime.driver.active.utils.get_device_properties(device.index or 0)
    return int(properties["max_shared_mem"]) >= SHARED_MEMORY


@cache
def can_overlap(device: torch.device) -> bool:
    """Whether `overlapped` runs there: its products are an instruction that Hopper alone has.

    Gluon still changes by the release; the kernel has run with that of Triton 3.6 alone.
    """
    if device.type != "cuda" or not triton.__version__.startswith("3.6."):
        return False
    return torch.cuda.get_device_capability(device)[0] == 9


def gelu_overlaps(x: Tensor) -> bool:
    """Whether `overlapped` multiplies these rows and gives them GELU: 35M's to 650M's.

    8M's products are too short to hide it.
    """
    return _overlaps(x, narrowest=480)


def rotation_overlaps(x: Tensor, num_heads: int) -> bool:
    """Whether `overlapped` multiplies these rows and turns q and k: 8M's, 150M's and 650M's.

    35M's heads are no power of 2 wide.
    """
    width = x.shape[1]
    fits = width % OVERLAPPED_PART == 0 and width in (num_heads * size for size in (16, 32, 64))
    return fits and _overlaps(x, narrowest=320)


def _overlaps(x: Tensor, narrowest: int) -> bool:
    """Whether it was measured, and is ahead (engine.md).

    At 3B, where the card's power is the limit, whole models were 4 % slower. Below 650M the number
    of rows decides nothing: a pack's graph has more of them than the pack by itself, and both give
    the same bits.
    """
    rows, width = x.shape
    enough = rows >= _MANY_ROWS or width < 1280
    return enough and narrowest <= width < 2560 and can_overlap(x.device)


@cache
def num_multiprocessors(device: torch.device) -> int:
    if device.type == "cpu":  # Triton's interpreter
        return 1
    return torch.cuda.get_device_properties(device).multi_processor_count
