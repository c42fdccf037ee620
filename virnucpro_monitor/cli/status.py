"""`virnucpro-monitor status`: how far behind the runner is, and when it last spoke."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import typer

from virnucpro_monitor.cli.options import DatabaseOption, JsonOption, TargetOption, print_json
from virnucpro_monitor.errors import NotFoundError, StoreError
from virnucpro_monitor.records import short_hash
from virnucpro_monitor.report.text import visible
from virnucpro_monitor.settings import Settings

if TYPE_CHECKING:
    from virnucpro_monitor.monitor.status import TargetStatus
    from virnucpro_monitor.records import WorkHost


def register(app: typer.Typer) -> None:
    app.command("status")(status)


def status(
    target: TargetOption = None, db: DatabaseOption = None, as_json: JsonOption = False
) -> None:
    """Say for each target what is measured, missing and where, and when its runner last spoke."""
    from virnucpro_monitor.monitor.opening import open_database
    from virnucpro_monitor.monitor.status import load_statuses

    with open_database(db) as engine:
        statuses = load_statuses(engine, target)
    if as_json:
        print_json(list(statuses))
        return
    if not statuses:
        typer.echo("No targets yet: virnucpro-monitor targets add NAME PATH|URL")
    for one in statuses:
        typer.echo(one.target)
        for line in describe_status(one):
            typer.echo(f"  {line}")


def target_status(settings: Settings, name: str) -> list[str]:
    """One target's status in lines; says so where nothing is stored of it."""
    from virnucpro_monitor.monitor.opening import open_database
    from virnucpro_monitor.monitor.status import load_statuses

    try:
        with open_database(settings.database_url) as engine:
            (status,) = load_statuses(engine, name)
        return describe_status(status)
    except NotFoundError:
        return [f"last heard  never: nothing is stored of {name} yet"]
    except StoreError as error:
        return [f"last heard  unknown: {error}"]


def describe_status(one: TargetStatus) -> list[str]:
    """A target's status in lines for a person."""
    from virnucpro_monitor.report.text import count, format_age

    lines, now = [], datetime.now(UTC)
    if one.last_heartbeat is None:
        lines.append("last heard  never; only starts by `run --new` count")
    else:
        age = format_age(one.last_heartbeat, now)
        said = visible(f"{one.last_state}: {one.last_message}")
        lines.append(f"last heard  {age}, {said}")
    if one.last_finished_at is not None:
        age = format_age(one.last_finished_at, now)
        lines.append(f"last end    {age}, exit code {one.last_exit_code}")
    if one.repository_problem:
        lines.append(f"behind      unknown: {visible(one.repository_problem)}")
    elif one.commits_behind is not None:
        lines.append(f"behind      {count(one.commits_behind, 'commit')}")
    lines.append(
        f"watched     {count(one.commits_on_branch, 'commit')}: {one.commits_measured} measured or "
        f"inherited, {one.commits_not_measured} error or not run, "
        f"{one.commits_missing} without any run"
    )
    if one.flips:
        names = ", ".join(f"{short_hash(name)} ({times})" for name, times in one.flips.items())
        lines.append(f"flips       the same code both passed and failed: {names}")
    return lines + [_describe_host(host) for host in one.hosts]


def _describe_host(host: WorkHost) -> str:
    from virnucpro_monitor.report.text import count

    parts = [] if host.num_queued is None else [f"{count(host.num_queued, 'commit')} waiting"]
    for cards in host.cards:
        name = visible(cards.card) or "CPU"
        parts.append(f"{cards.num_cards} x {name}" if (cards.num_cards or 0) > 1 else name)
        if cards.num_cards == 0:
            parts[-1] += " (not there now)"
        if cards.utilisation is not None:
            parts[-1] += f" at {cards.utilisation} %"
        if cards.seconds_per_commit is not None:
            parts[-1] += f", {cards.seconds_per_commit:.1f} s a commit"
    return f"host        {visible(host.host)}: {'; '.join(parts) or 'nothing measured'}"
