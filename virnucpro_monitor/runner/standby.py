"""What a process that stands by does before its commit is named, and how it hears of it.

It loads what no commit can change: the device's start, the kernels that a pass takes, and the
weights' file into memory. Nothing of any commit is there yet, so that a commit finds a process as
fresh as one made for it, but for what the driver has read from the environment by then. A commit
that sets such a variable, as it is imported or loads its model, is measured again in a process of
its own.
"""

import ctypes
import os
import select
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from virnucpro_monitor.records.messages import MeasureJob

NEEDS_FRESH = 67
"""The exit status of a target's process that stood by and must not have."""
_READ_AT_START = ("CUDA", "CUBLAS", "CUDNN", "NVIDIA", "NCCL", "PYTORCH", "TORCH", "LD_")
_READ_LATER = frozenset({"TORCH_HOME"})  # at each use; our own loader sets it for each commit
_MADV_POPULATE_READ = 22  # Linux 5.14


def has_come(go_fd: int) -> bool:
    """Whether the word to go lies in the pipe; a pipe that nobody can write any more says no."""
    return any(event & select.POLLIN for _, event in _poll(go_fd, 0))


def wait_for_go(go_fd: int) -> None:
    """Wait for the word to go, and close the pipe; without that word, end this process."""
    come = any(event & select.POLLIN for _, event in _poll(go_fd, None))
    os.close(go_fd)
    if not come:
        os._exit(0)


def _poll(descriptor: int, timeout_ms: int | None) -> list[tuple[int, int]]:
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return poll.poll(timeout_ms)


def get_ready(job: MeasureJob, go_fd: int) -> None:
    """Start the device, load its kernels, and have the weights' file in memory.

    Kernels are loaded until the word to go comes; the commit loads the others as it needs them.
    """
    import torch

    from virnucpro_monitor.runner.first_passes import run_first_passes
    from virnucpro_monitor.runner.warm import map_checkpoint

    torch.set_num_threads(job.num_threads)
    if job.request.device.startswith("cuda"):
        with suppress(RuntimeError):  # met again once the commit is there, and told then
            torch.cuda.synchronize(job.request.device)  # its context, and no memory
        with suppress(Exception):  # they are loaded when the commit needs them, then
            dtype = getattr(torch, job.request.dtype)
            device = torch.device(job.request.device)
            run_first_passes(job.request.model, device, dtype, lambda: has_come(go_fd))
    if job.warm:
        with suppress(Exception):  # likewise
            for tensor in _tensors(map_checkpoint(Path(job.checkpoint))):
                storage = tensor.untyped_storage()
                _populate(storage.data_ptr(), storage.nbytes())


def _tensors(content: Any) -> Iterator[Any]:
    yield from content["model"].values()


def _populate(address: int, num_bytes: int) -> None:
    """Have a mapped file's pages at hand; where the kernel cannot, they come one by one later."""
    start = address - address % os.sysconf("SC_PAGE_SIZE")
    size = ctypes.c_size_t(address + num_bytes - start)
    ctypes.CDLL(None).madvise(ctypes.c_void_p(start), size, _MADV_POPULATE_READ)


def read_at_start() -> dict[str, str]:
    """The variables that a driver or library reads once, when it starts."""
    return {
        name: value
        for name, value in os.environ.items()
        if name.startswith(_READ_AT_START) and name not in _READ_LATER
    }
