"""pip as this interpreter has it: what an index offers, and environments filled from it."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from virnucpro_monitor.errors import DiskError, MonitorError
from virnucpro_monitor.secrecy import public_environment

INSTALL_TIMEOUT_S = 3600.0
LIST_TIMEOUT_S = 300.0
_SETTINGS = ("PIP_", "UV_")
_OFFERED = "Available versions"


_RAISED = re.compile(r"(?m)^[^\w\n]*((?:\w+\.)*\w*(?:Error|Exception): .+?)\s*$")
_LACKS = re.compile(r"ModuleNotFoundError: No module named '(\w+)")


class InstallerError(MonitorError):
    """pip, or uv in its place, did not do what it was asked to.

    Attributes:
        lacks: the module that a package's build would import, and did not find; empty for none.
    """

    def __init__(self, message: str, lacks: str = "") -> None:
        super().__init__(message)
        self.lacks = lacks


def make_environment(folder: Path) -> None:
    """Make an empty virtual environment of this interpreter's Python, without a pip of its own.

    Raises:
        InstallerError: it cannot be made.
        DiskError: there is no room for it.
    """
    if uv := shutil.which("uv"):
        call([uv, "venv", "--quiet", "--python", sys.executable, str(folder)], folder.parent)
    else:
        call([sys.executable, "-m", "venv", "--without-pip", str(folder)], folder.parent)


def install(python: Path, requirements: Path | None, lines: Sequence[str] = ()) -> list[str]:
    """Install what is needed into the environment of `python`; returns what was warned of.

    Each package is built by itself. One whose build imports what it does not ask for (torch, most
    of the time) is built in the environment instead, once that is there.

    Args:
        requirements: a requirement file.
        lines: further requirements, as in "torch==2.13.0".

    Raises:
        InstallerError: something cannot be had or built.
        DiskError: there is no room for it.
    """
    if uv := shutil.which("uv"):
        # Compiled as pip does it: a commit's process may write nothing into its environment.
        command = [uv, "pip", "install", "--compile-bytecode", "--python", str(python)]
    else:
        command = [sys.executable, "-m", "pip", "--python", str(python), "install"]
        command += ["--disable-pip-version-check", "--quiet"]
    wanted = ["-r", str(requirements), *lines] if requirements else list(lines)
    folder = requirements.parent if requirements else python.parent
    try:
        _, told = call([*command, *wanted], folder)
    except InstallerError as error:
        if not error.lacks:
            raise
        if first := _lines_of(error.lacks, requirements, lines):
            call([*command, *first], folder)
        _, told = call([*command, "--no-build-isolation", *wanted], folder)
    return [line.strip() for line in told.splitlines() if "yanked" in line.lower()]


def _lines_of(name: str, requirements: Path | None, lines: Sequence[str]) -> list[str]:
    """Those of the requirements that are for one package."""
    text = requirements.read_text(encoding="utf-8", errors="replace") if requirements else ""
    found = []
    for line in (*text.splitlines(), *lines):
        with suppress(InvalidRequirement):
            if canonicalize_name(Requirement(line).name) == canonicalize_name(name):
                found.append(line.strip())
    return found


def download(requirement: str, folder: Path) -> None:
    """Put the wheels of a requirement, and of all that it needs, into a folder.

    Raises:
        InstallerError: one cannot be had.
        DiskError: there is no room for it.
    """
    command = [sys.executable, "-m", "pip", "download", "--only-binary=:all:", "--quiet"]
    command += ["--disable-pip-version-check", "--dest", str(folder), requirement]
    call(command, folder)


def offered_versions(name: str, *, pre: bool = False) -> list[str]:
    """The versions of a package that this Python can install, as the index lists them.

    Raises:
        InstallerError: there is no such package, or the index cannot be reached.
    """
    # By its text: the pip that comes with Python 3.11 has no --json for this.
    command = [sys.executable, "-m", "pip", "index", "versions", name]
    command += ["--disable-pip-version-check", *(["--pre"] if pre else [])]
    printed, _ = call(command, Path.cwd(), timeout_s=LIST_TIMEOUT_S)
    for line in printed.splitlines():
        title, found, versions = line.partition(":")
        if found and title.strip() == _OFFERED:
            return [version.strip() for version in versions.split(",")]
    raise InstallerError(f"pip did not list the versions of {name}: update pip.")


def is_offered(name: str, version: str) -> bool:
    """Whether a version that the index does not list can be installed all the same: it was yanked.

    Raises:
        DiskError: there is no room to ask.
    """
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--no-deps"]
    command += ["--ignore-installed", "--disable-pip-version-check", "--quiet"]
    try:
        call([*command, f"{name}=={version}"], Path.cwd(), timeout_s=LIST_TIMEOUT_S)
    except InstallerError:
        return False
    return True


def call(
    command: Sequence[str], folder: Path, *, timeout_s: float = INSTALL_TIMEOUT_S
) -> tuple[str, str]:
    """Run an installer; returns (standard output, standard error).

    It sees none of the monitor's secrets, but its own: an index may need its password.

    Raises:
        InstallerError: with its last line.
        DiskError: the disk is full.
    """
    needed = {name: value for name, value in os.environ.items() if name.startswith(_SETTINGS)}
    environment = {
        name: value
        for name, value in (public_environment(os.environ) | needed).items()
        if name not in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
    }
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise InstallerError(str(error)) from error
    if done.returncode == 0:
        return done.stdout, done.stderr
    if "No space left on device" in done.stderr:
        raise DiskError(f"The disk is full on which {folder} is to be filled.")
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    told = [line for line in lines if line.lower().startswith("error")] or lines
    last = told[-1] if told else f"status {done.returncode}"
    last = last.removeprefix("ERROR: ").removeprefix("error: ")
    raised, lacks = _RAISED.findall(done.stderr), _LACKS.findall(done.stderr)
    why = f" ({raised[-1]})" if raised and raised[-1] not in last else ""
    raise InstallerError(f"{last}{why}", lacks[-1] if lacks else "")
