"""Validate commits of a target and store what comes of them."""

import math
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from virnucpro_monitor.data.benchmarks import load_benchmark
from virnucpro_monitor.disks import path_from, probe_folder
from virnucpro_monitor.errors import ConfigurationError, MissingDatabase
from virnucpro_monitor.monitor.hiding import secret_places
from virnucpro_monitor.monitor.policies import policy_of
from virnucpro_monitor.monitor.sink import Sink, holding_locks
from virnucpro_monitor.records import Outcome, Request, Run, Target
from virnucpro_monitor.runner.adapter_names import is_plain, parse_adapter, with_oracle
from virnucpro_monitor.runner.builtin import builtin_commit
from virnucpro_monitor.runner.client import WorkerPool
from virnucpro_monitor.runner.commits import run_commits
from virnucpro_monitor.runner.matrix import environments_of
from virnucpro_monitor.runner.passwords import keep_password, public_address
from virnucpro_monitor.runner.plan import RunPlan
from virnucpro_monitor.runner.selection import (
    Selection,
    branch_history,
    select_new,
    select_revisions,
)
from virnucpro_monitor.runner.sources import Source, is_here, named_adapter, open_source
from virnucpro_monitor.runner.targets import find_target
from virnucpro_monitor.runner.venv import is_package
from virnucpro_monitor.secrecy import masked_url
from virnucpro_monitor.settings import Settings
from virnucpro_monitor.store.engine import open_engine
from virnucpro_monitor.store.reader import load_targets
from virnucpro_monitor.validation.policy import with_policy
from virnucpro_monitor.validation.protocol import load_protocol

if TYPE_CHECKING:
    from virnucpro_monitor.records.progress import Progress


def _ignore(_: object) -> None:
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Listener:
    """Who is told while commits run.

    Attributes:
        on_progress: how far the present commit is; called often.
        on_message: a sentence for a person.
        on_run: a run that was stored, with its id.
    """

    on_progress: Callable[["Progress"], None] = _ignore
    on_message: Callable[[str], None] = _ignore
    on_run: Callable[[Run], None] = _ignore


SILENT = Listener()


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """Which commits a start covers, and how.

    Attributes:
        revisions: hashes, tags, branches and ranges `A..B`; none means the branch's last commit.
        new: all commits since the last one that was measured with this set-up, instead. It is how
            the target's runner starts: only then does the start leave a heartbeat.
        everything: the branch's whole history with its root, instead.
        order: in which commits are measured: "oldest", "newest" or "bisect".
        max_time_s: what has not begun by then waits for the next start; None: no limit.
        force: measure again what is known already.
        retry_errors: measure commits again that could not be run.
        wait_s: how long another runner of this target is waited for.
        gpu_wait_s: how long a busy GPU is waited for.
        probes: whether to run the probes (leak, position, order, …) too.

    Raises:
        ConfigurationError: two ways to choose commits at once, or a time that is none.
    """

    revisions: Sequence[str] = ()
    new: bool = False
    everything: bool = False
    order: str = "oldest"
    max_time_s: float | None = None
    force: bool = False
    retry_errors: bool = False
    wait_s: float = 0.0
    gpu_wait_s: float = 600.0
    probes: bool = True

    def __post_init__(self) -> None:
        if sum((self.new, self.everything, bool(self.revisions))) > 1:
            raise ConfigurationError(
                "Commits are named one by one, as new ones or as all of them: choose one way."
            )
        for name in ("max_time_s", "wait_s", "gpu_wait_s"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value >= 0):
                raise ConfigurationError(f"{name} is {value!r}: give a number of seconds.")


LAST_COMMIT = RunOptions()


@dataclass(frozen=True, slots=True)
class RunOutcome:
    """How a start ended.

    Attributes:
        runs: what was stored, in the order it came, with ids.
        settled: stored runs that made measuring needless.
    """

    runs: tuple[Run, ...]
    settled: tuple[Run, ...]

    @property
    def exit_code(self) -> int:
        """0 all passed; 2 a failure, also an inherited one; 3 something could not be run.

        A commit of which one attempt failed has failed, whatever the last one says.
        """
        latest = {_series_of(run): run.effective_outcome for run in (*self.settled, *self.runs)}
        if Outcome.FAILED in latest.values() or self.flipping:
            return 2
        return 0 if set(latest.values()) <= {Outcome.PASSED} else 3

    @property
    def flipping(self) -> tuple[Run, ...]:
        """The last attempt of each commit that both kept and broke the promise in this start."""
        verdicts: dict[tuple[str, str, str], set[Outcome]] = {}
        for run in self.runs:
            if run.outcome.has_verdict:
                verdicts.setdefault(_series_of(run), set()).add(run.outcome)
        last = {_series_of(run): run for run in self.runs}
        return tuple(last[series] for series, given in verdicts.items() if len(given) > 1)

    @property
    def summary(self) -> str:
        """One line on the whole start."""
        latest = {_series_of(run): run for run in self.runs}
        in_order = sorted(latest.values(), key=lambda run: tuple(Outcome).index(run.outcome))
        counts = Counter(map(_outcome_text, in_order))
        parts = [f"{number} {outcome}" for outcome, number in counts.items()]
        if self.settled:
            bad = sum(run.effective_outcome is not Outcome.PASSED for run in self.settled)
            parts.append(
                f"{len(self.settled)} known already" + (f" ({bad} not passed)" if bad else "")
            )
        text = f"{', '.join(parts)}." if parts else "Nothing new."
        if self.flipping:
            names = ", ".join(dict.fromkeys(run.commit.short for run in self.flipping))
            text += f" The same code both passed and failed: {names}."
        return text


