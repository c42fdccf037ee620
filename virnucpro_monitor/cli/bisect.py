"""`virnucpro-monitor bisect GOOD BAD`: the commit at which the verdict changed."""

from typing import Annotated

import typer

from virnucpro_monitor.cli.options import (
    DEFAULT_GPU_WAIT_S,
    GpuWaitOption,
    JsonOption,
    PackageOption,
    RetryErrorsOption,
    TargetOption,
    WaitOption,
    advising_to_wait,
    print_json,
    takes,
    time_option,
)
from virnucpro_monitor.settings import RUN_SETTINGS, SETTINGS, Settings

_AS_STORED = ("benchmark", "model", "weights", "device", "dtype", "token_budget")


def register(app: typer.Typer) -> None:
    app.command("bisect")(bisect)


@takes(
    *RUN_SETTINGS,
    shown={
        name: f"as in the target's newest run, or {SETTINGS[name].default_text}"
        for name in _AS_STORED
    },
)
def bisect(
    good: Annotated[str, typer.Argument(metavar="GOOD", help="A commit that passes.")],
    bad: Annotated[str, typer.Argument(metavar="BAD", help="A commit that fails.")],
    *,
    target: TargetOption = None,
    package: PackageOption = None,
    gate: Annotated[
        str | None, typer.Option("--gate", metavar="NAME", help="Judge by one gate alone.")
    ] = None,
    settings: Settings,
    max_time: Annotated[
        float | None, time_option("--max-time", help="Stop measuring after this much run time.")
    ] = None,
    retry_errors: RetryErrorsOption = False,
    wait: WaitOption = None,
    gpu_wait: GpuWaitOption = None,
    as_json: JsonOption = False,
) -> None:
    """Find the first bad commit, or, where BAD is the older one, the commit that mended it.

    Stored results are used where there are any, and every step is stored. Commits that cannot be
    run are stepped around. What neither a flag nor a setting says is as in the target's newest
    stored run; without --target it is the only one stored. Exit code: 0 found, 3 not narrowed down
    to one commit.
    """
    from virnucpro_monitor.cli.bisections import bisection_values
    from virnucpro_monitor.cli.run import stopping_on_terminate
    from virnucpro_monitor.cli.run_display import listening, open_display
    from virnucpro_monitor.monitor.bisecting import (
        BisectOptions,
        as_measured_last,
        bisect_and_store,
        only_stored_repository,
    )
    from virnucpro_monitor.monitor.running import find_run_target

    chosen = find_run_target(settings, target or only_stored_repository(settings, good), package)
    options = BisectOptions(
        gate=gate,
        max_time_s=max_time,
        retry_errors=retry_errors,
        wait_s=wait or 0.0,
        gpu_wait_s=DEFAULT_GPU_WAIT_S if gpu_wait is None else gpu_wait,
    )
    with advising_to_wait(), stopping_on_terminate(), open_display() as display:
        bisection = bisect_and_store(
            as_measured_last(settings, chosen), chosen, good, bad, options, listening(display)
        )
    if as_json:
        print_json(bisection_values(bisection))
    else:
        typer.echo(bisection.conclusion)
    raise typer.Exit(0 if bisection.first_bad else 3)
