"""The line in a user's crontab that runs a target, or a systemd timer in its place."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from virnucpro_monitor.errors import ConfigurationError

MARKER = "# virnucpro-monitor:"
MAX_LINE = 998  # Debian's cron cuts off what is longer
_EVERY = re.compile(r"^(\d+)(m|h|d)$")
_FIELDS = (
    ("minute", 0, 59),
    ("hour", 0, 23),
    ("day of the month", 1, 31),
    ("month", 1, 12),
    ("day of the week", 0, 7),
)
_PASSED_ON = ("CUDA_VISIBLE_DEVICES", "TORCH_HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME")


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What is started, and when.

    Attributes:
        arguments: of `virnucpro-monitor`, without the log.
        cron: five fields as in a crontab.
        calendar: the same moments as systemd writes them, None where they cannot be.
    """

    name: str
    arguments: tuple[str, ...]
    log: Path
    cron: str
    calendar: str | None
    environment: Mapping[str, str]

    def command(self) -> list[str]:
        """The whole command, by absolute paths; it holds its own lock and rotates its log."""
        return [sys.executable, "-P", "-m", "virnucpro_monitor", *self.arguments,
                "--log", str(self.log)]  # fmt: skip


def every(text: str) -> tuple[str, str]:
    """(cron fields, systemd calendar) for "15m", "2h" or "1d".

    Raises:
        ConfigurationError: not of that form, or it does not divide an hour or a day evenly.
    """
    match = _EVERY.match(text)
    number = int(match[1]) if match else 0
    unit = match[2] if match else ""
    if unit == "m" and number and 60 % number == 0:
        return ("0 * * * *", "*:00") if number == 60 else (f"*/{number} * * * *", f"*:0/{number}")
    if unit == "h" and number and 24 % number == 0:
        if number == 24:
            return "0 0 * * *", "*-*-* 00:00"
        return f"0 */{number} * * *", f"0/{number}:00"
    if unit == "d" and number == 1:
        return "0 3 * * *", "*-*-* 03:00"
    raise ConfigurationError(
        f"{text!r} is not an interval: use minutes that divide an hour (15m), hours that divide a "
        f"day (2h), or 1d; or give cron's five fields by --cron."
    )


def scheduled_environment() -> dict[str, str]:
    """What a scheduled start needs of the present environment, and cron would not give it."""
    kept = {
        name: value
        for name, value in sorted(os.environ.items())
        if name in _PASSED_ON or name.startswith("VIRNUCPRO_MONITOR_")
    }
    git = shutil.which("git")
    folders = ["/usr/local/bin", "/usr/bin", "/bin"]
    if git and str(Path(git).parent) not in folders:
        folders.insert(0, str(Path(git).parent))
    return kept | {"PATH": ":".join(folders)}


def crontab_line(job: Job) -> str:
    """One line that works in any crontab of this user.

    Raises:
        ConfigurationError: it would be longer than cron reads, or hold a line break.
    """
    environment = [f"{name}={value}" for name, value in job.environment.items()]
    words = shlex.join(["env", *environment, *job.command()])
    # What goes wrong before the program can open its log lands there, too.
    command = f"{words} >> {shlex.quote(str(job.log))} 2>&1 {MARKER}{job.name}"
    line = f"{job.cron} {command.replace('%', chr(92) + '%')}"  # cron reads % as a line break
    if len(line) > MAX_LINE:
        raise ConfigurationError(
            f"The crontab line would have {len(line)} characters and cron reads {MAX_LINE}: put "
            f"settings into virnucpro-monitor.toml instead of the environment."
        )
    if "\n" in line:
        raise ConfigurationError("A setting holds a line break, which a crontab cannot.")
    return line


def is_line_of(line: str, name: str) -> bool:
    return line.rstrip().endswith(f"{MARKER}{name}")


def read_crontab() -> str:
    """The user's crontab, empty where there is none.

    Raises:
        ConfigurationError: there is no cron here, or it refuses.
    """
    done = _crontab("-l")
    if done.returncode == 0:
        return done.stdout
    if "no crontab for" in done.stderr:
        return ""
    raise ConfigurationError(f"crontab -l failed: {_last_line(done.stderr)}.")


def write_crontab(text: str) -> None:
    """Replace the user's crontab.

    Raises:
        ConfigurationError: cron refuses it.
    """
    done = _crontab("-", text=text)
    if done.returncode != 0:
        raise ConfigurationError(f"crontab refused the new table: {_last_line(done.stderr)}.")


def _crontab(*arguments: str, text: str = "") -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            ["crontab", *arguments],
            input=text,
            capture_output=True,
            text=True,
            env={**os.environ, "LC_ALL": "C"},
            check=False,
        )
    except FileNotFoundError as error:
        raise ConfigurationError(
            "There is no crontab command here: install cron, or use --systemd."
        ) from error


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1] if lines else "it said nothing"