def _outcome_text(run: Run) -> str:
    """An outcome in words; what a skipped run inherits is told unless it is a pass."""
    text = str(run.outcome).replace("_", " ")
    inherited = run.inherited_outcome
    return text if inherited in (None, Outcome.PASSED) else f"{text} (inherits {inherited})"


def _series_of(run: Run) -> tuple[str, str, str]:
    return run.commit.hash, run.benchmark_digest, run.target


def find_run_target(settings: Settings, wanted: str | None, package: str | None = None) -> Target:
    """The target to run: stored, of the settings file, or a repository's path or URL.

    Args:
        wanted: None for the built-in target.
        package: import root, where the caller names one.

    Raises:
        ConfigurationError: nothing fits.
    """
    return find_target(wanted, _stored_apart(settings), package=package)


def _stored_apart(settings: Settings) -> list[Target]:
    """Stored targets; passwords that an earlier version stored with addresses are kept apart."""
    return [_without_password(one) for one in stored_targets(settings)]


def _without_password(target: Target) -> Target:
    if masked_url(target.location) == target.location:
        return target
    try:
        public = public_address(target.location)
    except ConfigurationError:
        return target  # told where its repository is to be read
    keep_password(public, _ignore)
    return replace(target, location=public)


def find_run_targets(
    settings: Settings, wanted: str | None, package: str | None = None
) -> tuple[Target, ...]:
    """As `find_run_target`; all of a matrix of environments, where that is what the name means."""
    stored = _stored_apart(settings)
    named = wanted is None or any(one.name == wanted for one in stored)
    environments = () if named else environments_of(str(wanted), stored)
    return environments or (find_target(wanted, stored, package=package),)


def with_own_adapter(target: Target, repository: Source, say: Callable[[str], None]) -> Target:
    """A target without an adapter, with the one that its branch's last commit names, if it does.

    Raises:
        MonitorError: as `named_adapter` says, or the branch is not there.
    """
    if not is_plain(target.adapter, "seed-interface") or is_package(target.location):
        return target
    named = named_adapter(repository, repository.resolve_branch(target.branch))
    if named is None:
        return target
    say(f"{target.name} is loaded by {named}, as its pyproject.toml says.")
    return replace(target, adapter=with_oracle(named, parse_adapter(target.adapter).oracle))


def check_adapter_file(target: Target) -> None:
    """Raise `ConfigurationError` where a target's adapter is a file of this machine that has gone:
    no commit is to blame for that."""
    file = parse_adapter(target.adapter).file
    if file is not None and Path(file).is_absolute() and not Path(file).is_file():
        raise ConfigurationError(
            f"{target.name} is loaded by {file}, which is not there: put it back, or name another "
            f"adapter by `virnucpro-monitor targets add`."
        )


def stored_targets(settings: Settings) -> list[Target]:
    """Targets in the database; none where there is no database yet."""
    try:
        engine = open_engine(settings.database_url, read_only=True)
    except MissingDatabase:
        return []
    try:
        return load_targets(engine)
    finally:
        engine.dispose()


def run_and_store(
    settings: Settings,
    target: Target,
    options: RunOptions = LAST_COMMIT,
    listener: Listener = SILENT,
    pool: WorkerPool | None = None,
) -> RunOutcome:
    """Validate commits of a target and store each result as it comes.

    Args:
        pool: of measuring processes, as `run_commits` takes it.

    Raises:
        MonitorError: nothing could be run at all; nothing is stored then.
    """
    runs = stream_runs(settings, target, options, listener, pool)
    while True:
        try:
            next(runs)
        except StopIteration as end:
            outcome: RunOutcome = end.value
            return outcome


