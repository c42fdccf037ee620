"""Memory that nobody wrote, made visible.

A kernel that leaves rows unwritten shows whatever lay there, which is often the right answer of the
pass before. So packed passes run where fresh memory holds NaN.

On a GPU, PyTorch's allocator hands out again what was freed: every free block that it holds is
taken, filled with NaN and given back. On the CPU, glibc fills each allocation with a byte of one's
choice; PyTorch's own switch for that (`fill_uninitialized_memory`) reaches `torch.empty` alone, and
only together with other, deterministic algorithms.
"""

import ctypes
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache

import torch

# glibc's mallopt(M_PERTURB): allocated bytes become the complement of the value's low byte: 0xFF,
# which is NaN in every floating-point format, or 0x00. The value itself must not be 0, which is
# off.
_M_PERTURB = -6
_NAN_BYTES, _ZERO_BYTES = 0x100, 0x1FF
_SMALL_BYTES = 1 << 20  # the GPU allocator serves what is larger from other segments


_told: Callable[[str], bool] | None = None


@contextmanager
def filled_elsewhere(tell: Callable[[str], bool]) -> Iterator[None]:
    """Within the block, the passes run in another process, and it is that one's memory that counts.

    Args:
        tell: called with "nan", "zeros" or "" (as it comes); returns whether that can be done.
    """
    global _told
    before, _told = _told, tell
    try:
        yield
    finally:
        _told = before


def filled(device: torch.device, fill: str) -> AbstractContextManager[bool]:
    """`poisoned` for "nan", `zeroed` for "zeros", and memory as it comes for anything else."""
    if fill not in ("nan", "zeros"):
        return nullcontext(False)
    return poisoned(device) if fill == "nan" else zeroed(device)


def poisoned(device: torch.device) -> AbstractContextManager[bool]:
    """Within the block, memory that is not written first holds NaN.

    The context is whether that can be done here; on a CPU it takes glibc.
    """
    return _filled(device, "nan", float("nan"), _NAN_BYTES)


def zeroed(device: torch.device) -> AbstractContextManager[bool]:
    """Within the block, memory that is not written first holds zeros, as `poisoned` has NaN."""
    return _filled(device, "zeros", 0.0, _ZERO_BYTES)


@contextmanager
def _filled(device: torch.device, fill: str, value: float, code: int) -> Iterator[bool]:
    if _told is not None:
        possible = _told(fill)
        try:
            yield possible
        finally:
            _told("")
        return
    if device.type == "cuda":
        _fill_free_blocks(device, value)
        yield True
        return
    if device.type != "cpu" or not _can_perturb():
        yield False
        return
    libc = ctypes.CDLL(None)
    libc.mallopt(_M_PERTURB, code)
    try:
        yield True
    finally:
        libc.mallopt(_M_PERTURB, 0)


@cache
def _can_perturb() -> bool:
    """Whether `torch.empty` shows NaN after all."""
    if sys.platform != "linux":
        return False
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "mallopt") or not libc.mallopt(_M_PERTURB, _NAN_BYTES):
        return False
    try:
        return bool(torch.empty(4096).isnan().all())
    finally:
        libc.mallopt(_M_PERTURB, 0)


def _fill_free_blocks(device: torch.device, value: float) -> None:
    """Fill every block that the caching allocator holds free, and give it back.

    Asking for exactly the sizes that are free takes these blocks and none from the driver.
    """
    held: list[torch.Tensor] = []
    try:
        for size in sorted(_free_block_bytes(device), reverse=True):
            held.append(torch.full((size // 4,), value, dtype=torch.float32, device=device))
    except torch.OutOfMemoryError:
        pass  # then nothing of that size is free any more


def _free_block_bytes(device: torch.device) -> Iterator[int]:
    """Sizes that take all the free blocks from which the present stream may be served."""
    stream = torch.cuda.current_stream(device).cuda_stream
    for segment in torch.cuda.memory_snapshot():  # type: ignore[no-untyped-call]
        usable = segment["device"] == (device.index or 0) and segment["stream"] == stream
        if not usable or tuple(segment.get("segment_pool_id", (0, 0))) != (0, 0):
            continue
        for block in segment["blocks"]:
            left = block["size"] if block["state"] == "inactive" else 0
            # A large piece of a small segment would be asked of the large ones.
            most = _SMALL_BYTES if segment["segment_type"] == "small" else left
            while left > 0:
                yield min(left, most)
                left -= min(left, most)
