"""A private environment for a target's commit, cached by what it asks for."""

import shutil
import site
import sys
from collections.abc import Callable
from importlib.metadata import distributions
from pathlib import Path

from packaging.utils import canonicalize_name

from virnucpro_monitor.errors import TargetError
from virnucpro_monitor.records import Target, content_digest
from virnucpro_monitor.runner.pip import InstallerError, install, make_environment

PACKAGE_PREFIX = "pypi:"
RELEASE_FILE = "requirements.txt"
"""The file that a release is checked out as."""


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
    name = requirement_file(target)
    if name is None:
        return None
    requirements = checkout / name
    if not requirements.is_file():
        raise PrivateEnvironmentError(f"The requirement file {name!r} is not in this commit.")
    text = requirements.read_text(encoding="utf-8", errors="replace")
    folder = environment_folder(text, cache_folder)
    python = folder / "bin" / "python"
    if not folder.joinpath("complete").exists():
        what = " ".join(text.split()) if is_package(target.location) else name
        say(f"Making the environment for {target.name} ({what}).")
        shutil.rmtree(folder, ignore_errors=True)
        for line in _make(folder, python, requirements):
            say(line)
        folder.joinpath("complete").touch()
    return python


def is_package(location: str) -> bool:
    """Whether a target's location is a package of an index: `pypi:NAME`."""
    return location.startswith(PACKAGE_PREFIX)


def requirement_file(target: Target) -> str | None:
    """Where a commit's files name what its environment needs; None where it needs none."""
    return RELEASE_FILE if is_package(target.location) else target.requirements


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


def _make(folder: Path, python: Path, requirements: Path) -> list[str]:
    """Make an environment; returns what the installer warned of."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        make_environment(folder)
        # Behind the environment's own packages, so that the target's versions win.
        _own_packages(folder).joinpath("virnucpro_monitor_host.pth").write_text(
            "".join(f"{path}\n" for path in _site_packages())
        )
        warned = install(python, requirements)
    except InstallerError as error:
        raise PrivateEnvironmentError(
            f"The environment of {requirements.name} could not be made: {error}"
        ) from error
    own = {canonicalize_name(one.name) for one in distributions(path=[str(_own_packages(folder))])}
    if "esm" in own:
        raise PrivateEnvironmentError(
            f"The environment of {requirements.name} has the package esm, which is imported by the "
            f"same name as fair-esm: the two cannot be in one environment, and the monitor needs "
            f"fair-esm."
        )
    return warned


def _site_packages() -> list[str]:
    return [path for path in (*site.getsitepackages(), site.getusersitepackages()) if path]
