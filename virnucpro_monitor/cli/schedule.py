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
    """Print a crontab line that works as it is, or a systemd service with its timer.

    With an alert file a second one: it looks after the first and tells what has happened.
    """
    from virnucpro_monitor.host.private_settings import private_settings_path
    from virnucpro_monitor.host.schedule import crontab_line
    from virnucpro_monitor.host.systemd import systemd_units
    from virnucpro_monitor.monitor.scheduling import make_alert_job, make_job

    job = make_job(settings, target, every, cron, max_time)
    alerts = make_alert_job(job)
    if job.private:
        say(
            f"The database's password stands in {private_settings_path(job.name)}, which "
            f"`virnucpro-monitor schedule install` writes."
        )
    for one in (job, alerts):
        if one is None:
            continue
        if not systemd:
            typer.echo(crontab_line(one))
            continue
        for name, text in systemd_units(one).items():
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
    """Put the line into the user's crontab, in place of an older one for the same target.

    With an alert file a second one: it looks after the first and tells what has happened.
    """
    from virnucpro_monitor.host import private_settings, schedule
    from virnucpro_monitor.host.systemd import install_units, systemd_units, unit_name
    from virnucpro_monitor.monitor.scheduling import (
        alert_job_name,
        make_alert_job,
        make_job,
        missing_card,
    )

    job = make_job(settings, target, every, cron, max_time)
    alerts = make_alert_job(job)
    jobs = [job] if alerts is None else [job, alerts]
    units = [systemd_units(one) for one in jobs] if systemd else []
    lines = [] if systemd else [schedule.crontab_line(one) for one in jobs]
    private = private_settings.private_settings_path(job.name)
    if job.private:
        private_settings.write_private_settings(private, job.private)
    else:
        private_settings.remove_private_settings(private)
    job.log.parent.mkdir(parents=True, exist_ok=True)
    if systemd:
        for one, texts in zip(jobs, units, strict=True):
            timer = f"{unit_name(one.name)}.timer"
            install_units(texts, timer)
            say(f"Started {timer}.")
        return
    table = schedule.with_line(schedule.read_crontab(), alert_job_name(job.name), None)
    for one, line in zip(jobs, lines, strict=True):
        table = schedule.with_line(table, one.name, line)
    schedule.write_crontab(table)
    for one in jobs:
        say(f"Installed for {one.name}: {one.cron}; its log is {one.log}.")
    if missing := missing_card(settings):
        say(missing)
    if alerts is None:
        say("Nobody is told of what it finds: `virnucpro-monitor alerts init` sets that up.")


def remove(
    target: TargetOption = None, systemd: SystemdOption = False, db: DatabaseOption = None
) -> None:
    """Take a target's line out of the crontab; all other lines stay."""
    from virnucpro_monitor.host import private_settings, schedule
    from virnucpro_monitor.host.systemd import remove_units
    from virnucpro_monitor.monitor.scheduling import alert_job_name, scheduled_name

    name = scheduled_name(load_settings(db=db), target)
    if systemd:
        removed = remove_units(name)
        remove_units(alert_job_name(name))
    else:
        table = schedule.read_crontab()
        removed = schedule.find_line(table, name) is not None
        if removed:
            table = schedule.with_line(table, alert_job_name(name), None)
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
