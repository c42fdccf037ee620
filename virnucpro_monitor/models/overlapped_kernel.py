"""The kernel of `overlapped`: a product in tiles, one's epilogue beside the next one's product.

Three groups of warps share a multiprocessor. One copies tiles of the inputs into a ring of buffers;
the other two take turns: while one multiplies its tile, the other gives its own the GELU or the
rotation and stores it.

Written in Gluon, which comes with Triton, since Triton's own language cannot say which warps do
what. Blackwell has other instructions for products: it keeps `linear_gelu`'s and `linear_rotate`'s
Triton kernels.
"""

# ruff: noqa: N803
# mypy: disable-error-code="untyped-decorator,no-untyped-def,no-untyped-call"

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import (
    fence_async_shared,
    mbarrier,
    tma,
    warpgroup_mma,
    warpgroup_mma_wait,
)

from virnucpro_monitor.models.kernels import gelu
from virnucpro_monitor.models.tiles import place_of_tile

# Triton 3.6's names, and since 3.8
_load = getattr(tma, "async_load", None) or tma.async_copy_global_to_shared
_store = getattr(tma, "async_store", None) or tma.async_copy_shared_to_global

GELU, ROTATE = range(2)
"""What a tile is given beside its bias."""


@gluon.jit
def _load_tiles(
    x, weight, x_ring, w_ring, full, empty, num_rows, num_columns, depth,
    ROWS: gl.constexpr, COLUMNS: gl.constexpr, DEPTH: gl.constexpr, GROUP: gl.constexpr,
    PROGRAMS: gl.constexpr, STAGES: gl.constexpr,
):  # fmt: skip
    tiles = gl.cdiv(num_rows, ROWS) * gl.cdiv(num_columns, COLUMNS)
    slot = 0
    phase = 1
    for tile in range(gl.program_id(0), tiles, PROGRAMS):
        row, column = place_of_tile(tile, num_rows, num_columns, ROWS, COLUMNS, GROUP)
        for start in range(0, depth, DEPTH):
            mbarrier.wait(empty.index(slot), phase)
            mbarrier.expect(full.index(slot), (ROWS + COLUMNS) * DEPTH * 2)
            _load(x, [row, start], full.index(slot), x_ring.index(slot))
            _load(weight, [column, start], full.index(slot), w_ring.index(slot))
            slot += 1
            if slot == STAGES:
                slot = 0
                phase ^= 1


@gluon.jit
def _before(slot, STAGES: gl.constexpr):
    # Not kept in a variable: Triton's loops lose one that was another's equal before the loop.
    return gl.where(slot == 0, STAGES, slot) - 1


