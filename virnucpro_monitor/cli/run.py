"""`virnucpro-monitor run`: validate commits and store what comes of them."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from virnucpro_monitor.cli.options import (
    BackendOption,
    BenchmarkOption,
    DatabaseOption,
    DeviceOption,
    DtypeOption,
    JsonOption,
    ModelOption,
    PackageOption,
    TargetOption,
    TimeoutOption,
    TokenBudgetOption,
    WeightsOption,
    print_json,
    say,
)
from virnucpro_monitor.errors import ConfigurationError, MissingDatabase
from virnucpro_monitor.records import Outcome, Request, Run, Target
from virnucpro_monitor.settings import Settings, load_settings

if TYPE_CHECKING:
    from virnucpro_monitor.cli.run_display import Display
    from virnucpro_monitor.runner.plan import RunPlan
    from virnucpro_monitor.runner.selection import Selection

COMMIT_HELP = "A hash, tag or branch; may be given several times."


def register(app: typer.Typer) -> None:
    app.command("run")(run)


def run(
    target: TargetOption = None,
    package: PackageOption = None,
    commit: Annotated[
        list[str] | None, typer.Option("--commit", metavar="REV", help=COMMIT_HELP)
    ] = None,
    commits: Annotated[
        str | None,
        typer.Option("--commits", metavar="A..B", help="All commits that B has and A has not."),
    ] = None,
    new: Annotated[
        bool,
        typer.Option(
            "--new",
            help="All commits since the last one that was measured with this set-up; "
            "the branch's last commit where none was.",
        ),
    ] = False,
    benchmark: BenchmarkOption = None,
    model: ModelOption = None,
    weights: WeightsOption = None,
    device: DeviceOption = None,
    dtype: DtypeOption = None,
    backend: BackendOption = None,
    token_budget: TokenBudgetOption = None,
    order: Annotated[
        str, typer.Option("--order", metavar="ORDER", help="oldest, newest or bisect.")
    ] = "oldest",
    max_minutes: Annotated[
        float | None,
        typer.Option("--max-minutes", min=0, help="Leave the rest for the next start after this."),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Measure again what is known already.")
    ] = False,
    retry_errors: Annotated[
        bool, typer.Option("--retry-errors", help="Measure commits again that could not be run.")
    ] = False,
    timeout: TimeoutOption = None,
    memory_limit: Annotated[
        float | None,
        typer.Option("--memory-limit", metavar="GIB", min=0.1, help="Memory limit of one run."),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            "--workers",
            metavar="N",
            min=1,
            help="Commits measured at once; by default as many as cores and GPU memory allow.",
        ),
    ] = None,
    wait: Annotated[
        float, typer.Option("--wait", metavar="MINUTES", min=0, help="Wait for another runner.")
    ] = 0.0,
    gpu_wait: Annotated[
        float, typer.Option("--gpu-wait", metavar="MINUTES", min=0, help="Wait for a busy GPU.")
    ] = 10.0,
    log: Annotated[
        Path | None,
        typer.Option("--log", metavar="FILE", help="Append all output to FILE, rotating it."),
    ] = None,
    db: DatabaseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Validate commits of a target and store the results.

    Without --target: this package's own packed ESM-2, as it is installed.
    Exit code: 0 all passed, 2 equivalence failed somewhere, 3 something could not be run.
    """
    if log is not None:
        from virnucpro_monitor.cli.log_file import redirect_output

        redirect_output(log)
    settings = load_settings(
        db=db,
        model=model,
        weights=weights,
        device=device,
        dtype=dtype,
        backend=backend,
        token_budget=token_budget,
        benchmark=benchmark or None,
        timeout_s=timeout,
        memory_limit_gib=memory_limit,
        workers=workers,
    )
    revisions = [*(commit or ()), *((commits,) if commits else ())]
    if commits and ".." not in commits:
        raise ConfigurationError(f"--commits takes a range A..B; {commits!r} has no two dots.")
    if new and revisions:
        raise ConfigurationError(
            "--new picks the commits itself: leave --commit and --commits out."
        )
    chosen = choose_target(settings, target, package)
    outcome = run_and_store(
        settings,
        chosen,
        revisions=revisions,
        new=new,
        order=order,
        max_minutes=max_minutes,
        force=force,
        retry_errors=retry_errors,
        wait_s=wait * 60,
        gpu_wait_s=gpu_wait * 60,
    )
    if as_json:
        from virnucpro_monitor.report.values import run_values

        print_json([run_values(one) for one in outcome.runs])
    raise typer.Exit(outcome.exit_code)


@dataclass(frozen=True, slots=True)
class RunOutcome:
    """Attributes:
    runs: what was stored, in the order it came, with ids.
    settled: stored runs that made measuring needless.
    """

    runs: tuple[Run, ...]
    settled: tuple[Run, ...]

    @property
    def exit_code(self) -> int:
        """0 all passed; 2 a failure, also an inherited one; 3 something could not be run."""
        latest = {_series_of(run): run.effective_outcome for run in (*self.settled, *self.runs)}
        if Outcome.FAILED in latest.values():
            return 2
        return 0 if set(latest.values()) <= {Outcome.PASSED} else 3


