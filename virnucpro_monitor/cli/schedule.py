"""`virnucpro-monitor schedule`: the crontab line (or systemd timer) that watches a target."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from virnucpro_monitor.cli.options import (
    BenchmarkOption,
    DatabaseOption,
    DeviceOption,
    DtypeOption,
    ModelOption,
    TargetOption,
    WeightsOption,
    say,
)
from virnucpro_monitor.errors import ConfigurationError
from virnucpro_monitor.records import Target
from virnucpro_monitor.settings import Settings, load_settings, user_folder

if TYPE_CHECKING:
    from virnucpro_monitor.host.schedule import Job

EveryOption = Annotated[
    str, typer.Option("--every", metavar="TIME", help="How often: 15m, 2h or 1d.")
]
CronOption = Annotated[
    str | None, typer.Option("--cron", metavar="FIELDS", help="cron's five fields, in its place.")
]
SystemdOption = Annotated[
    bool, typer.Option("--systemd", help="A user's systemd timer instead of a crontab line.")
]
MaxMinutesOption = Annotated[
    float | None,
    typer.Option("--max-minutes", min=0, help="Leave the rest for the next start after this."),
]
WRITTEN_IF_SET = {
    "--backend": "backend",
    "--token-budget": "token_budget",
    "--timeout": "timeout_s",
    "--memory-limit": "memory_limit_gib",
    "--workers": "workers",
}
"""Options of `run` for settings that no option of `schedule` sets."""


def register(app: typer.Typer) -> None:
    group = typer.Typer(help="The crontab line that watches a target.", no_args_is_help=True)
    group.command("print")(print_line)
    group.command("install")(install)
    group.command("remove")(remove)
    group.command("status")(status)
    app.add_typer(group, name="schedule")


def print_line(
    target: TargetOption = None,
    every: EveryOption = "1h",
    cron: CronOption = None,
    systemd: SystemdOption = False,
    max_minutes: MaxMinutesOption = None,
    benchmark: BenchmarkOption = None,
    model: ModelOption = None,
    weights: WeightsOption = None,
    device: DeviceOption = None,
    dtype: DtypeOption = None,
    db: DatabaseOption = None,
) -> None:
    """Print a crontab line that works as it is, or a systemd service with its timer."""
    from virnucpro_monitor.host.schedule import crontab_line, systemd_units

    job = make_job(target, every, cron, max_minutes, benchmark, model, weights, device, dtype, db)
    if not systemd:
        typer.echo(crontab_line(job))
        return
    for name, text in systemd_units(job).items():
        typer.echo(f"# {name}\n{text}")


def install(
    target: TargetOption = None,
    every: EveryOption = "1h",
    cron: CronOption = None,
    systemd: SystemdOption = False,
    max_minutes: MaxMinutesOption = None,
    benchmark: BenchmarkOption = None,
    model: ModelOption = None,
    weights: WeightsOption = None,
    device: DeviceOption = None,
    dtype: DtypeOption = None,
    db: DatabaseOption = None,
) -> None:
    """Put the line into the user's crontab, in place of an older one for the same target."""
    from virnucpro_monitor.host import schedule

    job = make_job(target, every, cron, max_minutes, benchmark, model, weights, device, dtype, db)
    job.log.parent.mkdir(parents=True, exist_ok=True)
    if systemd:
        timer = f"{schedule.unit_name(job.name)}.timer"
        schedule.install_units(schedule.systemd_units(job), timer)
        say(f"Started {timer}.")
        return
    line = schedule.crontab_line(job)
    schedule.write_crontab(schedule.with_line(schedule.read_crontab(), job.name, line))
    say(f"Installed for {job.name}: {job.cron}; its log is {job.log}.")


def remove(
    target: TargetOption = None, systemd: SystemdOption = False, db: DatabaseOption = None
) -> None:
    """Take a target's line out of the crontab; all other lines stay."""
    from virnucpro_monitor.host import schedule

    name = _target_name(target, db)
    if systemd:
        removed = schedule.remove_units(name)
    else:
        table = schedule.read_crontab()
        removed = schedule.find_line(table, name) is not None
        if removed:
            schedule.write_crontab(schedule.with_line(table, name, None))
    say(f"Removed the schedule of {name}." if removed else f"Nothing is scheduled for {name}.")


