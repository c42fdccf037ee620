"""A private environment for a target's commit, cached by what it asks for."""

import os
import shutil
import site
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from virnucpro_monitor.errors import DiskError, TargetError
from virnucpro_monitor.records import Target, content_digest
from virnucpro_monitor.secrecy import public_environment

INSTALL_TIMEOUT_S = 3600.0
_INSTALLERS = ("PIP_", "UV_")


class PrivateEnvironmentError(TargetError):
    """The environment that a target asks for cannot be made."""


def target_python(
    target: Target, checkout: Path, cache_folder: Path, say: Callable[[str], None]
) -> Path | None:
    """The interpreter for one commit of `target`; None where it asks for nothing of its own.

    The environment sees our own packages (torch, fair-esm) behind its own, so that only what the
    requirement file adds or changes is installed. It is kept by the digest of that file.

    Raises:
        PrivateEnvironmentError: the file is missing, or a requirement cannot be installed.
        DiskError: there is no room for it.
    """
    if target.requirements is None:
        return None
    requirements = checkout / target.requirements
    if not requirements.is_file():
        raise PrivateEnvironmentError(
            f"The requirement file {target.requirements!r} is not in this commit."
        )
    text = requirements.read_text(encoding="utf-8", errors="replace")
    folder = environment_folder(text, cache_folder)
    python = folder / "bin" / "python"
    if not folder.joinpath("complete").exists():
        say(f"Making the environment for {target.name} ({target.requirements}).")
        shutil.rmtree(folder, ignore_errors=True)
        _make(folder, python, requirements)
        folder.joinpath("complete").touch()
    return python


def environment_folder(requirements: str, cache_folder: Path) -> Path:
    """Where the environment of a requirement file's text is kept, made or not."""
    digest = content_digest([requirements, sys.version, sys.prefix])
    return cache_folder / "environments" / digest[:16]


def search_path(folder: Path) -> list[str]:
    """Where an environment's interpreter looks for packages: its own first, then ours."""
    return [str(_own_packages(folder)), *_site_packages()]


def _own_packages(folder: Path) -> Path:
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    return folder / "lib" / version / "site-packages"


def _make(folder: Path, python: Path, requirements: Path) -> None:
    uv = shutil.which("uv")
    if uv:
        _install([uv, "venv", "--quiet", "--python", sys.executable, str(folder)], requirements)
    else:
        _install([sys.executable, "-m", "venv", str(folder)], requirements)
    # Behind the environment's own packages, so that the target's versions win.
    _own_packages(folder).joinpath("virnucpro_monitor_host.pth").write_text(
        "".join(f"{path}\n" for path in _site_packages())
    )
    if uv:
        command = [uv, "pip", "install", "--quiet", "--python", str(python)]
    else:
        command = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    _install([*command, "-r", str(requirements)], requirements)


def _site_packages() -> list[str]:
    return [path for path in (*site.getsitepackages(), site.getusersitepackages()) if path]


def _install(command: list[str], requirements: Path) -> None:
    # An installation runs the requirements' own code; an index may need its password.
    needed = {name: value for name, value in os.environ.items() if name.startswith(_INSTALLERS)}
    environment = {
        name: value
        for name, value in (public_environment(os.environ) | needed).items()
        if name not in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
    }
    try:
        done = subprocess.run(
            command,
            cwd=requirements.parent,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=INSTALL_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise PrivateEnvironmentError(
            f"The environment of {requirements.name} could not be made ({error})."
        ) from error
    if done.returncode != 0 and "No space left on device" in done.stderr:
        raise DiskError(f"The disk is full on which {requirements.name} is to be installed.")
    if done.returncode != 0:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        raise PrivateEnvironmentError(
            f"The environment of {requirements.name} could not be made: "
            f"{lines[-1].strip() if lines else f'status {done.returncode}'}"
        )
