"""The line in a user's crontab that runs a target."""

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from virnucpro_monitor.errors import ConfigurationError
from virnucpro_monitor.secrecy import masked_url
from virnucpro_monitor.settings import SETTINGS_VARIABLE

MARKER = "# virnucpro-monitor:"
MAX_LINE = 998  # Debian's cron cuts off what is longer
SETTING_PREFIX = "VIRNUCPRO_MONITOR_"
_PASSED_ON = (
    "CUDA_VISIBLE_DEVICES", "TORCH_HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME",
    # How PostgreSQL is reached; its password stands in a file that one of them names.
    "PGPASSFILE", "PGSERVICE", "PGSERVICEFILE", "PGHOST", "PGPORT", "PGUSER", "PGDATABASE",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What is started, and when.

    Attributes:
        arguments: of `virnucpro-monitor`, without the log.
        cron: five fields as in a crontab.
        calendar: the same moments as systemd writes them, None where they cannot be.
        private: settings that hold a password, by name; they go into a file that the environment
            names, and never into a line or unit.
        purpose: what it is for, in a systemd unit.
    """

    name: str
    arguments: tuple[str, ...]
    log: Path
    cron: str
    calendar: str | None
    environment: Mapping[str, str]
    purpose: str
    private: Mapping[str, str] = field(default_factory=dict)

    def command(self) -> list[str]:
        """The whole command, by absolute paths; it holds its own lock and rotates its log."""
        return [sys.executable, "-P", "-m", "virnucpro_monitor", *self.arguments,
                "--log", str(self.log)]  # fmt: skip


def scheduled_environment() -> tuple[dict[str, str], dict[str, str]]:
    """What a scheduled start needs of the present environment, and cron would not give it.

    Returns:
        (variables, settings by name that hold a password and must not stand in a line)
    """
    kept, private = {}, {}
    for name, value in sorted(os.environ.items()):
        if name.startswith(SETTING_PREFIX) and name != SETTINGS_VARIABLE:
            if masked_url(value) != value:
                private[name.removeprefix(SETTING_PREFIX).lower()] = value
                continue
        elif name not in _PASSED_ON:
            continue
        kept[name] = value
    git = shutil.which("git")
    folders = ["/usr/local/bin", "/usr/bin", "/bin"]
    if git and str(Path(git).parent) not in folders:
        folders.insert(0, str(Path(git).parent))
    return kept | {"PATH": ":".join(folders)}, private


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
    raise ConfigurationError(f"crontab -l failed: {last_line(done.stderr)}.")


def write_crontab(text: str) -> None:
    """Replace the user's crontab.

    Raises:
        ConfigurationError: cron refuses it.
    """
    done = _crontab("-", text=text)
    if done.returncode != 0:
        raise ConfigurationError(f"crontab refused the new table: {last_line(done.stderr)}.")


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


def last_line(text: str) -> str:
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