def status(target: TargetOption = None, db: DatabaseOption = None) -> None:
    """Say when a target ran last, when it runs next, and how far behind it is."""
    from virnucpro_monitor.cli.status import target_status
    from virnucpro_monitor.host import schedule

    name = _target_name(target, db)
    try:
        line = schedule.find_line(schedule.read_crontab(), name)
    except ConfigurationError as error:
        line = None
        say(str(error))
    if line is None:
        typer.echo("next run    not scheduled by cron")
    else:
        fields = " ".join(line.split()[:5])
        moment = schedule.next_start(fields, datetime.now().astimezone())
        typer.echo(f"next run    {moment:%Y-%m-%d %H:%M %Z} ({fields})")
    for text in target_status(load_settings(db=db), name):
        typer.echo(text)


def make_job(
    target: str | None,
    every: str,
    cron: str | None,
    max_minutes: float | None,
    benchmark: list[str] | None,
    model: str | None,
    weights: str | None,
    device: str | None,
    dtype: str | None,
    db: str | None,
) -> Job:
    """What is to be started, with every path absolute.

    Raises:
        ConfigurationError: the target is not known, or the times cannot be read.
    """
    from virnucpro_monitor.cli.run import choose_target
    from virnucpro_monitor.host import schedule
    from virnucpro_monitor.runner.builtin import BUILTIN

    weights = str(Path(weights).resolve()) if weights and weights.endswith(".pt") else weights
    settings = load_settings(
        db=db, model=model, weights=weights, device=device, dtype=dtype, benchmark=benchmark or None
    )
    chosen = choose_target(settings, target)
    if cron is None:
        cron, calendar = schedule.every(every)
    else:
        calendar = None
        schedule.next_start(cron, datetime.now().astimezone())
    arguments = ["run", "--target", chosen.name, "--new"]
    if chosen.name == BUILTIN:
        arguments = ["run"]
    elif chosen.name not in {one.name for one in _named_targets(settings)}:
        arguments[2] = chosen.location
    # This folder's settings file is not there where cron starts: what holds now is written out.
    options = {
        "--model": settings.model,
        "--weights": settings.weights,
        "--device": settings.device,
        "--dtype": settings.dtype,
        **{
            option: str(getattr(settings, name))
            for option, name in WRITTEN_IF_SET.items()
            if name in settings.model_fields_set
        },
        "--max-minutes": None if max_minutes is None else f"{max_minutes:g}",
        "--db": _absolute_url(settings.database_url),
    }
    for option, value in options.items():
        if value is not None:
            arguments += [option, value]
    for one in settings.benchmark:
        arguments += ["--benchmark", one]
    return schedule.Job(
        name=chosen.name,
        arguments=tuple(arguments),
        log=user_folder("XDG_DATA_HOME", ".local/share") / "logs" / f"{chosen.name}.log",
        cron=cron,
        calendar=calendar,
        environment=schedule.scheduled_environment(),
    )


def _named_targets(settings: Settings) -> list[Target]:
    """Targets that a start from another folder finds by name: those in the database."""
    from virnucpro_monitor.cli.run import stored_targets

    return stored_targets(settings)


def _absolute_url(url: str) -> str:
    prefix = "sqlite:///"
    if not url.startswith(prefix) or url.startswith((f"{prefix}/", f"{prefix}file:")):
        return url
    return f"{prefix}{Path(url.removeprefix(prefix)).resolve()}"


def _target_name(target: str | None, db: str | None) -> str:
    """The name that a scheduled line bears; the target itself may be gone by now."""
    from virnucpro_monitor.cli.run import choose_target

    try:
        return choose_target(load_settings(db=db), target).name
    except ConfigurationError:
        return target or ""
