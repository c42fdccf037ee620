"""Memory that a process frees and soon needs again."""

import ctypes
import sys

# Of glibc's mallopt: from how many bytes on a block is mapped and unmapped by itself, and how many
# free bytes at the heap's end go back to the kernel.
_M_MMAP_THRESHOLD, _M_TRIM_THRESHOLD = -3, -1
_MAPPED_FROM_BYTES, _KEPT_BYTES = 256 * 1024**2, 512 * 1024**2


def keep_freed_memory() -> bool:
    """Let glibc hand out again what was freed; returns whether that can be done here.

    Attention over 1,000 tokens takes and frees 80 MB for each layer. Mapped anew each time, every
    page of it costs a fault, which was a quarter of the processor's time of a commit on the CPU.
    """
    if sys.platform != "linux":
        return False
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "mallopt"):
        return False
    return bool(
        libc.mallopt(_M_MMAP_THRESHOLD, _MAPPED_FROM_BYTES)
        and libc.mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
    )