def stream_runs(
    settings: Settings,
    target: Target,
    options: RunOptions = LAST_COMMIT,
    listener: Listener = SILENT,
    pool: WorkerPool | None = None,
) -> Generator[Run, None, RunOutcome]:
    """Validate commits of a target: yields each run once it is stored, with its id.

    Closing it early ends the start; what was stored stays.

    Raises:
        MonitorError: nothing could be run at all; nothing is stored then.
    """
    stored: list[Run] = []
    settled: list[Run] = []
    if (
        target.adapter != "builtin"  # which may be installed without a repository
        and target not in stored_targets(settings)
        and is_here(target, settings.cache_folder)
    ):
        source = open_source(target, settings.cache_folder, fetch=False)
        target = with_own_adapter(target, source, listener.on_message)
    with (
        Sink(settings.database_url, target, say=listener.on_message, heartbeat=options.new) as sink,
        holding_locks(settings, sink, wait_s=options.wait_s, on_wait=listener.on_message),
    ):
        check_disks(settings)
        known = sink.known_runs()
        plan, selection = make_plan(settings, target, known, options)
        if selection.note:
            listener.on_message(selection.note)
        for report in run_commits(
            plan,
            known=known,
            on_progress=listener.on_progress,
            on_message=listener.on_message,
            on_settled=settled.append,
            pool=pool,
            on_hosts=sink.note_hosts,
        ):
            if not stored:
                sink.begin(selection)
            stored.append(replace(report.run, id=sink.save(report)))
            listener.on_run(stored[-1])
            yield stored[-1]
        if settled and not stored:
            sink.begin(selection)  # nothing to measure, but the branch may look different
        outcome = RunOutcome(tuple(stored), tuple(settled))
        sink.end(outcome.exit_code, outcome.summary)
        return outcome


def check_disks(settings: Settings) -> None:
    """Write a little where results and caches go, before hours are spent on what goes there.

    Raises:
        DiskError: naming the disk, and what to do.
    """
    probe_folder("The cache", settings.cache_folder)
    if settings.database_url.startswith("sqlite"):
        path = path_from(settings.database_url.partition(":///")[2])
        probe_folder("The database", path.resolve().parent)


def request_of(settings: Settings) -> Request:
    """What settings ask a run to measure, and on what."""
    return Request(
        model=settings.model,
        weights=settings.weights,
        device=settings.device,
        dtype=settings.dtype,
        backend=settings.backend,
        token_budget=settings.token_budget,
    )


def make_plan(
    settings: Settings, target: Target, known: Sequence[Run], options: RunOptions
) -> tuple[RunPlan, Selection]:
    """Resolve everything that a plan needs.

    Args:
        known: the target's current runs.

    Raises:
        MonitorError: repository, revision, benchmark set or protocol cannot be used.
    """
    check_adapter_file(target)
    request = request_of(settings)
    benchmarks = tuple(load_benchmark(name) for name in dict.fromkeys(settings.benchmark))
    protocol = with_policy(
        load_protocol(settings.protocol or None), policy_of(settings.database_url, target.name)
    )
    repository: Source | None = None
    if target.adapter == "builtin":
        if options.revisions or options.everything:
            raise ConfigurationError(
                "The built-in target is measured as it is installed: name a repository by --target "
                "to choose commits."
            )
        commit = builtin_commit(settings.cache_folder)
        selection = Selection((commit,), (commit,))
    else:
        repository = open_source(target, settings.cache_folder)
        if options.new:
            series = {
                benchmark.name: [
                    run
                    for run in known
                    if run.benchmark_digest == benchmark.digest
                    and request.asks_for(run.configuration)
                ]
                for benchmark in benchmarks
            }
            selection = select_new(repository, target, series)
        elif options.everything:
            history = branch_history(repository, target)
            commits = repository.commits(history, history)
            selection = Selection(commits, commits)
        else:
            wanted = options.revisions or [target.branch or "HEAD"]
            selection = select_revisions(repository, target, wanted)
    plan = RunPlan(
        target=target,
        repository=repository,
        commits=selection.commits,
        benchmarks=benchmarks,
        request=request,
        protocol=protocol,
        cache_folder=settings.cache_folder,
        timeout_s=settings.timeout_s,
        memory_limit_gib=settings.memory_limit_gib,
        network=settings.network,
        confine=settings.confine,
        hidden=secret_places(settings),
        workers=settings.workers,
        engine=settings.engine,
        scheduler=settings.scheduler,
        order=options.order,
        force=options.force,
        retry_errors=options.retry_errors,
        max_minutes=None if options.max_time_s is None else options.max_time_s / 60,
        gpu_wait_s=options.gpu_wait_s,
        probes=options.probes,
        keep_embeddings=settings.keep_embeddings,
    )
    return plan, selection
