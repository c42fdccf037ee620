"""Run a plan: every commit in its own process, reports in the plan's order."""

import os
import queue
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

from virnucpro_monitor.errors import MonitorError, RepositoryError
from virnucpro_monitor.records import (
    BenchmarkSet,
    Commit,
    Failure,
    Outcome,
    Run,
    RunReport,
)
from virnucpro_monitor.runner.branches import with_branches
from virnucpro_monitor.runner.builtin import builtin_digest
from virnucpro_monitor.runner.client import WorkerPool
from virnucpro_monitor.runner.measure import (
    OnProgress,
    Prepared,
    Progress,
    judge,
    make_report,
    prepare,
)
from virnucpro_monitor.runner.plan import (
    Ledger,
    RunPlan,
    code_digest,
    count_workers,
    needed_gpu_bytes,
    ordered,
)
from virnucpro_monitor.runner.stopping import stop_reasons
from virnucpro_monitor.runner.venv import PrivateEnvironmentError, target_python

MAX_HELD = 50

Todo = list[tuple[Commit, list[BenchmarkSet]]]


def run_commits(
    plan: RunPlan,
    *,
    known: Iterable[Run] = (),
    on_progress: OnProgress | None = None,
    on_message: Callable[[str], None] | None = None,
    on_settled: Callable[[Run], None] | None = None,
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

    Raises:
        MonitorError: the yardstick itself cannot be set up (weights, device, benchmark).
    """
    with CommitRunner(
        plan,
        known=known,
        on_progress=on_progress,
        on_message=on_message,
        on_settled=on_settled,
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
        on_message: Callable[[str], None] | None = None,
        on_settled: Callable[[Run], None] | None = None,
    ) -> None:
        self._plan = plan
        self._known = known
        self._stack = ExitStack()
        self._on_progress = on_progress or (lambda _: None)
        self._say = on_message or (lambda _: None)
        self._on_settled = on_settled or (lambda _: None)
        self._ready: dict[Path | None, Prepared] = {}
        self._lock = threading.Lock()  # of preparing and of checking out
        self._held: list[RunReport] = []
        self._digests: dict[str, str] = {}
        self._num_workers = 1
        # Threads speak to the caller's callbacks through this alone.
        self._events: queue.SimpleQueue[tuple[str, int, Any]] = queue.SimpleQueue()

    def __enter__(self) -> "CommitRunner":
        try:
            plan, self._base = self._plan, self._prepared(None)
        except BaseException:
            self._stack.close()
            raise
        self._ledger = Ledger(self._known, plan.request, self._base.weights_digest, plan.protocol)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    def cover(self, commits: Sequence[Commit]) -> Iterator[RunReport]:
        """Yield the reports of these commits (oldest first), in the plan's order."""
        for report in self._cover(commits):
            yield with_branches(report, self._plan.repository)

    def _cover(self, commits: Sequence[Commit]) -> Iterator[RunReport]:
        todo = [
            (commit, left)
            for commit in ordered(commits, self._plan.order)
            if (left := self._unsettled(commit))
        ]
        if not todo:
            return
        yield from self._released(self._noted(self._bridge()))
        self._num_workers = count_workers(self._plan, len(todo), self._needed_gpu_bytes)
        # Gaps must not go unnoticed where a start that goes back and forth is cut short.
        announced = self._plan.order == "oldest"
        for index, report in self._cover_all(todo):
            yield from self._released([report])
            if not announced and self._ledger.backend_known:
                announced = True
                for commit, benchmarks in todo[index + 1 :]:
                    yield from self._not_run(commit, benchmarks, "Planned, but not reached yet.")
        yield from self._release()

    def _cover_all(self, todo: Todo) -> Iterator[tuple[int, RunReport]]:
        """Measure in threads, each with a worker process; results leave in order."""
        results: list[list[RunReport]] = [[] for _ in todo]
        done = [False] * len(todo)
        waiting = list(range(len(todo)))
        active: dict[int, str] = {}  # index -> code digest
        stop = stop_reasons(self._plan, self._needed_gpu_bytes, self._say)
        threads = ThreadPoolExecutor(self._num_workers, thread_name_prefix="commit")
        try:
            turn = 0
            while turn < len(todo):
                for index in list(waiting):
                    if len(active) >= self._num_workers:
                        break
                    commit, left = todo[index]
                    reports, rest, digest = self._decide(commit, left, active.values(), stop)
                    if reports is None:
                        continue  # the same code is being measured: wait for its result
                    waiting.remove(index)
                    results[index] += self._noted(reports)
                    done[index] = not rest
                    if rest:
                        active[index] = digest
                        threads.submit(self._work, index, commit, rest, digest, len(todo))
                while turn < len(todo):
                    yield from ((turn, report) for report in results[turn])
                    results[turn].clear()
                    if not done[turn]:
                        break
                    turn += 1
                if active:
                    self._take_event(results, done, active)
        except BaseException:  # also where the caller turns away: end what still runs
            for prepared in self._ready.values():
                prepared.pool.close()
            raise
        finally:
            threads.shutdown(cancel_futures=True)

    def _take_event(
        self, results: list[list[RunReport]], done: list[bool], active: dict[int, str]
    ) -> None:
        """Wait for one event of a thread and act on it."""
        kind, index, value = self._events.get()
        if kind == "progress":
            self._on_progress(value)
        elif kind == "message":
            self._say(value)
        elif kind == "report":
            results[index] += self._noted([value])
        else:
            del active[index]
            done[index] = True
            if value is not None:
                raise value

    def _work(
        self, index: int, commit: Commit, benchmarks: list[BenchmarkSet], digest: str, total: int
    ) -> None:
        """Runs in a thread of its own; says everything through the queue."""

        def progress(of_benchmark: Progress) -> None:
            placed = replace(of_benchmark, commit=commit, commit_index=index, num_commits=total)
            self._events.put(("progress", index, placed))

        error: BaseException | None = None
        try:
            for report in self._measure(
                commit,
                benchmarks,
                digest,
                progress,
                lambda text: self._events.put(("message", index, text)),
            ):
                self._events.put(("report", index, report))
        except BaseException as caught:
            error = caught
        self._events.put(("done", index, error))

    @property
    def _needed_gpu_bytes(self) -> int:
        return needed_gpu_bytes(Path(self._base.checkpoint))

    def _decide(
        self,
        commit: Commit,
        benchmarks: list[BenchmarkSet],
        active: Collection[str],
        stop: Callable[[int], str | None],
    ) -> tuple[list[RunReport] | None, list[BenchmarkSet], str]:
        """(reports that need no measuring, benchmark sets to measure, code digest).

        The first is None where the commit has to wait for another with the same code.
        """
        reason = stop(len(active))
        if reason is not None:
            return list(self._not_run(commit, benchmarks, reason)), [], ""
        try:
            digest = self._digest(commit)
        except RepositoryError as error:
            return list(self._failed(commit, benchmarks, "checkout", error)), [], ""
        if not self._plan.force and digest in active:
            return None, [], digest
        reports, left = [], []
        for benchmark in benchmarks:
            twin = self._ledger.twin(digest, benchmark.digest, self._base.environment.digest)
            if twin is None or self._plan.force:
                left.append(benchmark)
            elif twin.commit.hash != commit.hash:  # else the bridge has just measured it
                reports.append(self._inherited(commit, benchmark, digest, twin))
        return reports, left, digest

    def _digest(self, commit: Commit) -> str:
        plan = self._plan
        if commit.hash not in self._digests:
            self._digests[commit.hash] = (
                builtin_digest()
                if plan.repository is None
                else code_digest(plan.repository, plan.target, commit.hash)
            )
        return self._digests[commit.hash]

    def _noted(self, reports: Iterable[RunReport]) -> list[RunReport]:
        reports = list(reports)
        for report in reports:
            self._ledger.add(report.run)
        return reports

    def _released(self, reports: Iterable[RunReport]) -> Iterator[RunReport]:
        """Pass reports on, holding back those that don't know their backend yet.

        The first commits of a history often cannot run; their configuration is that of the first
        one which can.
        """
        for report in reports:
            self._held.append(report)
            if self._ledger.backend_known or len(self._held) > MAX_HELD:
                yield from self._release()

    def _release(self) -> Iterator[RunReport]:
        held, self._held = self._held, []
        for report in held:
            used = report.run.configuration
            if used.backend == self._plan.request.backend:
                used = replace(used, backend=self._ledger.backend)
            yield replace(report, run=replace(report.run, configuration=used))

    def _prepared(self, python: Path | None, on_progress: OnProgress | None = None) -> Prepared:
        """A worker pool with its yardstick, one for each interpreter."""
        with self._lock:
            if python not in self._ready:
                pool = self._stack.enter_context(WorkerPool(python, fork=self._plan.fork))
                self._ready[python] = prepare(self._plan, pool, on_progress or self._on_progress)
            return self._ready[python]

    def _unsettled(self, commit: Commit) -> list[BenchmarkSet]:
        plan = self._plan
        if plan.force:
            return list(plan.benchmarks)
        left = []
        for benchmark in plan.benchmarks:
            run = self._ledger.settled(
                commit.hash,
                benchmark.digest,
                self._base.environment.digest,
                retry_errors=plan.retry_errors,
            )
            if run is None:
                left.append(benchmark)
            else:
                self._on_settled(run)
        return left

    def _report(
        self, commit: Commit, benchmark: BenchmarkSet, *, outcome: Outcome, reason: str
    ) -> RunReport:
        """A report that needed no worker."""
        return make_report(
            self._plan,
            commit,
            benchmark,
            self._ledger.configuration(self._base.weights_name),
            self._base.environment,
            outcome=outcome,
            reason=reason,
        )

    def _not_run(
        self, commit: Commit, benchmarks: list[BenchmarkSet], reason: str
    ) -> Iterator[RunReport]:
        for benchmark in benchmarks:
            yield self._report(commit, benchmark, outcome=Outcome.NOT_RUN, reason=reason)

    def _failed(
        self, commit: Commit, benchmarks: list[BenchmarkSet], kind: str, error: MonitorError
    ) -> Iterator[RunReport]:
        for benchmark in benchmarks:
            report = self._report(commit, benchmark, outcome=Outcome.ERROR, reason=str(error))
            yield replace(report, failure=Failure(kind=kind, message=str(error)))

    def _inherited(
        self, commit: Commit, benchmark: BenchmarkSet, digest: str, twin: Run
    ) -> RunReport:
        report = self._report(
            commit,
            benchmark,
            outcome=Outcome.SKIPPED,
            reason=f"No relevant file differs from {twin.commit.hash[:12]}.",
        )
        run = replace(
            report.run,
            configuration=twin.configuration,
            culprit=twin.culprit,
            figures=twin.figures,
            gates=twin.gates,
            inherited_from=twin.commit.hash,
            inherited_outcome=twin.outcome,
            code_digest=digest,
        )
        return replace(report, run=run)

    def _bridge(self) -> Iterator[RunReport]:
        """Measure the last commit again where the environment has changed since."""
        plan = self._plan
        if plan.repository is None:
            return
        for benchmark in plan.benchmarks:
            before = self._ledger.bridge(benchmark.digest, self._base.environment.digest)
            if before is None:
                continue
            self._say(
                f"The environment has changed: measuring {before.commit.hash[:12]} again first."
            )
            for report in self._measure(
                before.commit, [benchmark], before.code_digest, self._on_progress, self._say
            ):
                yield replace(report, run=replace(report.run, bridge=True))

    def _measure(
        self,
        commit: Commit,
        benchmarks: list[BenchmarkSet],
        digest: str | None,
        on_progress: OnProgress,
        say: Callable[[str], None],
    ) -> Iterator[RunReport]:
        plan = self._plan
        with ExitStack() as stack:
            try:
                folder, note, python = plan.cache_folder, "", None
                if plan.repository is not None:
                    with self._lock:
                        folder, note = stack.enter_context(plan.repository.checkout(commit.hash))
                        python = target_python(plan.target, folder, plan.cache_folder, say)
            except PrivateEnvironmentError as error:
                yield from self._failed(commit, benchmarks, "environment", error)
                return
            except RepositoryError as error:
                yield from self._failed(commit, benchmarks, "checkout", error)
                return
            prepared = self._prepared(python, on_progress)
            yield from judge(
                plan,
                prepared,
                commit,
                benchmarks,
                folder,
                configuration=lambda backend: self._ledger.configuration(
                    prepared.weights_name, backend
                ),
                on_progress=on_progress,
                digest=digest,
                note=note,
                num_threads=max(1, (os.cpu_count() or 1) // self._num_workers),
            )
