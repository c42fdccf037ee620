"""Run a plan: every commit in its own process, one report as soon as it is known."""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from virnucpro_monitor.errors import MonitorError, RepositoryError
from virnucpro_monitor.records import (
    BenchmarkSet,
    Commit,
    Failure,
    Outcome,
    Run,
    RunReport,
)
from virnucpro_monitor.runner.builtin import builtin_digest
from virnucpro_monitor.runner.client import WorkerPool
from virnucpro_monitor.runner.gpu import wait_for_gpu
from virnucpro_monitor.runner.measure import (
    OnProgress,
    Prepared,
    Progress,
    judge,
    make_report,
    prepare,
)
from virnucpro_monitor.runner.plan import Ledger, RunPlan, code_digest, ordered
from virnucpro_monitor.runner.venv import PrivateEnvironmentError, target_python

MAX_HELD = 50


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
    its result. Whatever a commit's own code does becomes the outcome of that commit.

    Args:
        known: this target's stored runs, oldest first.
        on_message: receives lines for a person (waiting, environment changed, …).
        on_settled: receives each known run that made measuring needless.

    Raises:
        MonitorError: the yardstick itself cannot be set up (weights, device, benchmark).
    """
    with ExitStack() as stack:
        yield from _Runner(plan, stack, on_progress, on_message, on_settled).run(known)


class _Runner:
    def __init__(
        self,
        plan: RunPlan,
        stack: ExitStack,
        on_progress: OnProgress | None,
        on_message: Callable[[str], None] | None,
        on_settled: Callable[[Run], None] | None,
    ) -> None:
        self._plan = plan
        self._stack = stack
        self._progress_sink = on_progress
        self._say = on_message or (lambda _: None)
        self._on_settled = on_settled or (lambda _: None)
        self._ready: dict[Path | None, Prepared] = {}
        self._place: tuple[Commit | None, int, int] = (None, 0, 0)
        self._held: list[RunReport] = []

    def run(self, known: Iterable[Run]) -> Iterator[RunReport]:
        plan = self._plan
        self._base = self._prepared(None)
        self._ledger = Ledger(known, plan.request, self._base.weights_digest, plan.protocol)
        end = None if plan.max_minutes is None else time.monotonic() + plan.max_minutes * 60
        commits = ordered(plan.commits, plan.order)
        todo = [(commit, left) for commit in commits if (left := self._unsettled(commit))]
        # Gaps must not go unnoticed where a start that goes back and forth is cut short.
        announced = plan.order == "oldest"
        reason: str | None = None
        bridged = False
        for index, (commit, left) in enumerate(todo):
            self._place = (commit, index, len(todo))
            if not announced and self._ledger.backend_known:
                announced = True
                for later, benchmarks in todo[index:]:
                    yield from self._not_run(later, benchmarks, "Planned, but not reached yet.")
            if reason is None and end is not None and time.monotonic() > end:
                reason = f"The limit of {plan.max_minutes:g} min was reached before this commit."
            if reason is None and plan.request.device.startswith("cuda"):
                reason = wait_for_gpu(
                    plan.request.device, limit_s=plan.gpu_wait_s, on_wait=self._say
                )
            if reason is not None:
                yield from self._released(self._not_run(commit, left, reason))
                continue
            if not bridged:
                bridged = True
                yield from self._released(self._bridge())
            yield from self._released(self._cover(commit, left))
        yield from self._release()

    def _released(self, reports: Iterator[RunReport]) -> Iterator[RunReport]:
        """Note reports and pass them on, holding back those that don't know their backend yet.

        The first commits of a history often cannot run; their configuration is that of the first
        one which can.
        """
        for report in reports:
            self._ledger.add(report.run)
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

    def _on_progress(self, progress: Progress) -> None:
        if self._progress_sink is not None:
            commit, index, total = self._place
            self._progress_sink(
                replace(progress, commit=commit, commit_index=index, num_commits=total)
            )

    def _prepared(self, python: Path | None) -> Prepared:
        """A worker pool with its yardstick, one for each interpreter."""
        if python not in self._ready:
            pool = self._stack.enter_context(WorkerPool(python, fork=self._plan.fork))
            self._ready[python] = prepare(self._plan, pool, self._on_progress)
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

    def _not_run(
        self, commit: Commit, benchmarks: list[BenchmarkSet], reason: str
    ) -> Iterator[RunReport]:
        for benchmark in benchmarks:
            yield self._report(commit, benchmark, outcome=Outcome.NOT_RUN, reason=reason)

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

    def _failed(
        self, commit: Commit, benchmarks: list[BenchmarkSet], kind: str, error: MonitorError
    ) -> Iterator[RunReport]:
        for benchmark in benchmarks:
            report = self._report(commit, benchmark, outcome=Outcome.ERROR, reason=str(error))
            yield replace(report, failure=Failure(kind=kind, message=str(error)))

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
            for report in self._measure(before.commit, [benchmark], before.code_digest):
                yield replace(report, run=replace(report.run, bridge=True))

    def _cover(self, commit: Commit, benchmarks: list[BenchmarkSet]) -> Iterator[RunReport]:
        """Let a commit inherit what it can, and measure the rest."""
        plan = self._plan
        if plan.repository is None:
            yield from self._measure(commit, benchmarks, builtin_digest())
            return
        try:
            digest = code_digest(plan.repository, plan.target, commit.hash)
        except RepositoryError as error:
            yield from self._failed(commit, benchmarks, "checkout", error)
            return
        left = []
        for benchmark in benchmarks:
            twin = self._ledger.twin(digest, benchmark.digest, self._base.environment.digest)
            if twin is None or plan.force:
                left.append(benchmark)
                continue
            if twin.commit.hash == commit.hash:
                continue  # the bridge has just measured it
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
            yield replace(report, run=run)
        if left:
            yield from self._measure(commit, left, digest)

    def _measure(
        self, commit: Commit, benchmarks: list[BenchmarkSet], digest: str | None
    ) -> Iterator[RunReport]:
        plan = self._plan
        if plan.repository is None:
            yield from self._judge(commit, benchmarks, digest, plan.cache_folder, None, "")
            return
        try:
            with plan.repository.checkout(commit.hash) as (folder, note):
                python = target_python(plan.target, folder, plan.cache_folder, self._say)
                yield from self._judge(commit, benchmarks, digest, folder, python, note)
        except PrivateEnvironmentError as error:
            yield from self._failed(commit, benchmarks, "environment", error)
        except RepositoryError as error:
            yield from self._failed(commit, benchmarks, "checkout", error)

    def _judge(
        self,
        commit: Commit,
        benchmarks: list[BenchmarkSet],
        digest: str | None,
        folder: Path,
        python: Path | None,
        note: str,
    ) -> Iterator[RunReport]:
        prepared = self._prepared(python)
        return judge(
            self._plan,
            prepared,
            commit,
            benchmarks,
            folder,
            configuration=lambda backend: self._ledger.configuration(
                prepared.weights_name, backend
            ),
            on_progress=self._on_progress,
            digest=digest,
            note=note,
        )
