"""Seats: empty folders for commits to come, each with processes that stand by for it."""

import threading
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path

from virnucpro_monitor.runner.capacity import needed_gpu_bytes
from virnucpro_monitor.runner.checkout import Repository
from virnucpro_monitor.runner.client import WorkerPool
from virnucpro_monitor.runner.dispatch import measure_job
from virnucpro_monitor.runner.gpu import Gpu, find_gpu
from virnucpro_monitor.runner.plan import RunPlan
from virnucpro_monitor.runner.prepare import Prepared

ROOM = 3  # times what a commit needs: for the present one, the one that stands by, and to spare


class Seats:
    """On a CPU one seat; on a card, if it has room, one for each commit that is measured there.

    Threads may share it.
    """

    def __init__(self, plan: RunPlan, look: Callable[[str], Gpu | None] = find_gpu) -> None:
        self._plan = plan
        self._look = look
        self._lock = threading.Lock()
        self._seats: dict[str, list[tuple[Path, ExitStack]]] = {}
        self.num_to_come = 0  # commits that wait for their turn

    def close(self) -> None:
        """Give all seats up."""
        with self._lock:
            while self._seats:
                for _, own in self._seats.popitem()[1]:
                    own.close()

    def keep_ready(self, prepared: Prepared, device: str) -> None:
        """Have processes stand by for the next commit, if one will come and there is room.

        It is called once by each commit that is measured, so that no more stand by than begin.
        """
        plan, pool = self._plan, prepared.pool
        if not plan.standby or self.num_to_come < 1 or not isinstance(pool, WorkerPool):
            return
        if not isinstance(plan.repository, Repository) or not self._has_room(prepared, device):
            return
        with self._lock, ExitStack() as stack, suppress(OSError):  # a full disk: told where needed
            there = self._seats.setdefault(device, [])
            if sum(map(len, self._seats.values())) >= self.num_to_come:
                return
            if there and not device.startswith("cuda"):
                return
            folder = stack.enter_context(plan.repository.seat())
            pool.hold(measure_job(plan, prepared, folder, device, plan.benchmarks))
            stack.callback(pool.drop, str(folder))
            there.append((folder, stack.pop_all()))

    def take(self, device: str, stack: ExitStack) -> Path | None:
        """The seat of a device, which is now the caller's as long as `stack` lasts; None for none.

        Processes that stand by for it are ended then, if nobody has called them.
        """
        with self._lock:
            there = self._seats.get(device)
            folder, own = there.pop(0) if there else (None, ExitStack())
        stack.push(own)
        return folder

    def _has_room(self, prepared: Prepared, device: str) -> bool:
        if not device.startswith("cuda"):
            return True
        gpu = self._look(device)
        needed_bytes = needed_gpu_bytes(Path(prepared.checkpoint))
        return gpu is not None and gpu.free_bytes >= ROOM * needed_bytes
