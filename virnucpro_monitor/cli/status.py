"""`virnucpro-monitor status`: how far behind the runner is, and when it last spoke."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import typer

from virnucpro_monitor.cli.options import DatabaseOption, JsonOption, TargetOption, print_json
from virnucpro_monitor.errors import MonitorError
from virnucpro_monitor.records import Target
from virnucpro_monitor.settings import Settings, load_settings

if TYPE_CHECKING:
    from virnucpro_monitor.store.engine import Engine


def register(app: typer.Typer) -> None:
    app.command("status")(status)


def status(
    target: TargetOption = None, db: DatabaseOption = None, as_json: JsonOption = False
) -> None:
    """Say for each target what is measured, what is missing, and when its runner last spoke."""
    settings = load_settings(db=db)
    collected = collect_status(settings, target)
    if as_json:
        print_json(collected)
        return
    if not collected:
        typer.echo("No targets yet: virnucpro-monitor targets add NAME PATH|URL")
    for one in collected:
        typer.echo(one["target"])
        for line in describe_status(one):
            typer.echo(f"  {line}")


def target_status(settings: Settings, name: str) -> list[str]:
    """One target's status in lines; says so where nothing is stored of it."""
    from virnucpro_monitor.store.engine import open_engine
    from virnucpro_monitor.store.reader import load_targets

    try:
        engine = open_engine(settings.database_url, read_only=True)
    except MonitorError as error:
        return [f"last run    unknown: {error}"]
    try:
        target = next((one for one in load_targets(engine) if one.name == name), None)
        if target is None:
            return [f"last run    nothing is stored of {name} yet"]
        return describe_status(_status_of(engine, settings, target))
    finally:
        engine.dispose()


def collect_status(settings: Settings, wanted: str | None) -> list[dict[str, Any]]:
    """A JSON object for each target.

    Raises:
        NotFoundError: `wanted` is not in the database.
    """
    from virnucpro_monitor.cli.reading import choose_target
    from virnucpro_monitor.store.engine import open_engine
    from virnucpro_monitor.store.reader import load_targets

    engine = open_engine(settings.database_url, read_only=True)
    try:
        targets = [choose_target(engine, wanted)] if wanted else load_targets(engine)
        return [_status_of(engine, settings, target) for target in targets]
    finally:
        engine.dispose()


def _status_of(engine: Engine, settings: Settings, target: Target) -> dict[str, Any]:
    from virnucpro_monitor.store.reader import load_runs
    from virnucpro_monitor.store.summaries import load_coverage, load_heartbeats

    coverage = load_coverage(engine, target.name)
    beats = [one for one in load_heartbeats(engine) if one.target == target.name]
    runs = load_runs(engine, target=target.name)
    behind, unreachable = _commits_behind(settings, target, {run.commit.hash for run in runs})
    ended = next((one for one in beats if one.finished_at is not None), None)
    return {
        "target": target.name,
        "commits_on_branch": coverage.num_on_branch,
        "commits_measured": coverage.num_measured,
        "commits_not_measured": coverage.num_unmeasured,
        "commits_missing": coverage.num_missing,
        "commits_behind": behind,
        "repository_problem": unreachable,
        "last_heartbeat": beats[0].at.isoformat() if beats else None,
        "last_state": beats[0].state if beats else None,
        "last_message": beats[0].message if beats else None,
        "last_exit_code": ended.exit_code if ended else None,
        "last_finished_at": ended.finished_at.isoformat() if ended and ended.finished_at else None,
    }


def _commits_behind(
    settings: Settings, target: Target, seen: set[str]
) -> tuple[int | None, str | None]:
    """Commits on the branch after the last one with a run; or why that cannot be told."""
    from virnucpro_monitor.runner.checkout import Repository
    from virnucpro_monitor.runner.selection import branch_history

    if target.adapter == "builtin":
        return None, None
    try:
        repository = Repository.open(target.location, settings.cache_folder)
        history = branch_history(repository, target)
    except MonitorError as error:
        return None, str(error)
    places = [place for place, commit in enumerate(history) if commit in seen]
    return len(history) - (places[-1] + 1 if places else 0), None


def describe_status(one: dict[str, Any]) -> list[str]:
    """A target's status in lines for a person."""
    lines = []
    if one["last_heartbeat"] is None:
        lines.append("last run    never")
    else:
        age = _age(datetime.fromisoformat(one["last_heartbeat"]))
        lines.append(f"last heard  {age} ago, {one['last_state']}: {one['last_message']}")
    if one["last_exit_code"] is not None:
        age = _age(datetime.fromisoformat(one["last_finished_at"]))
        lines.append(f"last end    {age} ago, exit code {one['last_exit_code']}")
    if one["repository_problem"]:
        lines.append(f"behind      unknown: {one['repository_problem']}")
    elif one["commits_behind"] is not None:
        lines.append(f"behind      {one['commits_behind']} commits")
    lines.append(
        f"watched     {one['commits_on_branch']} commits: {one['commits_measured']} measured or "
        f"inherited, {one['commits_not_measured']} error or not run, "
        f"{one['commits_missing']} without any run"
    )
    return lines


def _age(moment: datetime) -> str:
    seconds = max((datetime.now(UTC) - moment).total_seconds(), 0)
    for unit, size in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} seconds"