@gluon.jit
def _rotated(
    part, row, column, cos, sin, num_rows, width, scale,
    ROWS: gl.constexpr, COLUMNS: gl.constexpr, HEAD_DIM: gl.constexpr,
):  # fmt: skip
    half: gl.constexpr = HEAD_DIM // 2
    # Both of a pair are in one thread: nothing moves.
    pairs = part.reshape((ROWS, COLUMNS // HEAD_DIM, 2, half)).permute((0, 1, 3, 2))
    a, b = pairs.split()
    table: gl.constexpr = gl.SliceLayout(1, a.type.layout)
    rows = row + gl.arange(0, ROWS, gl.SliceLayout(1, table))
    places = rows[:, None] * half + gl.arange(0, half, gl.SliceLayout(0, table))[None, :]
    turned = (rows < gl.where(column < 2 * width, num_rows, 0))[:, None]
    factor = gl.where(column < width, scale, 1.0)
    c = gl.expand_dims(gl.load(cos + places, turned, other=1.0) * factor, 1)
    s = gl.expand_dims(gl.load(sin + places, turned, other=0.0) * factor, 1)
    pairs = gl.join(a * c - b * s, b * c + a * s).permute((0, 1, 3, 2))
    return gl.convert_layout(pairs.reshape((ROWS, COLUMNS)), part.type.layout)


@gluon.jit
def _finish(
    part, row, column, bias, cos, sin, num_rows, num_columns, width, scale,
    ROWS: gl.constexpr, COLUMNS: gl.constexpr, EPILOGUE: gl.constexpr, HEAD_DIM: gl.constexpr,
):  # fmt: skip
    columns = column + gl.arange(0, COLUMNS, gl.SliceLayout(0, part.type.layout))
    offset = gl.load(bias + columns, columns < num_columns, other=0.0)
    part += offset.to(gl.float32)[None, :]
    if EPILOGUE == 0:
        part = gelu(part)
    if EPILOGUE == 1:
        part = _rotated(
            part, row, column, cos, sin, num_rows, width, scale, ROWS, COLUMNS, HEAD_DIM
        )
    return part


@gluon.jit
def _multiply_tiles(
    out, bias, cos, sin, x_ring, w_ring, buffers, full, empty, turns,
    num_rows, num_columns, depth, width, scale,
    WHICH: gl.constexpr, ROWS: gl.constexpr, COLUMNS: gl.constexpr, PART: gl.constexpr,
    DEPTH: gl.constexpr, GROUP: gl.constexpr, PROGRAMS: gl.constexpr,
    STAGES: gl.constexpr, EPILOGUE: gl.constexpr, HEAD_DIM: gl.constexpr,
):  # fmt: skip
    layout: gl.constexpr = gl.NVMMADistributedLayout(
        version=[3, 0], warps_per_cta=[4, 1], instr_shape=[16, COLUMNS, 16]
    )
    tiles = gl.cdiv(num_rows, ROWS) * gl.cdiv(num_columns, COLUMNS)
    steps = gl.cdiv(depth, DEPTH)
    step = WHICH * steps
    turn = 1 - WHICH
    left_buffer = buffers.index(2 * WHICH)
    right_buffer = buffers.index(2 * WHICH + 1)
    for tile in range(gl.program_id(0) + WHICH * PROGRAMS, tiles, 2 * PROGRAMS):
        row, column = place_of_tile(tile, num_rows, num_columns, ROWS, COLUMNS, GROUP)
        # A barrier tells one phase from the next by its parity alone, so that nobody may wait for
        # a buffer's next filling but one: a group begins when the other has seen all of its own.
        mbarrier.wait(turns.index(WHICH), turn)
        turn ^= 1
        slot = step % STAGES
        phase = step // STAGES & 1
        step += 2 * steps  # the tile between is the other group's
        total = gl.zeros((ROWS, COLUMNS), gl.float32, layout)
        for k in range(steps):
            mbarrier.wait(full.index(slot), phase)
            transposed = w_ring.index(slot).permute((1, 0))
            total = warpgroup_mma(x_ring.index(slot), transposed, total, is_async=True)
            # One step's product stays in flight; the buffers of the step before are free.
            total = warpgroup_mma_wait(num_outstanding=1, deps=(total,))
            mbarrier.arrive(empty.index(_before(slot, STAGES)), count=1, pred=k > 0)
            slot += 1
            if slot == STAGES:
                slot = 0
                phase ^= 1
        mbarrier.arrive(turns.index(1 - WHICH), count=1)
        total = warpgroup_mma_wait(num_outstanding=0, deps=(total,))
        mbarrier.arrive(empty.index(_before(slot, STAGES)), count=1)
        left, right = total.reshape((ROWS, 2, PART)).permute((0, 2, 1)).split()
        left = _finish(
            left, row, column, bias, cos, sin, num_rows, num_columns, width, scale,
            ROWS, PART, EPILOGUE, HEAD_DIM,
        )  # fmt: skip
        tma.store_wait(pendings=0)
        left_buffer.store(left.to(out.dtype))
        fence_async_shared()
        _store(out, [row, column], left_buffer)
        right = _finish(
            right, row, column + PART, bias, cos, sin, num_rows, num_columns, width,
            scale, ROWS, PART, EPILOGUE, HEAD_DIM,
        )  # fmt: skip
        right_buffer.store(right.to(out.dtype))
        fence_async_shared()
        _store(out, [row, column + PART], right_buffer)
    tma.store_wait(pendings=0)


@gluon.jit
def linear_kernel(
    x, weight, out, bias, cos, sin, num_rows, num_columns, depth, width, scale,
    ROWS: gl.constexpr, COLUMNS: gl.constexpr, PART: gl.constexpr, DEPTH: gl.constexpr,
    GROUP: gl.constexpr, PROGRAMS: gl.constexpr, STAGES: gl.constexpr,
    EPILOGUE: gl.constexpr, HEAD_DIM: gl.constexpr,
):  # fmt: skip
    x_ring = gl.allocate_shared_memory(x.dtype, [STAGES, ROWS, DEPTH], x.layout)
    w_ring = gl.allocate_shared_memory(x.dtype, [STAGES, COLUMNS, DEPTH], weight.layout)
    buffers = gl.allocate_shared_memory(x.dtype, [4, ROWS, PART], out.layout)
    full = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    empty = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    turns = gl.allocate_shared_memory(gl.int64, [2, 1], mbarrier.MBarrierLayout())
    for index in gl.static_range(STAGES):
        mbarrier.init(full.index(index), count=1)
        mbarrier.init(empty.index(index), count=1)
    for index in gl.static_range(2):
        mbarrier.init(turns.index(index), count=1)
    fence_async_shared()
    gl.warp_specialize(
        [
            (_multiply_tiles, (
                out, bias, cos, sin, x_ring, w_ring, buffers, full, empty,
                turns, num_rows, num_columns, depth, width, scale,
                0, ROWS, COLUMNS, PART, DEPTH, GROUP, PROGRAMS, STAGES, EPILOGUE, HEAD_DIM,
            )),
            (_multiply_tiles, (
                out, bias, cos, sin, x_ring, w_ring, buffers, full, empty,
                turns, num_rows, num_columns, depth, width, scale,
                1, ROWS, COLUMNS, PART, DEPTH, GROUP, PROGRAMS, STAGES, EPILOGUE, HEAD_DIM,
            )),
            (_load_tiles, (
                x, weight, x_ring, w_ring, full, empty, num_rows, num_columns, depth,
                ROWS, COLUMNS, DEPTH, GROUP, PROGRAMS, STAGES,
            )),
        ],
        [4, 1], [240, 24],  # warps and registers of the second group and of the copying one
    )  # fmt: skip
