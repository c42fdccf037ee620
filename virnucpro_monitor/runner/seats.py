"""Seats: empty folders for commits to come, each with processes that stand by for it."""

import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

from virnucpro_monitor.runner.capacity import has_room_beside
from virnucpro_monitor.runner.cards import Card
from virnucpro_monitor.runner.checkout import Repository
from virnucpro_monitor.runner.client import WorkerPool
from virnucpro_monitor.runner.cluster_pool import PlacePool
from virnucpro_monitor.runner.dispatch import measure_job
from virnucpro_monitor.runner.gpu import Gpu, find_gpu
from virnucpro_monitor.runner.plan import RunPlan
from virnucpro_monitor.runner.prepare import Prepared


class Seats:
    """On a CPU one seat; on a card, as far as it has room, two beyond the commit that comes next.

    Threads may share it.

    Args:
        look: at a card, before processes stand by on it; NVML waits while others start CUDA.
        is_there: whether a card still is; a cluster's may leave with its worker.
    """

    def __init__(
        self,
        plan: RunPlan,
        look: Callable[[str], Gpu | None] = find_gpu,
        is_there: Callable[[Card], bool] = lambda _: True,
    ) -> None:
        self._plan = plan
        self._is_there = is_there
        self._look = look
        self._lock = threading.Lock()
        self._seats: dict[Card, list[tuple[Path, ExitStack]]] = {}
        self.num_to_come = 0  # commits that wait for their turn

    def close(self) -> None:
        """Give all seats up."""
        with self._lock:
            while self._seats:
                for _, own in self._seats.popitem()[1]:
                    own.close()

    def begin(self, prepared: Prepared, cards: Sequence[Card]) -> None:
        """Have processes stand by for the commits that begin first: the card of each."""
        repository = self._plan.repository
        with self._lock, suppress(OSError):  # a full disk: told where it is needed
            for card in cards:
                pool = prepared.at(card).pool
                if isinstance(repository, Repository) and isinstance(pool, WorkerPool | PlacePool):
                    seat = self._seat(prepared, repository, pool, card.device)
                    self._seats.setdefault(card, []).append(seat)

    def keep_ready(self, prepared: Prepared, card: Card) -> None:
        """Have processes stand by for the next commit, if one will come and there is room.

        It is called once by each commit that is measured.
        """
        plan, pool = self._plan, prepared.pool
        if not plan.standby or self.num_to_come < 1:
            return
        if not isinstance(pool, WorkerPool | PlacePool):
            return
        if not isinstance(plan.repository, Repository):
            return
        on_card = card.device.startswith("cuda")
        with self._lock, suppress(OSError):  # a full disk: told where it is needed
            for gone in [one for one in self._seats if not self._is_there(one)]:
                for _, own in self._seats.pop(gone):
                    own.close()
            there = self._seats.setdefault(card, [])
            # To get ready takes a card about twice as long as a commit takes from the last one. So
            # two are ahead of the one that comes next, and each commit that begins adds another.
            wanted = (2 if len(there) < 2 else 1) if on_card else 1 - len(there)
            for _ in range(wanted):
                if sum(map(len, self._seats.values())) >= self.num_to_come:
                    return
                if not self._has_room(prepared, card):
                    return
                there.append(self._seat(prepared, plan.repository, pool, card.device))

    def _seat(
        self, prepared: Prepared, repository: Repository, pool: WorkerPool | PlacePool, device: str
    ) -> tuple[Path, ExitStack]:
        with ExitStack() as stack:
            folder = stack.enter_context(repository.seat())
            pool.hold(measure_job(self._plan, prepared, folder, device, self._plan.benchmarks))
            stack.callback(pool.drop, str(folder))
            return folder, stack.pop_all()

    def take(self, card: Card, stack: ExitStack) -> Path | None:
        """The seat of a card, which is now the caller's as long as `stack` lasts; None for none.

        Processes that stand by for it are ended then, if nobody has called them.
        """
        with self._lock:
            there = self._seats.get(card)
            folder, own = there.pop(0) if there else (None, ExitStack())
        stack.push(own)
        return folder

    def _has_room(self, prepared: Prepared, card: Card) -> bool:
        if card.worker or not card.device.startswith("cuda"):
            return True  # a Dask worker looks for itself
        return has_room_beside(self._look(card.device), Path(prepared.checkpoint))
