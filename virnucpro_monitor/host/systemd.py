"""A systemd timer of the user's, in place of a line in the crontab."""

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from virnucpro_monitor.errors import ConfigurationError
from virnucpro_monitor.host.schedule import Job, last_line


def systemd_units(job: Job) -> dict[str, str]:
    """File name -> text of a user's service and timer.

    Raises:
        ConfigurationError: the job's times were given in cron's form, or hold a line break.
    """
    if job.calendar is None:
        raise ConfigurationError("A systemd timer takes --every, not --cron.")
    if any("\n" in word for word in (*job.command(), *job.environment.values())):
        raise ConfigurationError("A setting holds a line break, which a systemd unit cannot.")
    name = unit_name(job.name)
    # A dollar stands for a variable in a command, and for itself in a variable's value.
    quoted = " ".join(_quoted(word).replace("$", "$$") for word in job.command())
    environment = "".join(
        f"Environment={_quoted(f'{key}={value}')}\n" for key, value in job.environment.items()
    )
    return {
        f"{name}.service": (
            f"[Unit]\nDescription={job.purpose}\n\n"
            f"[Service]\nType=oneshot\n{environment}ExecStart={quoted}\n"
            # Failed equivalence (2) and commits that cannot be run (3) are results, not faults.
            "SuccessExitStatus=2 3\n"
            # So that each commit's processes have a control group of their own.
            "Delegate=pids\n"
        ),
        f"{name}.timer": (
            f"[Unit]\nDescription=Start {name}.service\n\n"
            f"[Timer]\nOnCalendar={job.calendar}\nPersistent=true\n\n"
            "[Install]\nWantedBy=timers.target\n"
        ),
    }


def unit_name(name: str) -> str:
    return f"virnucpro-monitor-{name}"


def _quoted(word: str) -> str:
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{escaped}"'


def unit_folder() -> Path:
    base = os.environ.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")
    return Path(base) / "systemd" / "user"


def systemctl(*arguments: str) -> str:
    """Run `systemctl --user` and return what it printed.

    Raises:
        ConfigurationError: it is missing or fails.
    """
    try:
        done = subprocess.run(
            ["systemctl", "--user", *arguments], capture_output=True, text=True, check=False
        )
    except FileNotFoundError as error:
        raise ConfigurationError("There is no systemctl command here: use cron.") from error
    if done.returncode != 0:
        raise ConfigurationError(
            f"systemctl --user {arguments[0]} failed: {last_line(done.stderr or done.stdout)}."
        )
    return done.stdout


def install_units(units: Mapping[str, str], timer: str) -> Sequence[Path]:
    """Write unit files and start the timer.

    Raises:
        ConfigurationError: systemd is missing or refuses, or the folder cannot be written.
    """
    folder = unit_folder()
    paths = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in units.items():
            folder.joinpath(name).write_text(text, encoding="utf-8")
            paths.append(folder / name)
    except OSError as error:
        raise ConfigurationError(
            f"The units cannot be written to {folder}: {error.strerror}."
        ) from error
    systemctl("daemon-reload")
    systemctl("enable", "--now", timer)
    return paths


def remove_units(name: str) -> bool:
    """Stop and delete a job's units; False where there are none."""
    paths = [unit_folder() / f"{unit_name(name)}.{kind}" for kind in ("timer", "service")]
    if not any(path.exists() for path in paths):
        return False
    systemctl("disable", "--now", f"{unit_name(name)}.timer")
    for path in paths:
        path.unlink(missing_ok=True)
    systemctl("daemon-reload")
    return True
