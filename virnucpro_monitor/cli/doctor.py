"""`virnucpro-monitor doctor`: what works here, and what to do about what does not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from virnucpro_monitor.cli.options import (
    JsonOption,
    print_json,
    takes,
)
from virnucpro_monitor.errors import MissingDatabase, MonitorError, OutdatedSchema
from virnucpro_monitor.settings import Settings

if TYPE_CHECKING:
    from virnucpro_monitor.host.doctor import Finding

MARKS = {"ok": "ok     ", "warning": "warning", "problem": "PROBLEM"}


def register(app: typer.Typer) -> None:
    app.command("doctor")(doctor)


@takes("model", "weights", "device", "db")
def doctor(settings: Settings, as_json: JsonOption = False) -> None:
    """Look at GPU, torch, flash-attn, weights, disk, git, cron and the database.

    Exit code: 0 where nothing stands in the way, 1 otherwise.
    """
    from virnucpro_monitor.host.doctor import PROBLEM, examine

    findings = examine(settings.device, settings.model, settings.weights, settings.cache_folder)
    findings.append(examine_database(settings.database_url))
    if as_json:
        print_json(findings)
    else:
        for one in findings:
            typer.echo(f"{MARKS[one.level]}  {one.name:10}  {one.text}")
            if one.remedy and one.level != "ok":
                typer.echo(f"{'':21}-> {one.remedy}")
    raise typer.Exit(1 if any(one.level == PROBLEM for one in findings) else 0)


def examine_database(url: str) -> Finding:
    """Whether the database can be opened with this program's schema."""
    from virnucpro_monitor.host.doctor import OK, PROBLEM, WARNING, Finding
    from virnucpro_monitor.store.connection import describe, option_for, parse_url
    from virnucpro_monitor.store.engine import open_engine

    try:
        parsed = parse_url(url)
        open_engine(url, read_only=True).dispose()
    except MissingDatabase as error:
        sqlite = url.startswith("sqlite")
        remedy = f"virnucpro-monitor db create {option_for(parsed)}"
        return Finding("database", WARNING if sqlite else PROBLEM, str(error), remedy)
    except OutdatedSchema as error:
        remedy = f"virnucpro-monitor db upgrade {option_for(parsed)}"
        return Finding("database", PROBLEM, str(error), remedy)
    except MonitorError as error:
        return Finding("database", PROBLEM, str(error))
    return Finding("database", OK, describe(parsed))
