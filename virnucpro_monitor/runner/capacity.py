"""How much is measured at once, and whether the next commit may still begin."""

import os
import time
from collections.abc import Callable
from pathlib import Path

from virnucpro_monitor.runner.gpu import Gpu, find_gpu, wait_for_gpu
from virnucpro_monitor.runner.plan import RunPlan
from virnucpro_monitor.runner.progress import Say

MAX_ON_GPU = 4
GPU_RESERVE_BYTES = 2 * 1024**3  # CUDA itself, and the activations of a pack


class Capacity:
    """Room for a plan's commits. The clock of `max_minutes` runs from its making.

    Args:
        checkpoint: its size tells how much GPU memory one commit takes.
        say: receives lines while a busy GPU is waited for.
    """

    def __init__(self, plan: RunPlan, num_commits: int, checkpoint: Path, say: Say) -> None:
        self._plan = plan
        self._say = say
        self._needed_bytes = needed_gpu_bytes(checkpoint)
        self._end = None if plan.max_minutes is None else time.monotonic() + plan.max_minutes * 60
        self._reason: str | None = None
        self.num_workers = count_workers(plan, num_commits, self._needed_bytes)

    def why_not(self, num_active: int) -> str | None:
        """Why the next commit waits for another start, None where it may begin.

        A reason once found stays.

        Args:
            num_active: commits that are being measured.
        """
        if self._reason is None and self._end is not None and time.monotonic() > self._end:
            minutes = self._plan.max_minutes
            self._reason = f"The limit of {minutes:g} min was reached before this commit."
        if self._reason is None and self._plan.request.device.startswith("cuda"):
            self._reason = wait_for_gpu(
                self._plan.request.device,
                limit_s=self._plan.gpu_wait_s,
                needed_bytes=self._needed_bytes,
                num_jobs=num_active,
                on_wait=self._say,
            )
        return self._reason


def count_workers(
    plan: RunPlan,
    num_commits: int,
    needed_bytes: int = 0,
    look: Callable[[str], Gpu | None] = find_gpu,
) -> int:
    """How many commits to measure at once: on the CPU as many as have threads of their own.

    A GPU stands idle for most of a commit's time, while a process starts, loads its model and
    launches short kernels, so it takes several, as far as they have memory to spare.

    Args:
        needed_bytes: of GPU memory for one commit.
    """
    count = plan.workers
    if count is None:
        cores = os.cpu_count() or 1
        count = cores // plan.num_threads
        if plan.request.device.startswith("cuda"):
            gpu = look(plan.request.device)
            room = gpu.free_bytes // max(1, 4 * needed_bytes) if gpu else 1
            count = min(MAX_ON_GPU, cores // 2, room)
    return max(1, min(count, num_commits))


def needed_gpu_bytes(checkpoint: Path) -> int:
    """A cautious guess at the GPU memory that one run takes: its weights, and some more."""
    return checkpoint.stat().st_size + GPU_RESERVE_BYTES
