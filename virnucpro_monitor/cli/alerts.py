"""`virnucpro-monitor alerts`: what is told without being asked, and where."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from virnucpro_monitor.cli.log_file import LogOption, redirect_output
from virnucpro_monitor.cli.options import DatabaseOption, JsonOption, TargetOption, print_json, say
from virnucpro_monitor.errors import ConfigurationError, LockedError
from virnucpro_monitor.settings import load_settings

if TYPE_CHECKING:
    from virnucpro_monitor.host.alert_file import AlertFile

SHOWN = 20


def register(app: typer.Typer) -> None:
    group = typer.Typer(help="What is told without being asked, and where.", no_args_is_help=True)
    group.command("init")(init)
    group.command("test")(try_channels)
    group.command("check")(check)
    group.command("list")(list_alerts)
    app.add_typer(group, name="alerts")


def init() -> None:
    """Write an alert file to fill in, which only you can read."""
    from virnucpro_monitor.host.alert_file import alert_path, write_example

    path = alert_path(load_settings())
    write_example(path)
    say(f"Wrote {path}: fill in a channel, then try it by `virnucpro-monitor alerts test`.")


def _read_file() -> AlertFile:
    from virnucpro_monitor.host.alert_file import alert_path, read_alert_file

    path = alert_path(load_settings())
    file = read_alert_file(path)
    if file is None:
        raise ConfigurationError(
            f"There is no alert file {path}: `virnucpro-monitor alerts init` writes one to fill in."
        )
    return file


def try_channels(
    channel: Annotated[
        str | None,
        typer.Argument(help="Name of one channel; all of them without it.", show_default=False),
    ] = None,
) -> None:
    """Send a trial message to each channel. Exit code 1 where one does not take it."""
    from virnucpro_monitor.report.alerting import send_trial, template_problems

    file = _read_file()
    chosen = [one for one in file.channels if channel in (None, one.rules.name)]
    if not file.channels:
        raise ConfigurationError(f"{file.path} has no channel yet: fill one in.")
    if not chosen:
        names = ", ".join(one.rules.name for one in file.channels)
        raise ConfigurationError(f"{file.path} has no channel {channel!r}; it has {names}.")
    for line in template_problems(file):
        say(line)
    failed = False
    for one in chosen:
        problem = send_trial(one)
        failed = failed or bool(problem)
        typer.echo(f"{one.rules.name}: {f'not taken: {problem}' if problem else 'sent'}")
    raise typer.Exit(1 if failed else 0)


def check(
    target: TargetOption = None,
    db: DatabaseOption = None,
    log: LogOption = None,
    as_json: JsonOption = False,
) -> None:
    """Tell what has happened, and whether a runner is dead or far behind; send what is due.

    Started by cron or a timer of its own, it works where the runner does not.
    """
    if log is not None:
        redirect_output(log)
    from virnucpro_monitor.report.alerting import pass_lines, run_alert_pass, template_problems

    file = _read_file()
    try:
        done = run_alert_pass(db, file, target)
    except LockedError as error:
        say(str(error))
        return
    if as_json:
        print_json(
            {
                "alerts": [
                    {"kind": one.kind, "target": one.target, "summary": one.summary}
                    for one in done.alerts
                ],
                "delivered": [
                    {"channel": one.channel, "alerts": len(one.alerts), "problem": one.problem}
                    for one in done.delivered
                ],
                "problems": list(done.problems),
            }
        )
        return
    for line in [*template_problems(file), *pass_lines(done)] or ["Nothing to tell."]:
        say(line)


def list_alerts(
    target: TargetOption = None, db: DatabaseOption = None, as_json: JsonOption = False
) -> None:
    """Show the newest alerts, and how each was delivered."""
    from virnucpro_monitor.monitor.alerting import load_told
    from virnucpro_monitor.monitor.naming import choose_target
    from virnucpro_monitor.monitor.opening import open_database
    from virnucpro_monitor.report.text import visible

    with open_database(db) as engine:
        name = choose_target(engine, target).name if target else None
        told = load_told(engine, name)
    if as_json:
        print_json([{"alert": alert, "deliveries": list(ways)} for alert, ways in told])
        return
    if not told:
        say("No alert.")
    for alert, ways in told[-SHOWN:]:
        typer.echo(f"{alert.created_at:%Y-%m-%d %H:%M} {alert.kind:11} {visible(alert.summary)}")
        for one in ways:
            problem = f": {visible(one.problem)}" if one.problem else ""
            state = one.state.replace("_", " ")
            typer.echo(f"{'':17}{one.channel} {state}{problem}")
