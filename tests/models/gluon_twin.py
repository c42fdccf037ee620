"""Gluon on the CPU, as far as `overlapped_kernel` goes: a thread for each group of warps.

Triton's interpreter runs no Gluon. Here barriers count arrivals and bytes and tell phases by
parity, copies come by descriptor with zeros beyond the edge, and layouts are nothing at all; so
what is tested is who waits for whom, and what is computed, and not what a compiler makes of it.
"""

import importlib.util
import math
import sys
import threading
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np

_KERNEL = Path(__file__).parents[2] / "virnucpro_monitor" / "models" / "overlapped_kernel.py"
_LONGEST_WAIT_S = 10.0


class Values(np.ndarray[Any, Any]):
    """What a group holds in registers."""

    @property
    def type(self) -> SimpleNamespace:
        return SimpleNamespace(layout=None)

    def permute(self, order: tuple[int, ...]) -> Any:
        return self.transpose(order)

    def split(self) -> tuple[Any, Any]:
        return self[..., 0], self[..., 1]

    def to(self, dtype: Any) -> Any:
        return self.astype(dtype)


def _values(array: Any) -> Any:
    return np.asarray(array).view(Values)


class Pointer:
    def __init__(self, array: Any, places: Any = 0) -> None:
        self.array, self.places = array, places

    def __add__(self, places: Any) -> "Pointer":
        return Pointer(self.array, self.places + np.asarray(places))


class Barrier:
    def __init__(self) -> None:
        self.changed = threading.Condition()

    def init(self, count: int) -> None:
        self.count = self.pending = count
        self.bytes = self.phase = 0

    def note(self, arrivals: int, expected_bytes: int) -> None:
        with self.changed:
            self.pending -= arrivals
            self.bytes += expected_bytes
            assert self.pending >= 0
            if self.pending == self.bytes == 0:
                self.phase ^= 1
                self.pending = self.count
                self.changed.notify_all()

    def wait(self, parity: int) -> None:
        with self.changed:
            over = self.changed.wait_for(lambda: self.phase != int(parity), _LONGEST_WAIT_S)
            assert over, "waits for ever"


class Shared:
    """Shared memory: an array, or barriers."""

    layout = None

    def __init__(self, content: Any) -> None:
        self.content = content

    def index(self, place: Any) -> Any:
        assert 0 <= place < len(self.content)
        found = self.content[int(place)]
        return found if isinstance(found, Barrier) else Shared(found)

    def permute(self, order: tuple[int, ...]) -> "Shared":
        return Shared(self.content.transpose(order))

    def store(self, values: Any) -> None:
        assert values.shape == self.content.shape
        self.content[...] = values


class Descriptor:
    layout = None

    def __init__(self, array: Any, *shape: int) -> None:
        self.array, self.shape, self.dtype = array, shape, array.dtype

    def part(self, place: list[Any]) -> Any:
        (row, column), (rows, columns) = map(int, place), self.shape
        return self.array[row : row + rows, column : column + columns]


def _copy_in(source: Descriptor, place: list[Any], barrier: Barrier, target: Shared) -> None:
    assert target.content.shape == source.shape
    part = source.part(place)
    target.content[...] = 0
    target.content[: part.shape[0], : part.shape[1]] = part
    barrier.note(0, -target.content.nbytes)


def _copy_out(target: Descriptor, place: list[Any], source: Shared) -> None:
    part = target.part(place)
    part[...] = source.content[: part.shape[0], : part.shape[1]]


def _load(pointer: Pointer, mask: Any, other: float) -> Any:
    places = np.asarray(pointer.places)
    mask = np.broadcast_to(mask, places.shape)
    known = pointer.array[np.where(mask, places, 0)]
    assert bool(((places >= 0) & (places < len(pointer.array)))[mask].all())
    return _values(np.where(mask, known, other).astype(np.float32))


def _where(condition: Any, yes: Any, no: Any) -> Any:
    found = np.where(condition, yes, no)
    return _values(found) if found.ndim else found[()]


def _allocate(dtype: Any, shape: list[int], layout: Any) -> Shared:
    if layout == "barriers":
        return Shared([Barrier() for _ in range(shape[0])])
    return Shared(np.full(shape, np.nan, dtype))  # what is read before it is written shows


