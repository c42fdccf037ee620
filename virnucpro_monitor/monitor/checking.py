"""Measure a change against where it left its branch: one verdict for a continuous integration."""

from contextlib import suppress
from dataclasses import dataclass, replace

from virnucpro_monitor.analysis.comparison import Comparison, Mark, Thresholds
from virnucpro_monitor.errors import ConfigurationError, RepositoryError
from virnucpro_monitor.monitor.comparing import compare_pair
from virnucpro_monitor.monitor.opening import open_database
from virnucpro_monitor.monitor.questions import load_attempts, load_measured, load_thresholds
from virnucpro_monitor.monitor.running import (
    LAST_COMMIT,
    SILENT,
    Listener,
    RunOptions,
    run_and_store,
)
from virnucpro_monitor.records import (
    Commit,
    Failure,
    Outcome,
    Run,
    SequenceResult,
    Target,
)
from virnucpro_monitor.runner.checkout import Repository
from virnucpro_monitor.runner.client import WorkerPool
from virnucpro_monitor.runner.sources import Source, open_source
from virnucpro_monitor.settings import Settings
from virnucpro_monitor.store.engine import Engine
from virnucpro_monitor.store.reader import load_failure

USUAL_BRANCHES = ("main", "master")


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckOptions:
    """What is checked against what.

    Attributes:
        head: the change's last commit.
        base: the branch (or a commit) that it is to go into; the head is compared with the commit
            at which it left there. None: the target's branch, or the repository's main one.
        only_new: what the base fails in the same way does not fail the head.
        confirm: how often a head that fails is measured again before that counts.
        run: how the two commits are measured; its choice of commits does not count.
    """

    head: str = "HEAD"
    base: str | None = None
    only_new: bool = False
    confirm: int = 1
    run: RunOptions = LAST_COMMIT


