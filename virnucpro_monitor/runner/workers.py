"""Measure commits in worker processes: one checkout and one worker for each commit."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

from virnucpro_monitor.disks import explain
from virnucpro_monitor.errors import (
    CardMemoryError,
    ConfigurationError,
    DeviceError,
    DiskError,
    RepositoryError,
)
from virnucpro_monitor.records import RunReport
from virnucpro_monitor.records.progress import OnProgress, Progress, Say
from virnucpro_monitor.runner.ahead import in_turns, places_ahead, recall, remember
from virnucpro_monitor.runner.begun import Begun
from virnucpro_monitor.runner.capacity import GPU_RESERVE_BYTES
from virnucpro_monitor.runner.cards import Card
from virnucpro_monitor.runner.checkout import Repository
from virnucpro_monitor.runner.client import WorkerPool
from virnucpro_monitor.runner.cluster import Cluster
from virnucpro_monitor.runner.cluster_pool import ClusterPool
from virnucpro_monitor.runner.decide import Work
from virnucpro_monitor.runner.dispatch import measure
from virnucpro_monitor.runner.gpu import Glances, Gpu, find_gpu, wait_for_gpu
from virnucpro_monitor.runner.ledger import Ledger
from virnucpro_monitor.runner.plan import RunPlan
from virnucpro_monitor.runner.prepare import Prepared, describe, prepare
from virnucpro_monitor.runner.reports import Unmeasured
from virnucpro_monitor.runner.seats import Seats
from virnucpro_monitor.runner.venv import PrivateEnvironmentError, target_python


def begin_pool(plan: RunPlan) -> WorkerPool:
    """A pool of processes on this host whose server starts now, beside what comes before a job."""
    pool = WorkerPool(fork=plan.fork)
    pool.start()
    return pool


class Workers:
    """The workers with their yardstick, for targets of any interpreter. Threads may share it.

    Args:
        card: that oracles are computed on, and commits that name none.
        cluster: that measures instead of this host; None for none.
        pool: of processes on this host, which stays open; None for a cluster.
        others: cards that stand in for `card` where it is full.
        say: receives a line while all of them are.
    """

    def __init__(
        self,
        plan: RunPlan,
        card: Card,
        cluster: Cluster | None = None,
        pool: WorkerPool | None = None,
        others: Sequence[Card] = (),
        say: Say = lambda _: None,
    ) -> None:
        self._plan = plan
        self._others = others
        self._say = say
        self._given = pool
        self._card = card
        self._cluster = cluster
        self._stack = ExitStack()
        self._opened: WorkerPool | ClusterPool | None = None
        self._ahead: Prepared | None = None
        self._base: Prepared | None = None
        self._private: dict[Path, Prepared] = {}
        self.begun = Begun.of(plan)
        self.seats = Seats(plan, look=Glances(), is_there=self._is_there)
        self._lock = threading.Lock()  # of preparing and of checking out

    def __enter__(self) -> "Workers":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.seats.close()
        self._stack.close()

    def prepared(self, python: Path | None, on_progress: OnProgress) -> Prepared:
        """The yardstick for targets of one interpreter (None: our own), set up where it is not yet.

        Raises:
            MonitorError: it cannot be set up.
        """
        with self._lock:
            if self._base is None:
                self._base = self._set_up(on_progress)
                if self._ahead not in (None, self._base):
                    self.seats.close()  # who stands by was started for something else
            if python is None:
                return self._base
            if python not in self._private:
                self._private[python] = describe(self._plan, self._base, python)
            return self._private[python]

    def _set_up(self, on_progress: OnProgress) -> Prepared:
        """On the first card that has memory for it; where none has, once more when one may have."""
        cards, may_wait = (self._card, *self._others), self._cluster is None
        while True:
            for card in cards:
                try:
                    prepared = prepare(self._plan, self._pool(), card.device, on_progress)
                except CardMemoryError as error:
                    full = error
                else:
                    self._card = card
                    return prepared
            if not may_wait:
                raise full
            may_wait = False
            self.seats.close()
            busy = wait_for_gpu(
                self._plan.request.device,
                limit_s=self._plan.gpu_wait_s,
                needed_bytes=GPU_RESERVE_BYTES,
                look=lambda _: _freest(cards),
                on_wait=self._say,
            )
            if busy is not None:
                raise DeviceError(f"{busy} {full}") from full

    def _pool(self) -> WorkerPool | ClusterPool:
        if self._opened is None:
            if self._cluster is None:
                assert self._given is not None
                self._opened = self._given
            else:
                self._opened = ClusterPool(self._cluster)
                self._stack.callback(self._opened.close)
        return self._opened

    def begin_ahead(
        self, cards: Sequence[Card], num_commits: int, look: Callable[[str], Gpu | None] = find_gpu
    ) -> dict[str, Gpu | None]:
        """Have the first commits' processes start, by what the last start was prepared with.

        Returns:
            This host's cards as they were before, where any did.
        """
        plan, pool = self._plan, self._pool()
        if not plan.standby or not self._card.device.startswith("cuda"):
            return {}
        with self._lock:
            self._ahead = recall(plan, pool, self._card.device)
            if self._ahead is None:
                return {}
            if isinstance(pool, ClusterPool):
                places = in_turns(pool.share_ahead(self._ahead.checkpoint))
                self.seats.begin(
                    self._ahead, places[: min(num_commits, plan.workers or num_commits)]
                )
                return {}
            seen = {card.device: look(card.device) for card in cards}
            checkpoint = Path(self._ahead.checkpoint)
            places = places_ahead(plan, cards, num_commits, checkpoint, seen)
            self.seats.begin(self._ahead, places)
            return seen

    def _is_there(self, card: Card) -> bool:
        return self._cluster is None or self._cluster.has(card)

    def num_held(self, device: str) -> int:
        """How many commits' processes stand by on a device of this host."""
        if self._opened is None or isinstance(self._opened, ClusterPool):
            return 0
        return self._opened.num_held(device)

    def end(self) -> None:
        """End what still runs or stands by, in whatever thread."""
        self.seats.close()
        if self._opened is not None:
            self._opened.close()

    def measure(
        self,
        work: Work,
        ledger: Ledger,
        unmeasured: Unmeasured,
        *,
        on_progress: OnProgress,
        on_nearing_end: Callable[[], None],
        say: Say,
    ) -> Iterator[RunReport]:
        """Measure one commit, whatever its code does.

        Args:
            on_nearing_end: called when the next commit may begin beside what is left of it.

        Raises:
            MonitorError: the yardstick cannot be set up in the commit's interpreter.
        """
        plan = self._plan
        card = work.card or self._card
        device = card.device
        with ExitStack() as stack:
            try:
                stack.enter_context(self.begun.marking(work.commit.hash))
                folder, note, python = plan.cache_folder, "", None
                if plan.repository is not None:
                    with self._lock:
                        folder, note = self._check_out(work.commit.hash, card, stack)
                        python = target_python(plan.target, folder, plan.cache_folder, say)
                prepared = self._prepared_for(python, on_progress).at(card)
            except PrivateEnvironmentError as error:
                yield from unmeasured.failed(work.commit, work.benchmarks, "environment", error)
            except RepositoryError as error:
                yield from unmeasured.failed(work.commit, work.benchmarks, "checkout", error)
            except (OSError, DiskError) as error:
                why = explain(error) if isinstance(error, OSError) else str(error)
                reason = f"The machine failed before this commit could run: {why}"
                yield from unmeasured.not_run(work.commit, work.benchmarks, reason, machine=True)
            else:
                # The next commit's interpreter will be this one's, as far as can be told. Beside a
                # commit that is to be measured by itself nobody gets ready.
                asked = python is not None or work.alone

                def progress(event: Progress) -> None:
                    nonlocal asked
                    if not asked:  # once a commit, when it has loaded: asking a card takes a while
                        asked = True
                        # Elsewhere nothing starts before its time.
                        if device.startswith("cuda"):
                            remember(plan, prepared)
                        self.seats.keep_ready(prepared, card)
                    on_progress(event)

                def nearing_end() -> None:
                    # Who stands by has shown that a card has room for both; a CPU's memory may not.
                    if device.startswith("cuda") and prepared.pool.num_held(device) > 0:
                        on_nearing_end()

                yield from measure(
                    plan,
                    prepared,
                    work,
                    folder,
                    device,
                    configuration=lambda used: ledger.configuration(prepared.weights_name, used),
                    on_progress=progress,
                    on_nearing_end=nearing_end,
                    note=note,
                )

    def _check_out(self, commit: str, card: Card, stack: ExitStack) -> tuple[Path, str]:
        repository = self._plan.repository
        assert repository is not None
        if isinstance(repository, Repository):
            seat = self.seats.take(card, stack)
            return stack.enter_context(repository.checkout(commit, seat))
        return stack.enter_context(repository.checkout(commit))

    def _prepared_for(self, python: Path | None, on_progress: OnProgress) -> Prepared:
        """The yardstick for a commit's own interpreter, which may be the commit's to spoil."""
        try:
            return self.prepared(python, on_progress)
        except ConfigurationError as error:
            if python is None:
                raise
            raise PrivateEnvironmentError(str(error)) from error


def _freest(cards: Sequence[Card]) -> Gpu | None:
    found = [gpu for card in cards if (gpu := find_gpu(card.device)) is not None]
    return max(found, key=lambda gpu: gpu.free_bytes, default=None)
