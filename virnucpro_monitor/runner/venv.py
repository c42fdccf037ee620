"""A private environment for a target's commit, cached by what it asks for."""

import re
import shutil
import site
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import distributions
from pathlib import Path

from packaging.utils import canonicalize_name

from virnucpro_monitor.errors import TargetError
from virnucpro_monitor.records import Target, content_digest
from virnucpro_monitor.runner.pip import InstallerError, install, make_environment
from virnucpro_monitor.runner.shown_packages import packages_shown

PACKAGE_PREFIX = "pypi:"
RELEASE_FILE = "requirements.txt"
"""The file that a release is checked out as."""
HOST_PATHS = "virnucpro_monitor_host.pth"
"""The file by which an environment finds our own packages behind its own."""
_FILE = "-r "


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

    def read(path: str) -> str:
        file = checkout / path
        if not file.is_file():
            raise PrivateEnvironmentError(f"The requirement file {path!r} is not in this commit.")
        return file.read_text(encoding="utf-8", errors="replace")

    text = needed_text(target, read)
    if text is None:
        return None
    folder = environment_folder(text, cache_folder)
    python = folder / "bin" / "python"
    if not folder.joinpath("complete").exists():
        name, lines = needs_of(target)
        what = text.split() if is_package(target.location) else [*filter(None, (name,)), *lines]
        say(f"Making the environment for {target.name} ({' '.join(what)}).")
        shutil.rmtree(folder, ignore_errors=True)
        try:
            warned = _make(folder, None if name is None else checkout / name, lines)
        except InstallerError as error:
            raise PrivateEnvironmentError(
                f"The environment of {name or ' '.join(lines)} could not be made: {error}"
            ) from error
        for line in warned:
            say(line)
        if is_package(target.location):
            _refuse_yanked(text.partition("\n")[0], warned)
        folder.joinpath("complete").touch()
    return python


def is_package(location: str) -> bool:
    """Whether a target's location is a package of an index: `pypi:NAME`."""
    return location.startswith(PACKAGE_PREFIX)


def join_requirements(file: str | None, lines: Sequence[str]) -> str | None:
    """A target's `requirements` of a requirement file and of what is named one by one.

    Each named one ends its line: so a single one is not taken for a file.
    """
    if not lines:
        return file
    return "".join(f"{line}\n" for line in ([f"{_FILE}{file}"] if file else []) + list(lines))


def needs_of(target: Target) -> tuple[str | None, tuple[str, ...]]:
    """What a commit's environment needs: a file among its files, and further requirements.

    (None, ()) where it needs none. What goes with a release stands in the one file that it is.
    """
    if is_package(target.location):
        return RELEASE_FILE, ()
    text = target.requirements
    if not text or "\n" not in text:
        return text, ()
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    file = next((one.removeprefix(_FILE) for one in lines if one.startswith(_FILE)), None)
    return file, tuple(one for one in lines if not one.startswith(_FILE))


def requirement_file(target: Target) -> str | None:
    """Where a commit's files name what its environment needs; None where they need not."""
    return needs_of(target)[0]


def needed_text(target: Target, read: Callable[[str], str]) -> str | None:
    """All that a commit's environment needs, by which it is kept; None where it needs nothing.

    Args:
        read: gives the text of one of the commit's files.
    """
    file, lines = needs_of(target)
    if file is None and not lines:
        return None
    return "".join([read(file) if file else "", *(f"{line}\n" for line in lines)])


def environment_folder(requirements: str, cache_folder: Path) -> Path:
    """Where the environment of a requirement file's text is kept, made or not."""
    digest = content_digest([requirements, sys.version, sys.prefix])
    return cache_folder / "environments" / digest[:16]


def search_path(folder: Path) -> list[str]:
    """Where an environment's interpreter looks for packages: its own first, then ours."""
    return [str(own_packages(folder)), *site_packages()]


def own_packages(folder: Path) -> Path:
    """Where an environment of ours has its packages."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    return folder / "lib" / version / "site-packages"


def _make(folder: Path, requirements: Path | None, lines: Sequence[str]) -> list[str]:
    """Make an environment; returns what the installer warned of."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    make_environment(folder)
    # Behind the environment's own packages, so that the target's versions win.
    own_packages(folder).joinpath(HOST_PATHS).write_text(
        "".join(f"{path}\n" for path in site_packages())
    )
    with packages_shown(own_packages(folder), site_packages()):
        warned = install(folder / "bin" / "python", requirements, lines)
    own = {canonicalize_name(one.name) for one in distributions(path=[str(own_packages(folder))])}
    if "esm" in own:
        raise PrivateEnvironmentError(
            "The environment has the package esm, which is imported by the same name as fair-esm: "
            "the two cannot be in one environment, and the monitor needs fair-esm."
        )
    return warned


def _refuse_yanked(release: str, warned: Sequence[str]) -> None:
    """Raise where the installer said that a release ("name==version") was yanked."""
    name, _, version = release.partition("==")
    for place, line in enumerate(warned):
        words = re.split(r"[^\w.+!-]+", line)
        if version in words and name in {str(canonicalize_name(word)) for word in words}:
            reason = warned[place + 1] if len(warned) > place + 1 else line
            raise PrivateEnvironmentError(
                f"{name} {version} was yanked: its authors took it back ({reason}). Name another "
                f"release."
            )


def site_packages() -> list[str]:
    """Where this interpreter has its packages."""
    return [path for path in (*site.getsitepackages(), site.getusersitepackages()) if path]