OF_THE_HEAD = CheckOptions()


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """The head's result on one benchmark set, stored before anybody judges by it.

    Attributes:
        run: of the head's commit.
        sequences: those that stand for it: an inherited result's where it was skipped.
        comparison: with the base's run; None where there is none.
        attempts: verdicts of all measurements of this code in this set-up and environment.
    """

    run: Run
    sequences: tuple[SequenceResult, ...]
    failure: Failure | None
    thresholds: Thresholds
    comparison: Comparison | None
    attempts: tuple[Outcome, ...] = ()

    @property
    def is_flaky(self) -> bool:
        """Whether the same code both kept and broke the promise."""
        return {Outcome.PASSED, Outcome.FAILED} <= set(self.attempts)

    @property
    def is_new(self) -> bool:
        """Whether the head fails where the base held, by its verdict or by any one gate."""
        if self.run.effective_outcome is not Outcome.FAILED:
            return False
        if self.comparison is None or self.comparison.base.outcome is not Outcome.FAILED:
            return True
        return any(
            change.mark is not Mark.EQUAL
            and change.head is not None
            and change.head.fails
            and (change.base is None or not change.base.fails)
            for change in self.comparison.gates
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """A change against its base.

    Attributes:
        base: None where the head is the repository's first commit.
        results: one for each benchmark set; never empty.
    """

    target: Target
    base: Commit | None
    head: Commit
    only_new: bool
    results: tuple[Checked, ...]

    @property
    def outcome(self) -> Outcome:
        """`failed` where the promise is broken, `error` where that could not be told, `passed`.

        A flaky target tells nothing: the same code does both.
        """
        steady = [one for one in self.results if not one.is_flaky]
        if any(one.is_new if self.only_new else _is_bad(one) for one in steady):
            return Outcome.FAILED
        if len(steady) < len(self.results):
            return Outcome.ERROR
        known = (Outcome.PASSED, Outcome.FAILED)
        if any(one.run.effective_outcome not in known for one in self.results):
            return Outcome.ERROR
        return Outcome.PASSED

    @property
    def exit_code(self) -> int:
        return {Outcome.PASSED: 0, Outcome.FAILED: 2}.get(self.outcome, 3)


def _is_bad(one: Checked) -> bool:
    return one.run.effective_outcome is Outcome.FAILED


def check_and_store(
    settings: Settings,
    target: Target,
    options: CheckOptions = OF_THE_HEAD,
    listener: Listener = SILENT,
    pool: WorkerPool | None = None,
) -> Check:
    """Measure a commit and the one at which it left its branch, store both, and compare them.

    What is stored of them in this set-up is not measured again.

    Args:
        pool: of measuring processes, as `run_commits` takes it.

    Raises:
        ConfigurationError: the target has no commits, or no base can be told.
        MonitorError: nothing could be run at all; nothing is stored then.
    """
    if target.adapter == "builtin":
        raise ConfigurationError("check needs a repository: name it by --target.")
    repository = open_source(target, settings.cache_folder)
    head = repository.resolve(options.head)
    into = options.base or target.branch
    if target.branch is None:
        # HEAD is the change here, and not the branch that is watched. That one is watched by its
        # name alone: where this clone has a branch of that name, it may be ahead of origin's.
        told = main_branch(repository)
        into = into or told
        target = replace(target, branch=told and told.removeprefix("origin/"))
    if into is None:
        raise ConfigurationError(
            f"The repository has none of the branches {', '.join(USUAL_BRANCHES)}, and no origin "
            "that names one: name the one that the change is to go into by --base."
        )
    base = find_base(repository, head, into)
    wanted = [base, head] if base else [head]
    covering = replace(options.run, revisions=wanted, new=False, everything=False)
    outcome = run_and_store(settings, target, covering, listener, pool)
    runs = [*outcome.settled, *outcome.runs]
    doubtful = [
        run for run in runs if run.commit.hash == head and _needs_proof(settings, run, options)
    ]
    for _ in range(options.confirm if doubtful else 0):
        listener.on_message(f"{doubtful[0].commit.short} fails: it is measured again to be sure.")
        again = replace(covering, revisions=[head], force=True)
        labels = list(dict.fromkeys(run.benchmark_label for run in doubtful))
        only = settings.model_copy(update={"benchmark": labels})
        runs += run_and_store(only, target, again, listener, pool).runs
    found = {
        commit: {run.benchmark_digest: run for run in runs if run.commit.hash == commit}
        for commit in wanted
    }
    bases = found[base] if base else {}
    with open_database(settings.database_url) as engine:
        results = tuple(
            _checked(engine, run, bases.get(digest)) for digest, run in found[head].items()
        )
    commits = {run.commit.hash: run.commit for run in runs}
    return Check(
        target=target,
        base=commits.get(base) if base else None,
        head=commits[head],
        only_new=options.only_new,
        results=results,
    )


def find_base(repository: Source, head: str, branch: str) -> str | None:
    """The commit that a change is measured against.

    Where the head is on the branch already, that is the commit before it.

    Args:
        head: full hash.
        branch: that the change is to go into, or a commit of it.

    Raises:
        RepositoryError: no such branch, or the two have no commit in common.
    """
    base = repository.merge_base(repository.resolve_branch(branch), head)
    if base != head:
        return base
    parents = repository.commits([head])[0].parents
    return parents[0] if parents else None


def main_branch(repository: Source) -> str | None:
    """The branch that changes go into, by its own name; None where it cannot be told."""
    told = repository.default_branch() if isinstance(repository, Repository) else None
    for name in USUAL_BRANCHES if told is None else (told,):
        with suppress(RepositoryError):
            repository.resolve_branch(name)
            return name
    return None


def _needs_proof(settings: Settings, run: Run, options: CheckOptions) -> bool:
    """Whether a failing head was measured so few times that it may be a flake."""
    if run.effective_outcome is not Outcome.FAILED:
        return False
    with open_database(settings.database_url) as engine:
        return len(load_attempts(engine, run)) <= options.confirm


def _checked(engine: Engine, run: Run, base: Run | None) -> Checked:
    return Checked(
        run=run,
        sequences=tuple(load_measured(engine, run)[1]),
        failure=load_failure(engine, run.row_id),
        thresholds=load_thresholds(engine, run),
        comparison=None if base is None else compare_pair(engine, base, run),
        attempts=load_attempts(engine, run),
    )
