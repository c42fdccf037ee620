"""Run a plan: every commit in its own process, reports in the plan's order.

Decider     what is known, inherited or to be measured          (decide, ledger, code_digest)
OnceMore    what is measured a second time                      (once_more)
Capacity    how much at once, and whether there is time left    (capacity)
Crew        threads that measure, each through a worker process (crew, workers, dispatch)
Turns       reports in the plan's order                         (releasing)
Holding     ... once they know their backend
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from types import TracebackType

from virnucpro_monitor.records import Commit, Run, RunReport
from virnucpro_monitor.records.progress import OnProgress, Progress, Say
from virnucpro_monitor.runner.blame import Strikes
from virnucpro_monitor.runner.branches import with_branches
from virnucpro_monitor.runner.capacity import Capacity
from virnucpro_monitor.runner.cards import Card, find_cards
from virnucpro_monitor.runner.client import WorkerPool
from virnucpro_monitor.runner.cluster import Cluster, OnHosts
from virnucpro_monitor.runner.crew import Crew, Finished, LeavesPlace
from virnucpro_monitor.runner.decide import Decider, Work
from virnucpro_monitor.runner.gpu import Glances, Gpu, find_gpu
from virnucpro_monitor.runner.ledger import Ledger
from virnucpro_monitor.runner.once_more import OnceMore
from virnucpro_monitor.runner.plan import RunPlan
from virnucpro_monitor.runner.releasing import Holding, Turns
from virnucpro_monitor.runner.workers import Workers, begin_pool

LAST_ROUNDS = 2  # of commits, in which the longest begin first


def run_commits(
    plan: RunPlan,
    *,
    known: Iterable[Run] = (),
    on_progress: OnProgress | None = None,
    on_message: Say | None = None,
    on_settled: Callable[[Run], None] | None = None,
    pool: WorkerPool | None = None,
    on_hosts: OnHosts | None = None,
) -> Iterator[RunReport]:
    """Cover the plan's commits and yield one report for each commit and benchmark set.

    A commit that `known` holds already, under the same protocol, weights, configuration and
    environment, is passed over; one whose relevant files equal those of a measured commit inherits
    its result. Whatever a commit's own code does becomes the outcome of that commit. Several
    commits may be measured at once; their reports still come in the plan's order, so that a start
    that is cut short leaves no gap.

    Args:
        known: this target's stored runs, oldest first.
        on_message: receives lines for a person (waiting, environment changed, …).
        on_settled: receives each known run that made measuring needless.
        pool: of processes on this host, perhaps started already, for the caller to close. Of one
            target: what it imports for that one is told of every run.
        on_hosts: receives, in any thread, where a cluster measures now; called every few seconds.

    Raises:
        MonitorError: the yardstick itself cannot be set up (weights, device, benchmark).
    """
    with CommitRunner(
        plan,
        known=known,
        on_progress=on_progress,
        on_message=on_message,
        on_settled=on_settled,
        pool=pool,
        on_hosts=on_hosts,
    ) as runner:
        yield from runner.cover(plan.commits)


class CommitRunner:
    """Covers commits of a plan, as often as asked, with the same warm workers.

    The arguments are those of `run_commits`.
    """

    def __init__(
        self,
        plan: RunPlan,
        *,
        known: Iterable[Run] = (),
        on_progress: OnProgress | None = None,
        on_message: Say | None = None,
        on_settled: Callable[[Run], None] | None = None,
        pool: WorkerPool | None = None,
        on_hosts: OnHosts | None = None,
    ) -> None:
        self._plan = plan
        self._on_hosts = on_hosts or (lambda _: None)
        self._known = tuple(known)
        self._pool = pool
        self._glances = Glances()
        self._stack = ExitStack()
        self._on_progress = on_progress or (lambda _: None)
        self._say = on_message or (lambda _: None)
        self._on_settled = on_settled or (lambda _: None)

    def __enter__(self) -> "CommitRunner":
        plan = self._plan
        with ExitStack() as stack:
            self._cluster = (
                stack.enter_context(closing(Cluster(plan, self._say, self._on_hosts)))
                if plan.engine == "dask"
                else None
            )
            pool = self._pool
            if pool is None and self._cluster is None:
                pool = stack.enter_context(begin_pool(plan))  # before cards are asked, which lasts
            self._cards = (
                find_cards(plan.request.device, self._say)
                if self._cluster is None
                else (Card(0, plan.request.device),)  # which of its cards is the cluster's affair
            )
            first, *others = self._cards
            self._workers = stack.enter_context(
                Workers(plan, first, self._cluster, pool, others, self._say)
            )
            self._seen = self._begin_ahead()
            base = self._workers.prepared(None, self._on_progress)
            self._ledger = Ledger(self._known, plan.request, base.weights_digest, plan.protocol)
            begun = self._workers.begun
            self._decider = Decider(plan, self._ledger, base, self._on_settled, begun)
            self._holding = Holding(self._ledger, plan.request.backend)
            self._strikes = Strikes()
            self._once_more = OnceMore(self._ledger, self._say, confirm=plan.confirm)
            self._checkpoint = Path(base.checkpoint)
            self._stack = stack.pop_all()
        return self

    def _begin_ahead(self) -> dict[str, Gpu | None]:
        """Let a card start beside all that is still to be made ready."""
        known = set() if self._plan.force else {run.commit.hash for run in self._known}
        num_commits = sum(commit.hash not in known for commit in self._plan.commits)
        return self._workers.begin_ahead(self._cards, num_commits)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    def cover(self, commits: Sequence[Commit]) -> Iterator[RunReport]:
        """Yield the reports of these commits (oldest first), in the plan's order."""
        for report in self._cover(self._decider.todo(commits)):
            yield with_branches(report, self._plan.repository)

    def _cover(self, todo: list[Work]) -> Iterator[RunReport]:
        if not todo:
            return
        for report in self._bridge():
            yield from self._holding.take(report)
        capacity = self._capacity(len(todo))
        # Gaps must not go unnoticed where a start that goes back and forth is cut short.
        announced = self._plan.order == "oldest"
        for turn, report in self._in_turn(todo, capacity):
            yield from self._holding.take(report)
            if not announced and self._ledger.backend_known:
                announced = True
                for work in todo[turn + 1 :]:
                    yield from self._decider.unmeasured.not_run(
                        work.commit, work.benchmarks, "Planned, but not reached yet."
                    )
        yield from self._holding.empty()

    def _capacity(self, num_commits: int) -> Capacity:
        if self._cluster is None:
            return Capacity(
                self._plan, self._cards, num_commits, self._checkpoint, self._say,
                look=self._glances,
                held=self._workers.num_held,
                give_way=self._give_way,
                before=lambda device: self._seen.pop(device, None) or find_gpu(device),
            )  # fmt: skip
        plan = replace(self._plan, workers=self._plan.workers or num_commits)
        return Capacity(
            plan, self._cards, num_commits, None, self._say,
            look=lambda _: None,
            share=self._cluster.share,
        )  # fmt: skip

    def _give_way(self) -> None:
        self._workers.seats.close()
        self._glances.forget()

    def _bridge(self) -> Iterator[RunReport]:
        """Measure the last commit again where the environment has changed since."""
        for work in self._decider.bridges():
            self._say(f"The environment has changed: measuring {work.commit.short} again first.")
            left: Work | None = work
            while left is not None:
                for report in self._measure(left, self._on_progress, lambda: None, self._say):
                    self._once_more.stands(left, report)
                    self._ledger.add(report.run)
                    yield report
                left = self._once_more.next(left)

    def _in_turn(self, todo: list[Work], capacity: Capacity) -> Iterator[tuple[int, RunReport]]:
        """Measure several commits at once: (place in `todo`, report), in order."""
        turns = Turns(len(todo))
        waiting = dict(enumerate(todo))
        with Crew(capacity, len(todo), self._measure, self._workers.end) as crew:
            while not turns.over:
                self._begin(waiting, crew, turns, capacity)
                for report in turns.ready():
                    yield turns.turn, report
                if crew.active:
                    self._take(waiting, crew, turns, capacity)

    def _begin(
        self, waiting: dict[int, Work], crew: Crew, turns: Turns, capacity: Capacity
    ) -> None:
        """Begin what there is room for, and report what needs no measuring."""
        for index, work in begin_order(waiting, capacity.num_workers):
            if not crew.has_room_for(work):
                return
            active = [one.card for one in crew.active.values()]
            nearing_end = [one.card for one in crew.nearing_end.values()]
            reason = capacity.why_not(active)
            card = None if reason else capacity.free_card(active, nearing_end)
            if reason is None and card is None:
                return
            reports: Sequence[RunReport] = ()
            left = None
            if work.again:  # and has its reports
                left = work if reason is None else None
            elif reason is not None:
                reports = self._decider.unmeasured.not_run(
                    work.commit, work.benchmarks, reason, machine=not capacity.time_is_over
                )
            else:
                others = [one for place, one in waiting.items() if place != index]
                digests = [one.code_digest for one in (*crew.active.values(), *others)]
                decision = self._decider.decide(work, digests)
                if decision is None:
                    continue
                reports, left = decision.reports, decision.work
            del waiting[index]
            self._workers.seats.num_to_come = len(waiting)
            for report in reports:
                self._ledger.add(report.run)
                turns.add(index, report)
            if left is None:
                self._finish(index, work, waiting, turns)
            else:
                if left.alone:
                    self._workers.seats.close()
                crew.start(index, replace(left, card=card))

    def _take(self, waiting: dict[int, Work], crew: Crew, turns: Turns, capacity: Capacity) -> None:
        """Wait for one event of the crew and act on it."""
        index, event = crew.next_event()
        if isinstance(event, Progress):
            self._on_progress(event)
        elif isinstance(event, str):
            self._say(event)
        elif isinstance(event, Finished):
            self._glances.forget()
            self._finish(index, event.work, waiting, turns)
        elif not isinstance(event, LeavesPlace):
            work, had_company = crew.active[index], crew.had_company(index)
            card = work.card
            if card and self._strikes.is_out(card, work.commit.hash, event.failure):
                self._leave_out(card, capacity)
            if self._once_more.stands(work, event, had_company=had_company):
                self._ledger.add(event.run)
                turns.add(index, event)

    def _leave_out(self, card: Card, capacity: Capacity) -> None:
        """Begin nothing more on a card that cannot be used, as long as there is another one."""
        if self._cluster is None:
            capacity.leave_out(card)
        elif self._cluster.has(card) and len(self._cluster.share()) > 1:
            self._cluster.leave_out(card.worker, "its card cannot be used")

    def _finish(self, index: int, work: Work, waiting: dict[int, Work], turns: Turns) -> None:
        """No more comes of a commit but what is to be measured once more."""
        left = self._once_more.next(work)
        if left is None:
            turns.finish(index)
        else:
            waiting[index] = left
            self._workers.seats.num_to_come = len(waiting)

    def _measure(
        self, work: Work, on_progress: OnProgress, on_nearing_end: Callable[[], None], say: Say
    ) -> Iterator[RunReport]:
        return self._workers.measure(
            work,
            self._ledger,
            self._decider.unmeasured,
            on_progress=on_progress,
            on_nearing_end=on_nearing_end,
            say=say,
        )


def begin_order(waiting: Mapping[int, Work], num_workers: int) -> list[tuple[int, Work]]:
    """Commits that wait, as (place, work), in the order in which they are to begin.

    That is the plan's; of the last ones, which leave workers idle at the end, the longest begin
    first. Reports leave in the plan's order all the same.
    """
    in_turn = sorted(waiting.items())
    if len(in_turn) > LAST_ROUNDS * num_workers:
        return in_turn
    return sorted(in_turn, key=lambda one: -one[1].num_residues)
