"""`virnucpro-monitor run`: validate commits and store what comes of them."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from virnucpro_monitor.cli.log_file import LogOption, redirect_output
from virnucpro_monitor.cli.options import (
    DEFAULT_GPU_WAIT_S,
    GpuWaitOption,
    JsonOption,
    MaxTimeOption,
    PackageOption,
    RetryErrorsOption,
    TargetOption,
    WaitOption,
    advising_to_wait,
    print_json,
    say,
    takes,
)
from virnucpro_monitor.errors import ConfigurationError
from virnucpro_monitor.settings import RUN_SETTINGS, Settings

_STOPS = (signal.SIGINT, signal.SIGTERM)
COMMIT_HELP = "A hash, tag or branch; may be given several times."


def register(app: typer.Typer) -> None:
    app.command("run")(run)


@takes(*RUN_SETTINGS)
def run(
    *,
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
    everything: Annotated[
        bool, typer.Option("--all", help="The branch's whole history, its first commit included.")
    ] = False,
    settings: Settings,
    order: Annotated[
        str, typer.Option("--order", metavar="ORDER", help="oldest, newest or bisect.")
    ] = "oldest",
    max_time: MaxTimeOption = None,
    force: Annotated[
        bool, typer.Option("--force", help="Measure again what is known already.")
    ] = False,
    retry_errors: RetryErrorsOption = False,
    wait: WaitOption = None,
    gpu_wait: GpuWaitOption = None,
    log: LogOption = None,
    as_json: JsonOption = False,
) -> None:
    """Validate commits of a target and store the results.

    Without --target: this package's own packed ESM-2, as it is installed. The name of a matrix of
    environments means all of them.
    Exit code: 0 all passed, 2 equivalence failed somewhere, 3 something could not be run.
    """
    if log is not None:
        redirect_output(log)
    if commits and ".." not in commits:
        raise ConfigurationError(f"--commits takes a range A..B; {commits!r} has no two dots.")
    revisions = [*(commit or ()), *((commits,) if commits else ())]
    if sum((new, everything, bool(revisions))) > 1:
        raise ConfigurationError(
            "--new and --all pick the commits themselves: give one of them, or --commit and "
            "--commits."
        )
    from virnucpro_monitor.monitor.starting import workers_ahead

    with workers_ahead(settings) as pool:
        from virnucpro_monitor.cli.run_display import listening, open_display
        from virnucpro_monitor.monitor.running import RunOptions, find_run_targets, run_and_store

        options = RunOptions(
            revisions=revisions,
            new=new,
            everything=everything,
            order=order,
            max_time_s=max_time,
            force=force,
            retry_errors=retry_errors,
            wait_s=wait or 0.0,
            gpu_wait_s=DEFAULT_GPU_WAIT_S if gpu_wait is None else gpu_wait,
        )
        chosen = find_run_targets(settings, target, package)
        outcomes = []
        with advising_to_wait(), stopping_on_terminate(), open_display() as display:
            for one in chosen:
                own = pool if one is chosen[0] else None
                outcomes.append(run_and_store(settings, one, options, listening(display), own))
                name = f"{one.name}: " if len(chosen) > 1 else ""
                display.message(f"{name}{outcomes[-1].summary}")
    from virnucpro_monitor.report.alerting import alert_after_run
    from virnucpro_monitor.report.prometheus import write_metrics_after_run

    for one in chosen:
        alert_after_run(settings, one, say)
    write_metrics_after_run(settings, say)
    if as_json:
        from virnucpro_monitor.report.values import run_values

        print_json([run_values(run) for outcome in outcomes for run in outcome.runs])
    codes = {outcome.exit_code for outcome in outcomes}
    raise typer.Exit(next(code for code in (2, 3, 0) if code in codes))


@contextmanager
def stopping_on_terminate() -> Iterator[None]:
    """Let SIGTERM (a service manager's stop) end a run as Ctrl-C does: with its children ended.

    Whoever asks again meanwhile has this process ended at once: its children end without it, too.
    """
    asked = False

    def stop(*_: object) -> None:
        nonlocal asked
        if asked:
            say("Ended at once; what was stored so far is kept.")
            os._exit(130)
        asked = True
        raise KeyboardInterrupt

    heeded = [one for one in _STOPS if signal.getsignal(one) is not signal.SIG_IGN]
    before = {number: signal.signal(number, stop) for number in heeded}
    try:
        yield
    except KeyboardInterrupt:
        say("Interrupted; what was stored so far is kept.")  # Typer ends here without a word
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
