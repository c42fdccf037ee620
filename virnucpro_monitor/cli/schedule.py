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
from virnucpro_monitor.secrecy import masked_url
from virnucpro_monitor.settings import SETTINGS_VARIABLE, Settings, load_settings, user_folder

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
    from virnucpro_monitor.host.private_settings import private_settings_path
    from virnucpro_monitor.host.schedule import crontab_line
    from virnucpro_monitor.host.systemd import systemd_units

    job = make_job(target, every, cron, max_minutes, benchmark, model, weights, device, dtype, db)
    if job.private:
        say(
            f"The database's password stands in {private_settings_path(job.name)}, which "
            f"`virnucpro-monitor schedule install` writes."
        )
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
    from virnucpro_monitor.host import private_settings, schedule
    from virnucpro_monitor.host.systemd import install_units, systemd_units, unit_name

    job = make_job(target, every, cron, max_minutes, benchmark, model, weights, device, dtype, db)
    units = systemd_units(job) if systemd else {}
    line = "" if systemd else schedule.crontab_line(job)
    private = private_settings.private_settings_path(job.name)
    if job.private:
        private_settings.write_private_settings(private, job.private)
    else:
        private_settings.remove_private_settings(private)
    job.log.parent.mkdir(parents=True, exist_ok=True)
    if systemd:
        timer = f"{unit_name(job.name)}.timer"
        install_units(units, timer)
        say(f"Started {timer}.")
        return
    schedule.write_crontab(schedule.with_line(schedule.read_crontab(), job.name, line))
    say(f"Installed for {job.name}: {job.cron}; its log is {job.log}.")


def remove(
    target: TargetOption = None, systemd: SystemdOption = False, db: DatabaseOption = None
) -> None:
    """Take a target's line out of the crontab; all other lines stay."""
    from virnucpro_monitor.host import private_settings, schedule
    from virnucpro_monitor.host.systemd import remove_units

    name = _target_name(target, db)
    if systemd:
        removed = remove_units(name)
    else:
        table = schedule.read_crontab()
        removed = schedule.find_line(table, name) is not None
        if removed:
            schedule.write_crontab(schedule.with_line(table, name, None))
    if removed:
        private_settings.remove_private_settings(private_settings.private_settings_path(name))
    say(f"Removed the schedule of {name}." if removed else f"Nothing is scheduled for {name}.")


def status(target: TargetOption = None, db: DatabaseOption = None) -> None:
    """Say when a target ran last, when it runs next, and how far behind it is."""
    from virnucpro_monitor.cli.status import target_status
    from virnucpro_monitor.host import schedule
    from virnucpro_monitor.host.times import local_zone, next_start

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
        moment = next_start(fields, datetime.now(local_zone()))
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
    from virnucpro_monitor.host.private_settings import private_settings_path
    from virnucpro_monitor.host.times import check_cron
    from virnucpro_monitor.host.times import every as interval
    from virnucpro_monitor.runner.builtin import BUILTIN

    weights = str(Path(weights).resolve()) if weights and weights.endswith(".pt") else weights
    settings = load_settings(
        db=db, model=model, weights=weights, device=device, dtype=dtype, benchmark=benchmark or None
    )
    chosen = choose_target(settings, target)
    if cron is None:
        cron, calendar = interval(every)
    else:
        cron, calendar = check_cron(cron), None
    url = _absolute_url(settings.database_url)
    environment, private = schedule.scheduled_environment()
    environment.pop("VIRNUCPRO_MONITOR_DB", None)  # the address is written once
    private = {name: value for name, value in private.items() if name in Settings.model_fields}
    private.pop("db", None)
    if masked_url(url) != url:
        private["db"] = url
    if private:
        environment[SETTINGS_VARIABLE] = str(private_settings_path(chosen.name))
    arguments = ["run", "--target", chosen.name, "--new"]
    if chosen.name == BUILTIN:
        arguments = ["run"]
    elif chosen.name not in {one.name for one in _named_targets(settings)}:
        arguments[2] = chosen.location
        if masked_url(chosen.location) != chosen.location:
            raise ConfigurationError(
                f"The repository's address holds a password: store it first, by "
                f"`virnucpro-monitor targets add {chosen.name} …`, and schedule it by that name."
            )
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
        "--db": None if "db" in private else url,
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
        environment=environment,
        private=private,
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
