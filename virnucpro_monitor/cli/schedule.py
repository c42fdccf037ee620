"""`virnucpro-monitor schedule`: the crontab line (or systemd timer) that watches a target."""

from typing import Annotated

import typer

from virnucpro_monitor.cli.options import (
    DatabaseOption,
    MaxTimeOption,
    TargetOption,
    say,
    takes,
)
from virnucpro_monitor.settings import RUN_SETTINGS, Settings, load_settings

EveryOption = Annotated[
    str, typer.Option("--every", metavar="TIME", help="How often: 15m, 2h or 1d.")
]
CronOption = Annotated[
    str | None, typer.Option("--cron", metavar="FIELDS", help="cron's five fields, in its place.")
]
SystemdOption = Annotated[
    bool, typer.Option("--systemd", help="A user's systemd timer instead of a crontab line.")
]


def register(app: typer.Typer) -> None:
    group = typer.Typer(help="The crontab line that watches a target.", no_args_is_help=True)
    group.command("print")(print_line)
    group.command("install")(install)
    group.command("remove")(remove)
    group.command("status")(status)
    app.add_typer(group, name="schedule")


@takes(*RUN_SETTINGS)
def print_line(
    *,
    target: TargetOption = None,
    every: EveryOption = "1h",
    cron: CronOption = None,
    systemd: SystemdOption = False,
    settings: Settings,
    max_time: MaxTimeOption = None,
) -> None:
    """Print a crontab line that works as it is, or a systemd service with its timer."""
    from virnucpro_monitor.host.private_settings import private_settings_path
    from virnucpro_monitor.host.schedule import crontab_line
    from virnucpro_monitor.host.systemd import systemd_units
    from virnucpro_monitor.monitor.scheduling import make_job

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
    *,
    target: TargetOption = None,
    every: EveryOption = "1h",
    cron: CronOption = None,
    systemd: SystemdOption = False,
    settings: Settings,
    max_time: MaxTimeOption = None,
) -> None:
    """Put the line into the user's crontab, in place of an older one for the same target."""
    from virnucpro_monitor.host import private_settings, schedule
    from virnucpro_monitor.host.systemd import install_units, systemd_units, unit_name
    from virnucpro_monitor.monitor.scheduling import make_job

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
    from virnucpro_monitor.monitor.scheduling import scheduled_name

    name = scheduled_name(load_settings(db=db), target)
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
    from virnucpro_monitor.monitor.scheduling import (
        find_next_start,
        only_stored_target,
        scheduled_name,
    )

    settings = load_settings(db=db)
    name = scheduled_name(settings, target or only_stored_target(settings))
    found = find_next_start(name)
    if found.problem:
        say(found.problem)
    if found.at is None:
        typer.echo("next run    not scheduled by cron")
    else:
        typer.echo(f"next run    {found.at:%Y-%m-%d %H:%M %Z} ({found.fields})")
    for text in target_status(settings, name):
        typer.echo(text)
