"""What of a plan is to be measured: what is known already, what is inherited, what is bridged."""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace

from virnucpro_monitor.errors import MonitorError, RepositoryError
from virnucpro_monitor.records import BenchmarkSet, Commit, Run, RunReport
from virnucpro_monitor.runner.begun import MAX_TIMES, Begun
from virnucpro_monitor.runner.cards import Card
from virnucpro_monitor.runner.code_digest import code_digest
from virnucpro_monitor.runner.ledger import Ledger
from virnucpro_monitor.runner.plan import RunPlan, ordered
from virnucpro_monitor.runner.prepare import Prepared
from virnucpro_monitor.runner.reports import Unmeasured
from virnucpro_monitor.runner.surroundings import Interpreters


class RunnerEnded(MonitorError):
    """The runner did not survive a commit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """One commit and the benchmark sets that it is to be measured on.

    Attributes:
        code_digest: None until `Decider.decide` has found it out.
        bridge: measured again only because the environment changed.
        again: measured already in this start, and in doubt.
        alone: nothing else is measured meanwhile: a runner did not survive this commit before.
        card: that it is measured on; None until one is free.
    """

    commit: Commit
    benchmarks: tuple[BenchmarkSet, ...]
    code_digest: str | None = None
    bridge: bool = False
    again: bool = False
    alone: bool = False
    card: Card | None = None

    @property
    def num_residues(self) -> int:
        """Of all its benchmark sets: how long it takes, beside other commits'."""
        return sum(len(one.residues) for each in self.benchmarks for one in each.sequences)


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What becomes of one commit: reports that need no measuring, and what is to be measured."""

    reports: Sequence[RunReport] = ()
    work: Work | None = None


class Decider:
    """Decides for each commit of a plan; knows what the ledger knows.

    Args:
        base: the yardstick in our own interpreter.
        on_settled: receives each known run that makes measuring needless.
        begun: which commits a runner did not survive.
    """

    def __init__(
        self,
        plan: RunPlan,
        ledger: Ledger,
        base: Prepared,
        on_settled: Callable[[Run], None],
        begun: Begun,
    ) -> None:
        self._plan = plan
        self._ledger = ledger
        self._interpreters = Interpreters(plan, base.surroundings)
        self._on_settled = on_settled
        self._begun = begun
        self._digests: dict[str, str] = {}
        self.unmeasured = Unmeasured(plan, ledger, base.weights_name, base.surroundings.environment)

    def todo(self, commits: Sequence[Commit]) -> list[Work]:
        """What is not settled of these commits (oldest first), in measuring order."""
        return [
            Work(commit=commit, benchmarks=left, alone=self._begun.times(commit.hash) > 0)
            for commit in ordered(commits, self._plan.order)
            if (left := tuple(self._unsettled(commit)))
        ]

    def _unsettled(self, commit: Commit) -> Iterator[BenchmarkSet]:
        for benchmark in self._plan.benchmarks:
            run = self._plan.force or self._ledger.settled(
                commit.hash,
                benchmark.digest,
                self._interpreters.of(commit.hash),
                retry_errors=self._plan.retry_errors,
            )
            if isinstance(run, Run) and not self._loads_otherwise(run):
                self._on_settled(run)
            else:
                yield benchmark

    def _loads_otherwise(self, run: Run) -> bool:
        """Whether an adapter or oracle has changed that is not the commit's own."""
        target = self._plan.target
        if self._plan.repository is None or run.code_digest is None:
            return False
        if target.adapter == "seed-interface":  # all that decides a result is the commit's
            return False
        try:
            return self._digest(run.commit.hash) != run.code_digest
        except RepositoryError:
            return False

    def bridges(self) -> Iterator[Work]:
        """The last commit measured, where the environment has changed since."""
        if self._plan.repository is None:
            return
        for benchmark in self._plan.benchmarks:
            before = self._ledger.bridge(benchmark.digest, self._interpreters.of)
            if before is not None and not self._begun.times(before.commit.hash):
                yield Work(
                    commit=before.commit,
                    benchmarks=(benchmark,),
                    code_digest=before.code_digest,
                    bridge=True,
                )

    def decide(self, work: Work, active: Collection[str | None]) -> Decision | None:
        """What becomes of a commit now; None where it waits for another with the same code.

        Args:
            active: digests of the code that is being measured.
        """
        times = self._begun.times(work.commit.hash)
        if times >= MAX_TIMES and not (self._plan.retry_errors or self._plan.force):
            ended = RunnerEnded(
                f"The monitor itself was ended {times} times while it measured this commit, which "
                f"is not tried again unless asked for (--retry-errors)."
            )
            reports = self.unmeasured.failed(work.commit, work.benchmarks, "crash", ended)
            return Decision(reports=reports)
        try:
            digest = self._digest(work.commit.hash)
        except RepositoryError as error:
            reports = self.unmeasured.failed(work.commit, work.benchmarks, "checkout", error)
            return Decision(reports=reports)
        if not self._plan.force and digest in active:
            return None
        reports, left = [], []
        for benchmark in work.benchmarks:
            here = self._interpreters.of(work.commit.hash)
            twin = self._ledger.twin(digest, benchmark.digest, here)
            if twin is None or self._plan.force:
                left.append(benchmark)
            elif twin.commit.hash != work.commit.hash:  # else the bridge has just measured it
                reports.append(self.unmeasured.inherited(work.commit, benchmark, digest, twin))
        rest = replace(work, benchmarks=tuple(left), code_digest=digest) if left else None
        return Decision(reports=reports, work=rest)

    def _digest(self, commit: str) -> str:
        if commit not in self._digests:
            self._digests[commit] = code_digest(self._plan.repository, self._plan.target, commit)
        return self._digests[commit]
