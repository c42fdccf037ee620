"""`virnucpro-monitor schedule`: the crontab line (or systemd timer) that watches a target."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from virnucpro_monitor.cli.options import (
    RUN_SETTINGS,
    DatabaseOption,
    MaxTimeOption,
    TargetOption,
    say,
    takes,
)
from virnucpro_monitor.errors import ConfigurationError, MonitorError
from virnucpro_monitor.secrecy import masked_url
from virnucpro_monitor.settings import (
    SETTINGS,
    SETTINGS_VARIABLE,
    Settings,
    load_settings,
    user_folder,
)

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
ALWAYS_WRITTEN = ("model", "weights", "device", "dtype", "benchmark", "db")


def register(app: typer.Typer) -> None:
    group = typer.Typer(help="The crontab line that watches a target.", no_args_is_help=True)
    group.command("print")(print_line)
    group.command("install")(install)
    group.command("remove")(remove)
    group.command("status")(status)
    app.add_typer(group, name="schedule")


@takes(*RUN_SETTINGS)
def print_line(
    settings: Settings,
    target: TargetOption = None,
    every: EveryOption = "1h",
    cron: CronOption = None,
    systemd: SystemdOption = False,
    max_time: MaxTimeOption = None,
) -> None:
    """Print a crontab line that works as it is, or a systemd service with its timer."""
    from virnucpro_monitor.host.private_settings import private_settings_path
    from virnucpro_monitor.host.schedule import crontab_line
    from virnucpro_monitor.host.systemd import systemd_units

    job = make_job(settings, target, every, cron, max_time)
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


@takes(*RUN_SETTINGS)
def install(
    settings: Settings,
    target: TargetOption = None,
    every: EveryOption = "1h",
    cron: CronOption = None,
    systemd: SystemdOption = False,
    max_time: MaxTimeOption = None,
) -> None:
    """Put the line into the user's crontab, in place of an older one for the same target."""
    from virnucpro_monitor.host import private_settings, schedule
    from virnucpro_monitor.host.systemd import install_units, systemd_units, unit_name

    job = make_job(settings, target, every, cron, max_time)
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

    name = _target_name(load_settings(db=db), target)
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
    """Say when a target ran last, when it runs next, and how far behind it is.

    Without --target: the only one stored.
    """
    from virnucpro_monitor.cli.status import target_status
    from virnucpro_monitor.host import schedule
    from virnucpro_monitor.host.times import local_zone, next_start

    settings = load_settings(db=db)
    name = _target_name(settings, target or _only_stored(settings))
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
    for text in target_status(settings, name):
        typer.echo(text)


def make_job(
    settings: Settings,
    target: str | None,
    every: str,
    cron: str | None,
    max_time_s: float | None,
) -> Job:
    """What is to be started, with every path absolute.

    Raises:
        ConfigurationError: the target is not known, or the times cannot be read.
    """
    from virnucpro_monitor.host import schedule
    from virnucpro_monitor.host.private_settings import private_settings_path
    from virnucpro_monitor.host.times import check_cron
    from virnucpro_monitor.host.times import every as interval
    from virnucpro_monitor.monitor.running import find_run_target, stored_targets
    from virnucpro_monitor.runner.builtin import BUILTIN

    chosen = find_run_target(settings, target)
    if cron is None:
        cron, calendar = interval(every)
    else:
        cron, calendar = check_cron(cron), None
    environment, private = schedule.scheduled_environment()
    environment |= _folders(settings)
    environment.pop(SETTINGS["db"].variable, None)  # the address is written once
    private = {name: value for name, value in private.items() if name in SETTINGS}
    private.pop("db", None)
    url = _elsewhere(settings, "db")
    if masked_url(url) != url:
        private["db"] = url
    if private:
        environment[SETTINGS_VARIABLE] = str(private_settings_path(chosen.name))
    arguments = ["run", "--new"]
    if chosen.name != BUILTIN:
        # By name where a start from another folder finds it so: in the database.
        stored = {one.name for one in stored_targets(settings)}
        arguments += ["--target", chosen.name if chosen.name in stored else chosen.location]
        if chosen.name not in stored and masked_url(chosen.location) != chosen.location:
            raise ConfigurationError(
                f"The repository's address holds a password: store it first, by "
                f"`virnucpro-monitor targets add {chosen.name} …`, and schedule it by that name."
            )
    arguments += setting_arguments(settings, leave_out=private)
    if max_time_s is not None:
        arguments += ["--max-time", f"{max_time_s:g}s"]
    return schedule.Job(
        name=chosen.name,
        arguments=tuple(arguments),
        log=user_folder("XDG_DATA_HOME", ".local/share") / "logs" / f"{chosen.name}.log",
        cron=cron,
        calendar=calendar,
        environment=environment,
        private=private,
    )


def setting_arguments(settings: Settings, leave_out: Collection[str] = ()) -> list[str]:
    """The options of `run` that say what holds here: the folder's file is not there for cron."""
    arguments: list[str] = []
    for name in RUN_SETTINGS:
        set_here = name in ALWAYS_WRITTEN or name in settings.model_fields_set
        if name in leave_out or not set_here:
            continue
        value = _elsewhere(settings, name)
        for one in value if isinstance(value, list) else [value]:
            arguments += [SETTINGS[name].about.flag, str(one)]
    return arguments


def _folders(settings: Settings) -> dict[str, str]:
    """What no option says, and the folder's settings file may."""
    if "cache_dir" not in settings.model_fields_set:
        return {}
    return {SETTINGS["cache_dir"].variable: str(settings.cache_folder.expanduser().resolve())}


def _elsewhere(settings: Settings, name: str) -> Any:
    """A setting's value as it is written for a start from another folder."""
    if name == "db":
        return _absolute_url(settings.database_url)
    value = getattr(settings, name)
    if name == "weights" and value not in ("official", "synthetic"):
        return Path(value).expanduser().resolve()
    if name == "protocol" and value.endswith(".json"):
        return Path(value).expanduser().resolve()
    return value


def _absolute_url(url: str) -> str:
    prefix = "sqlite:///"
    if not url.startswith(prefix) or url.startswith((f"{prefix}/", f"{prefix}file:")):
        return url
    return f"{prefix}{Path(url.removeprefix(prefix)).resolve()}"


def _only_stored(settings: Settings) -> str | None:
    """The name of the only stored target; None where there is none, or where there are several."""
    from virnucpro_monitor.monitor.running import stored_targets

    try:
        names = [one.name for one in stored_targets(settings)]
    except MonitorError:
        return None  # what ails the database is said below
    if len(names) > 1:
        raise ConfigurationError(
            f"Several targets are stored: choose by --target ({', '.join(names)})."
        )
    return names[0] if names else None


def _target_name(settings: Settings, target: str | None) -> str:
    """The name that a scheduled line bears; the target itself may be gone by now."""
    from virnucpro_monitor.monitor.running import find_run_target

    try:
        return find_run_target(settings, target).name
    except ConfigurationError:
        return target or ""
