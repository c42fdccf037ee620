"""The start that a target's schedule makes: `run --new` with what holds here, written out."""

from collections.abc import Collection
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from virnucpro_monitor.errors import ConfigurationError, MonitorError
from virnucpro_monitor.host import schedule
from virnucpro_monitor.host.alert_file import alert_path
from virnucpro_monitor.host.private_settings import private_settings_path
from virnucpro_monitor.host.times import check_cron, local_zone, next_start
from virnucpro_monitor.host.times import every as interval
from virnucpro_monitor.monitor.running import find_run_target, stored_targets
from virnucpro_monitor.records.request import NAMED_WEIGHTS
from virnucpro_monitor.runner.builtin import BUILTIN
from virnucpro_monitor.runner.gpu import count_gpus
from virnucpro_monitor.runner.passwords import is_kept
from virnucpro_monitor.secrecy import masked_url
from virnucpro_monitor.settings import (
    RUN_SETTINGS,
    SETTINGS,
    SETTINGS_VARIABLE,
    Settings,
)
from virnucpro_monitor.user_folders import user_folder

ALERTS_EVERY = "15m"
ALWAYS_WRITTEN = ("model", "weights", "device", "dtype", "benchmark", "db")


def make_job(
    settings: Settings,
    target: str | None,
    every: str,
    cron: str | None,
    max_time_s: float | None,
) -> schedule.Job:
    """What is to be started, with every path absolute.

    Args:
        target: a name, or the path or URL of a repository; None for the built-in one.
        every: how often, such as "15m", where `cron` is None.
        cron: its five fields.
        max_time_s: of one start; None: no limit.

    Raises:
        ConfigurationError: the target is not known, or the times cannot be read.
    """
    chosen = find_run_target(settings, target)
    if cron is None:
        cron, calendar = interval(every)
    else:
        cron, calendar = check_cron(cron), None
    environment, private = schedule.scheduled_environment()
    environment |= _without_option(settings)
    alerts = alert_path(settings)
    if alerts.exists():
        environment[SETTINGS["alerts_file"].variable] = str(alerts.resolve())
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
        if chosen.name not in stored and not is_kept(chosen.location):
            raise ConfigurationError(
                f"The repository's address holds a password: store it first, by "
                f"`virnucpro-monitor targets add {chosen.name} …`, and schedule it by that name."
            )
        if chosen.name not in stored and chosen.package:
            arguments += ["--package", chosen.package]
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
        purpose=f"Validate new commits of {chosen.name}",
    )


def alert_job_name(name: str) -> str:
    """What the schedule of a target's alerts is called."""
    return f"{name}.alerts"


def make_alert_job(job: schedule.Job) -> schedule.Job | None:
    """The start that looks after the runner that `job` starts; None where no alerts are set up.

    It is a line of its own, since a runner that hangs or is gone cannot tell of itself.
    """
    file = job.environment.get(SETTINGS["alerts_file"].variable)
    if file is None or not Path(file).exists():
        return None
    cron, calendar = interval(ALERTS_EVERY)
    arguments = ["alerts", "check", "--target", job.name]
    if "--db" in job.arguments:
        arguments += ["--db", job.arguments[job.arguments.index("--db") + 1]]
    name = alert_job_name(job.name)
    return replace(
        job,
        name=name,
        arguments=tuple(arguments),
        log=job.log.with_name(f"{name}.log"),
        cron=cron,
        calendar=calendar,
        private={},
        purpose=f"Tell what has happened of {job.name}",
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


def missing_card(settings: Settings) -> str:
    """A sentence where this host has not the card that its scheduled starts would measure on."""
    device = settings.device
    if device == "cpu" or settings.engine != "local" or count_gpus():
        return ""
    return (
        f"No start will measure here: it has no card, and the line says --device {device}. "
        "--device, --model and --dtype, or the settings file, say another set-up."
    )


def _without_option(settings: Settings) -> dict[str, str]:
    """What no option says, and the folder's settings file may."""
    told = {}
    for name, setting in SETTINGS.items():
        if setting.about.flag or name not in settings.model_fields_set:
            continue
        value = getattr(settings, name)
        if isinstance(value, Path):
            told[setting.variable] = str(value.expanduser().resolve())
        else:
            told[setting.variable] = str(value).lower()
    return told


def _elsewhere(settings: Settings, name: str) -> Any:
    """A setting's value as it is written for a start from another folder."""
    if name == "db":
        return _absolute_url(settings.database_url)
    value = getattr(settings, name)
    if name == "weights" and value not in NAMED_WEIGHTS:
        return Path(value).expanduser().resolve()
    if name == "protocol" and value.endswith(".json"):
        return Path(value).expanduser().resolve()
    return value


def _absolute_url(url: str) -> str:
    prefix = "sqlite:///"
    if not url.startswith(prefix) or url.startswith((f"{prefix}/", f"{prefix}file:")):
        return url
    return f"{prefix}{Path(url.removeprefix(prefix)).resolve()}"


def only_stored_target(settings: Settings) -> str | None:
    """The name of the only stored target; None where there is none, or where there are several."""
    try:
        names = [one.name for one in stored_targets(settings)]
    except MonitorError:
        return None  # what ails the database is for others to say
    if len(names) > 1:
        raise ConfigurationError(
            f"Several targets are stored: choose by --target ({', '.join(names)})."
        )
    return names[0] if names else None


def scheduled_name(settings: Settings, target: str | None) -> str:
    """The name that a scheduled line bears; the target itself may be gone by now."""
    try:
        return find_run_target(settings, target).name
    except ConfigurationError:
        return target or ""


@dataclass(frozen=True, slots=True)
class NextStart:
    """When cron starts a target next.

    Attributes:
        fields: cron's five.
        at: None where nothing is scheduled.
        problem: why the crontab cannot be read, empty where it can.
    """

    fields: str = ""
    at: datetime | None = None
    problem: str = ""


def find_next_start(name: str) -> NextStart:
    """When cron starts the target `name` next, by this user's crontab."""
    try:
        line = schedule.find_line(schedule.read_crontab(), name)
    except ConfigurationError as error:
        return NextStart(problem=str(error))
    if line is None:
        return NextStart()
    fields = " ".join(line.split()[:5])
    return NextStart(fields, next_start(fields, datetime.now(local_zone())))