def with_line(table: str, name: str, line: str | None) -> str:
    """The table with `line` as the only one of `name` (None: none); others stay as they are."""
    kept = [one for one in table.splitlines(keepends=True) if not is_line_of(one, name)]
    if line is not None:
        if kept and not kept[-1].endswith("\n"):
            kept[-1] += "\n"
        kept.append(f"{line}\n")
    return "".join(kept)


def find_line(table: str, name: str) -> str | None:
    return next((one for one in table.splitlines() if is_line_of(one, name)), None)


def next_start(cron: str, after: datetime) -> datetime:
    """The first minute after `after` that five cron fields name.

    Raises:
        ConfigurationError: the fields cannot be read, or name no day at all.
    """
    minutes, hours, days, months, weekdays = parse_cron(cron)
    fields = cron.split()
    # As cron has it: with both a day of the month and one of the week given, either will do.
    either = fields[2][0] != "*" and fields[4][0] != "*"
    moment = after.replace(second=0, microsecond=0) + timedelta(minutes=1)
    day = moment.date()
    for _ in range(366 * 5):
        by_month, by_week = day.day in days, day.isoweekday() % 7 in weekdays
        fits = (by_month or by_week) if either else (by_month and by_week)
        if day.month in months and fits:
            for hour in sorted(hours):
                for minute in sorted(minutes):
                    candidate = moment.replace(
                        year=day.year, month=day.month, day=day.day, hour=hour, minute=minute
                    )
                    if candidate >= moment:
                        return candidate
        day += timedelta(days=1)
    raise ConfigurationError(f"The cron fields {cron!r} name no day.")


def parse_cron(cron: str) -> tuple[set[int], ...]:
    """The values that each of five cron fields allows; Sunday is 0.

    Raises:
        ConfigurationError: a field cannot be read.
    """
    fields = cron.split()
    if len(fields) != 5:
        raise ConfigurationError(f"{cron!r} does not have cron's five fields.")
    values = [
        _parse_field(text, *limits, cron) for text, limits in zip(fields, _FIELDS, strict=True)
    ]
    if 7 in values[4]:
        values[4] = (values[4] - {7}) | {0}
    return tuple(values)


def _parse_field(text: str, name: str, low: int, high: int, cron: str) -> set[int]:
    found: set[int] = set()
    for part in text.split(","):
        match = re.fullmatch(r"(?:\*|(\d+)(?:-(\d+))?)(?:/(\d+))?", part)
        if not match:
            raise ConfigurationError(f"The {name} {part!r} in {cron!r} cannot be read.")
        first = int(match[1]) if match[1] else low
        last = int(match[2]) if match[2] else (high if match[1] is None or match[3] else first)
        step = int(match[3]) if match[3] else 1
        if not (low <= first <= last <= high and step >= 1):
            raise ConfigurationError(
                f"The {name} {part!r} in {cron!r} is not within {low} to {high}."
            )
        found |= set(range(first, last + 1, step))
    return found


def systemd_units(job: Job) -> dict[str, str]:
    """File name -> text of a user's service and timer.

    Raises:
        ConfigurationError: the job's times were given in cron's form.
    """
    if job.calendar is None:
        raise ConfigurationError("A systemd timer takes --every, not --cron.")
    name = unit_name(job.name)
    quoted = " ".join(_systemd_quote(word) for word in job.command())
    environment = "".join(
        f"Environment={_systemd_quote(f'{key}={value}')}\n"
        for key, value in job.environment.items()
    )
    return {
        f"{name}.service": (
            f"[Unit]\nDescription=Validate new commits of {job.name}\n\n"
            f"[Service]\nType=oneshot\n{environment}ExecStart={quoted}\n"
            # Failed equivalence (2) and commits that cannot be run (3) are results, not faults.
            "SuccessExitStatus=2 3\n"
        ),
        f"{name}.timer": (
            f"[Unit]\nDescription=Start {name}.service\n\n"
            f"[Timer]\nOnCalendar={job.calendar}\nPersistent=true\n\n"
            "[Install]\nWantedBy=timers.target\n"
        ),
    }


def unit_name(name: str) -> str:
    return f"virnucpro-monitor-{name}"


def _systemd_quote(word: str) -> str:
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
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
            f"systemctl --user {arguments[0]} failed: {_last_line(done.stderr or done.stdout)}."
        )
    return done.stdout


def install_units(units: Mapping[str, str], timer: str) -> Sequence[Path]:
    """Write unit files and start the timer."""
    folder = unit_folder()
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, text in units.items():
        folder.joinpath(name).write_text(text, encoding="utf-8")
        paths.append(folder / name)
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
