"""`virnucpro-monitor check`: a change against where it left its branch, for a CI."""

from pathlib import Path
from typing import Annotated, Any

import typer

from virnucpro_monitor.cli.options import (
    DEFAULT_GPU_WAIT_S,
    GpuWaitOption,
    JsonOption,
    MaxTimeOption,
    PackageOption,
    RetryErrorsOption,
    WaitOption,
    advising_to_wait,
    print_json,
    say,
    takes,
)
from virnucpro_monitor.settings import RUN_SETTINGS, Settings

HERE = "."


def register(app: typer.Typer) -> None:
    app.command("check")(check)


@takes(*RUN_SETTINGS)
def check(
    *,
    target: Annotated[
        str,
        typer.Option("--target", metavar="NAME|PATH", help="A target's name, or a git repository."),
    ] = HERE,
    package: PackageOption = None,
    head: Annotated[
        str, typer.Option("--head", metavar="REV", help="The change's last commit.")
    ] = "HEAD",
    base: Annotated[
        str | None,
        typer.Option(
            "--base",
            metavar="BRANCH",
            help="The branch that it is to go into, or a commit of it. "
            "[default: the target's branch, or the repository's main one]",
        ),
    ] = None,
    only_new: Annotated[
        bool,
        typer.Option("--only-new", help="Pass where nothing fails but what fails at the base."),
    ] = False,
    markdown: Annotated[
        Path | None,
        typer.Option("--markdown", metavar="FILE", help="Also write Markdown, for a pull request."),
    ] = None,
    junit: Annotated[
        Path | None, typer.Option("--junit", metavar="FILE", help="Also write JUnit XML.")
    ] = None,
    html: Annotated[
        Path | None,
        typer.Option("--html", metavar="FILE", help="Also write one page that needs nothing else."),
    ] = None,
    annotations: Annotated[
        bool,
        typer.Option("--annotations", help="Also print what GitHub shows beside the change."),
    ] = False,
    confirm: Annotated[
        int,
        typer.Option(
            "--confirm",
            metavar="N",
            min=0,
            max=20,
            help="Measure a head that fails so often again before that counts: a target that does "
            "both is flaky, and nothing is told. [default: 1]",
            show_default=False,
        ),
    ] = 1,
    settings: Settings,
    max_time: MaxTimeOption = None,
    retry_errors: RetryErrorsOption = False,
    wait: WaitOption = None,
    gpu_wait: GpuWaitOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure a change and the commit at which it left its branch, and say what it breaks.

    Stored results are used where there are any, and new ones are stored first of all. Exit code:
    0 the head keeps the promise, 2 it does not, 3 that could not be told.
    """
    from virnucpro_monitor.monitor.starting import workers_ahead

    with workers_ahead(settings) as pool:
        from virnucpro_monitor.cli.run import stopping_on_terminate
        from virnucpro_monitor.cli.run_display import listening, open_display
        from virnucpro_monitor.monitor.checking import CheckOptions, check_and_store
        from virnucpro_monitor.monitor.running import RunOptions, find_run_target

        options = CheckOptions(
            head=head,
            base=base,
            only_new=only_new,
            confirm=confirm,
            run=RunOptions(
                max_time_s=max_time,
                retry_errors=retry_errors,
                wait_s=wait or 0.0,
                gpu_wait_s=DEFAULT_GPU_WAIT_S if gpu_wait is None else gpu_wait,
            ),
        )
        chosen = find_run_target(settings, target, package)
        with advising_to_wait(), stopping_on_terminate(), open_display() as display:
            found = check_and_store(settings, chosen, options, listening(display), pool)
    from virnucpro_monitor.report.check import (
        check_annotations,
        check_html,
        check_junit,
        check_lines,
        check_markdown,
    )
    from virnucpro_monitor.report.export import write_report

    for path, text in ((markdown, check_markdown), (junit, check_junit), (html, check_html)):
        if path is not None:
            write_report(path, text(found))
            say(f"Wrote {path}.")
    if annotations:
        typer.echo("\n".join(check_annotations(found)), err=True)  # GitHub reads both streams
    if as_json:
        print_json(_values(found))
    else:
        typer.echo("\n".join(check_lines(found)))
    raise typer.Exit(found.exit_code)


def _values(found: Any) -> dict[str, Any]:
    """A check as JSON values."""
    from virnucpro_monitor.report.values import comparison_values, run_values

    return {
        "target": found.target.name,
        "base": found.base.hash if found.base else None,
        "head": found.head.hash,
        "outcome": found.outcome,
        "only_new": found.only_new,
        "results": [
            {
                "run": run_values(one.run),
                "is_new": one.is_new,
                "is_flaky": one.is_flaky,
                "attempts": list(one.attempts),
                "comparison": comparison_values(one.comparison) if one.comparison else None,
            }
            for one in found.results
        ],
    }
