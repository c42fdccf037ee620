"""`virnucpro-monitor doctor`: what works here, and what to do about what does not."""

import typer

from virnucpro_monitor.cli.options import JsonOption, print_json, takes
from virnucpro_monitor.settings import Settings

MARKS = {"ok": "ok     ", "warning": "warning", "problem": "PROBLEM"}


def register(app: typer.Typer) -> None:
    app.command("doctor")(doctor)


@takes("model", "weights", "device", "db")
def doctor(settings: Settings, as_json: JsonOption = False) -> None:
    """Look at GPU, torch, flash-attn, weights, disk, git, cron and the database.

    Exit code: 0 where nothing stands in the way, 1 otherwise.
    """
    from virnucpro_monitor.host.doctor import PROBLEM
    from virnucpro_monitor.monitor.databases import examine_everything

    findings = examine_everything(settings)
    if as_json:
        print_json(findings)
    else:
        for one in findings:
            typer.echo(f"{MARKS[one.level]}  {one.name:10}  {one.text}")
            if one.remedy and one.level != "ok":
                typer.echo(f"{'':21}-> {one.remedy}")
    raise typer.Exit(1 if any(one.level == PROBLEM for one in findings) else 0)