def _specialize(groups: list[tuple[Any, tuple[Any, ...]]], *resources: list[int]) -> None:
    failures: list[BaseException] = []

    def run(function: Any, arguments: tuple[Any, ...]) -> None:
        try:
            function(*arguments)
        except BaseException as failure:
            failures.append(failure)

    threads = [threading.Thread(target=run, args=group) for group in groups]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


def _multiply(x: Shared, weight: Shared, total: Any, *, is_async: bool) -> Any:
    return _values(total + x.content.astype(np.float32) @ weight.content.astype(np.float32))


def _place_of_tile(tile: int, num_rows: int, num_columns: int, *sizes: int) -> tuple[int, int]:
    """Any order will do that is the same to all three groups."""
    rows, columns, _ = sizes
    tile_columns = -(-num_columns // columns)
    return tile // tile_columns * rows, tile % tile_columns * columns


def _gelu(x: Any) -> Any:
    return _values(x * 0.5 * (1 + np.vectorize(math.erf)(np.asarray(x) / 2**0.5)))


class Twin:
    """`linear_kernel` for programs one after the other."""

    def __init__(self) -> None:
        self._program = 0
        language = SimpleNamespace(
            constexpr=None, float32=np.float32, int64=np.int64, static_range=range,
            cdiv=lambda a, b: -(-a // b), program_id=lambda axis: self._program,
            NVMMADistributedLayout=lambda **_: None, SliceLayout=lambda *_: None,
            arange=lambda first, end, layout: _values(np.arange(first, end)),
            zeros=lambda shape, dtype, layout: _values(np.zeros(shape, dtype)),
            load=lambda pointer, mask, other: _load(pointer, mask, other), where=_where,
            expand_dims=lambda values, axis: _values(np.expand_dims(values, axis)),
            join=lambda a, b: _values(np.stack(np.broadcast_arrays(a, b), -1)),
            convert_layout=lambda values, layout: values,
            allocate_shared_memory=_allocate, warp_specialize=_specialize,
        )  # fmt: skip
        hopper = ModuleType("hopper")
        hopper.__dict__.update(
            fence_async_shared=lambda: None,
            mbarrier=SimpleNamespace(
                MBarrierLayout=lambda: "barriers",
                init=lambda barrier, count: barrier.init(count),
                expect=lambda barrier, size: barrier.note(1, size),
                arrive=lambda barrier, count, pred=True: barrier.note(count if pred else 0, 0),
                wait=lambda barrier, phase: barrier.wait(phase),
            ),
            tma=SimpleNamespace(
                async_load=_copy_in, async_store=_copy_out, store_wait=lambda pendings: None
            ),
            warpgroup_mma=_multiply,
            warpgroup_mma_wait=lambda num_outstanding, deps: deps if len(deps) > 1 else deps[0],
        )
        gluon = ModuleType("gluon")
        gluon.__dict__.update(jit=lambda function: function, language=language)
        experimental = ModuleType("experimental")
        experimental.__dict__.update(gluon=gluon)
        kernels, tiles = ModuleType("kernels"), ModuleType("tiles")
        kernels.__dict__.update(gelu=_gelu)
        tiles.__dict__.update(place_of_tile=_place_of_tile)
        names = {
            "triton.experimental": experimental,
            "triton.experimental.gluon": gluon,
            "triton.experimental.gluon.language.nvidia.hopper": hopper,
            "virnucpro_monitor.models.kernels": kernels,
            "virnucpro_monitor.models.tiles": tiles,
        }
        spec = importlib.util.spec_from_file_location("overlapped_twin", _KERNEL)
        assert spec is not None
        assert spec.loader is not None
        self._module = importlib.util.module_from_spec(spec)
        with patch.dict(sys.modules, names):
            spec.loader.exec_module(self._module)

    def run(
        self, x: Any, weight: Any, out: Any, bias: Any, tables: tuple[Any, Any], *,
        epilogue: int, stages: int, head_dim: int, programs: int,
    ) -> None:  # fmt: skip
        (rows, depth), columns = x.shape, len(weight)
        cos, sin = (Pointer(table.ravel()) for table in tables)
        for self._program in range(programs):
            self._module.linear_kernel(
                Descriptor(x, 128, 64), Descriptor(weight, 128, 64), Descriptor(out, 128, 64),
                Pointer(bias), cos, sin, rows, columns, depth, columns // 3, head_dim**-0.5,
                128, 128, 64, 64, 8, programs, stages, epilogue, head_dim,
            )  # fmt: skip
