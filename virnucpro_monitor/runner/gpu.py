"""Ask NVML about GPUs, without making a CUDA context, and wait for a busy one."""

import math
import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from virnucpro_monitor.runner.supervisor import descendants
from virnucpro_monitor.runner.visible import visible_names

GIB = 1024**3


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU as NVML sees it now.

    Attributes:
        processes: ids of the processes that compute on it.
        utilisation: percent of the last sampling period, None where not told.
        process_bytes: memory that each of `processes` holds; empty where that is not told.
    """

    name: str
    driver: str
    total_bytes: int
    free_bytes: int
    processes: tuple[int, ...]
    utilisation: int | None
    process_bytes: tuple[int, ...] = ()

    def why_full(self, room_bytes: int) -> str | None:
        """One clause that says how others keep a commit from its room; None where they don't.

        Who they are can be told only where NVML shows our own processes under our ids.

        Args:
            room_bytes: of memory that a commit is given.
        """
        ours = {os.getpid(), *descendants(os.getpid())}
        if len(self.process_bytes) != len(self.processes) or ours.isdisjoint(self.processes):
            return None
        others_bytes = sum(
            held
            for pid, held in zip(self.processes, self.process_bytes, strict=True)
            if pid not in ours
        )
        if not others_bytes or self.total_bytes - others_bytes >= room_bytes:
            return None
        return (
            f"other processes hold {others_bytes / GIB:.1f} of its {self.total_bytes / GIB:.1f} "
            f"GiB, and a commit is given {room_bytes / GIB:.1f} GiB"
        )

    def why_busy(self, needed_bytes: int, num_processes: int = 0) -> str | None:
        """One clause that says why a run should wait, None where it need not.

        Args:
            num_processes: how many our own are. Those that NVML does not show under our ids are
                taken for as many of the others: in a container it tells the host's ids.
        """
        ours = {os.getpid(), *descendants(os.getpid())}
        num_ours = sum(pid in ours for pid in self.processes)
        num_others = len(self.processes) - max(num_ours, num_processes)
        if num_others > 0:
            noun = "process computes" if num_others == 1 else "processes compute"
            return f"{num_others} other {noun} on it"
        if self.free_bytes < needed_bytes:
            return (
                f"{self.free_bytes / GIB:.1f} GiB of its memory are free, "
                f"{needed_bytes / GIB:.1f} GiB are needed"
            )
        return None


def find_gpu(device: str) -> Gpu | None:
    """The GPU behind `device` ("cuda" or "cuda:N"), None where NVML or the GPU is missing."""
    try:
        import pynvml
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return None
    try:
        handle = _handle(pynvml, int(device.partition(":")[2] or 0))
        memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
        utilisation = None
        with suppress(pynvml.NVMLError):  # not told for a slice of a GPU
            utilisation = int(pynvml.nvmlDeviceGetUtilizationRates(handle).gpu)
        pids, process_bytes = _processes(pynvml, handle)
        return Gpu(
            name=_text(pynvml.nvmlDeviceGetName(handle)),
            driver=_text(pynvml.nvmlSystemGetDriverVersion()),
            total_bytes=int(memory.total),
            free_bytes=int(memory.free),
            processes=pids,
            utilisation=utilisation,
            process_bytes=process_bytes,
        )
    except (pynvml.NVMLError, ValueError):
        return None
    finally:
        pynvml.nvmlShutdown()


class Glances:
    """Looks at cards, at each once in a while: NVML takes longer to answer than a commit to begin.

    Args:
        fresh_s: for so long what was seen of a card is told again.
    """

    def __init__(
        self,
        look: Callable[[str], Gpu | None] = find_gpu,
        fresh_s: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._look = look
        self._fresh_s = fresh_s
        self._clock = clock
        self._seen: dict[str, tuple[float, Gpu | None]] = {}

    def __call__(self, device: str) -> Gpu | None:
        at, gpu = self._seen.get(device, (-math.inf, None))
        if self._clock() - at > self._fresh_s:
            gpu = self._look(device)
            self._seen[device] = self._clock(), gpu
        return gpu

    def forget(self) -> None:
        """Look anew: processes of ours have ended, which would be taken for somebody else's."""
        self._seen.clear()


def count_gpus() -> int:
    """How many GPUs CUDA would see; 0 where NVML is missing."""
    try:
        import pynvml

        pynvml.nvmlInit()
    except ImportError:
        return 0
    except pynvml.NVMLError:
        return 0
    try:
        number = int(pynvml.nvmlDeviceGetCount())
    except pynvml.NVMLError:
        return 0
    finally:
        pynvml.nvmlShutdown()
    names = visible_names()
    return number if names is None else min(number, len(names))


def _handle(pynvml: Any, index: int) -> Any:
    """CUDA counts only the visible GPUs; NVML counts all of them."""
    names = visible_names()
    if names is None:
        return pynvml.nvmlDeviceGetHandleByIndex(index)
    if index >= len(names):
        raise ValueError(f"cuda:{index} is not visible")
    # Behind a name of a card that is not there, CUDA shows none.
    return [_named(pynvml, name) for name in names[: index + 1]][-1]


def _named(pynvml: Any, name: str) -> Any:
    """The GPU that `CUDA_VISIBLE_DEVICES` names so: a UUID may be there by its beginning alone."""
    if name.isdigit():
        return pynvml.nvmlDeviceGetHandleByIndex(int(name))
    with suppress(pynvml.NVMLError):
        return pynvml.nvmlDeviceGetHandleByUUID(name)
    alike = []
    for index in range(pynvml.nvmlDeviceGetCount()):
        with suppress(pynvml.NVMLError):  # one that is lost tells nothing
            handle = pynvml.nvmlDeviceGetHandleByIndex(index)
            if _text(pynvml.nvmlDeviceGetUUID(handle)).startswith(name):
                alike.append(handle)
    if len(alike) != 1:
        raise ValueError(f"{name} names {len(alike)} cards")
    return alike[0]


def _processes(pynvml: Any, handle: Any) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """(ids, bytes that each holds); the latter are empty where one's are not told."""
    with suppress(pynvml.NVMLError):
        found = pynvml.nvmlDeviceGetComputeRunningProcesses(handle)
        held = [getattr(one, "usedGpuMemory", None) for one in found]
        told = tuple(int(one) for one in held if one is not None)
        return tuple(one.pid for one in found), told if len(told) == len(found) else ()
    return (), ()


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


def wait_for_gpu(
    device: str,
    *,
    limit_s: float,
    needed_bytes: int = 0,
    num_processes: int = 0,
    poll_s: float = 15.0,
    look: Callable[[str], Gpu | None] = find_gpu,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
    on_wait: Callable[[str], None] | None = None,
) -> str | None:
    """Wait until the GPU is free, at most `limit_s`; see `Gpu.why_busy`.

    Returns:
        None once it is free (or cannot be asked), otherwise one sentence for a `not_run`.
    """
    end, said = clock() + limit_s, None
    while True:
        gpu = look(device)
        busy = gpu.why_busy(needed_bytes, num_processes) if gpu else None
        if busy is None:
            return None
        remaining = end - clock()
        if remaining <= 0:
            since = f"was busy for {limit_s / 60:.0f} min" if limit_s >= 60 else "is busy"
            return f"The GPU {device} {since}: {busy}."
        if on_wait and busy != said:
            on_wait(f"Waiting for {device}: {busy}.")
            said = busy
        sleep(min(poll_s, remaining))