def _series_of(run: Run) -> tuple[str, str, str]:
    return run.commit.hash, run.benchmark_digest, run.target


def choose_target(settings: Settings, wanted: str | None, package: str | None = None) -> Target:
    """The target that `--target` means: stored, configured, or a repository's path or URL."""
    from virnucpro_monitor.runner.targets import find_target

    return find_target(wanted, stored_targets(settings), package=package)


def stored_targets(settings: Settings) -> list[Target]:
    """Targets in the database; none where there is no database yet."""
    from virnucpro_monitor.store.engine import open_engine
    from virnucpro_monitor.store.reader import load_targets

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
    *,
    revisions: Sequence[str] = (),
    new: bool = False,
    order: str = "oldest",
    max_minutes: float | None = None,
    force: bool = False,
    retry_errors: bool = False,
    wait_s: float = 0.0,
    gpu_wait_s: float = 600.0,
    probes: bool = True,
    display: Display | None = None,
) -> RunOutcome:
    """Validate commits of a target and store each result as it comes.

    Args:
        revisions: hashes, tags, branches and ranges `A..B`; none means the branch's last commit.
        new: what `select_new` chooses, instead of `revisions`.
        display: where progress goes; by default a bar on a terminal, plain lines elsewhere.

    Raises:
        MonitorError: nothing could be run at all; nothing is stored then.
    """
    from virnucpro_monitor.cli.run_display import open_display
    from virnucpro_monitor.cli.run_sink import Sink, holding_locks
    from virnucpro_monitor.runner.commits import run_commits

    stored: list[Run] = []
    settled: list[Run] = []
    with (
        Sink(settings.database_url, target) as sink,
        holding_locks(settings, sink, wait_s=wait_s, on_wait=say),
        _stopping_on_terminate(),
        display or open_display() as shown,
    ):
        known = sink.known_runs()
        plan, selection = make_plan(
            settings,
            target,
            known,
            revisions=revisions,
            new=new,
            order=order,
            max_minutes=max_minutes,
            force=force,
            retry_errors=retry_errors,
            gpu_wait_s=gpu_wait_s,
            probes=probes,
        )
        if selection.note:
            shown.message(selection.note)
        for report in run_commits(
            plan,
            known=known,
            on_progress=shown.progress,
            on_message=shown.message,
            on_settled=settled.append,
        ):
            if not stored:
                sink.begin(selection)
            stored.append(replace(report.run, id=sink.save(report)))
            shown.report(stored[-1])
        if settled and not stored:
            sink.begin(selection)  # nothing to measure, but the branch may look different
        outcome = RunOutcome(tuple(stored), tuple(settled))
        sink.end(outcome.exit_code, shown.summary(outcome.runs, outcome.settled))
        return outcome


@contextmanager
def _stopping_on_terminate() -> Iterator[None]:
    """Let SIGTERM (a service manager's stop) end a run as Ctrl-C does: with its children ended."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    except KeyboardInterrupt:
        say("Interrupted; what was stored so far is kept.")
        raise
    finally:
        signal.signal(signal.SIGTERM, before)


def make_plan(
    settings: Settings,
    target: Target,
    known: Sequence[Run],
    *,
    revisions: Sequence[str] = (),
    new: bool = False,
    **choices: Any,
) -> tuple[RunPlan, Selection]:
    """Resolve everything that a plan needs; `choices` are further fields of `RunPlan`.

    Raises:
        MonitorError: repository, revision, benchmark set or protocol cannot be used.
    """
    from virnucpro_monitor.data.benchmarks import load_benchmark
    from virnucpro_monitor.runner.builtin import builtin_commit
    from virnucpro_monitor.runner.checkout import Repository
    from virnucpro_monitor.runner.plan import RunPlan
    from virnucpro_monitor.runner.selection import Selection, select_new, select_revisions
    from virnucpro_monitor.validation.protocol import load_protocol

    request = Request(
        model=settings.model,
        weights=settings.weights,
        device=settings.device,
        dtype=settings.dtype,
        backend=settings.backend,
        token_budget=settings.token_budget,
    )
    benchmarks = tuple(load_benchmark(name) for name in dict.fromkeys(settings.benchmark))
    protocol = load_protocol()
    repository = None
    if target.adapter == "builtin":
        if revisions:
            raise ConfigurationError(
                "The built-in target is measured as it is installed: name a repository by --target "
                "to choose commits."
            )
        commit = builtin_commit(settings.cache_folder)
        selection = Selection((commit,), (commit,))
    else:
        repository = Repository.open(target.location, settings.cache_folder)
        if new:
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
        else:
            wanted = revisions or [target.branch or "HEAD"]
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
        workers=settings.workers,
        **choices,
    )
    return plan, selection
