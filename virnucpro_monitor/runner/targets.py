"""Targets by name, by path or URL, and from the settings file."""

import difflib
import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from virnucpro_monitor.disks import path_from
from virnucpro_monitor.errors import ConfigurationError
from virnucpro_monitor.records import Target
from virnucpro_monitor.runner.builtin import BUILTIN, builtin_target
from virnucpro_monitor.runner.checkout import is_url
from virnucpro_monitor.runner.folders import FOLDER_PREFIX, folder_path, is_folder
from virnucpro_monitor.runner.passwords import public_address
from virnucpro_monitor.runner.venv import is_package, join_requirements
from virnucpro_monitor.settings import read_settings_file, settings_file

_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")
_TABLE_KEYS = {"location", "adapter", "package", "paths", "branch", "requirements"}
_OWN_WORDS = {
    "releases": "'releases' belongs to a package, location = 'pypi:NAME'",
    "with": "'with' must be a string or a list of strings",
}


def check_name(name: str) -> str:
    """Return a target's name, or refuse it with `ConfigurationError`."""
    if not _NAME.match(name):
        raise ConfigurationError(
            f"{name!r} is not a target name: use letters, digits, dots, dashes and underscores."
        )
    return name


def absolute_location(location: str) -> str:
    """A URL without its password, a package as it is, a path made absolute."""
    return _relative_to(Path(), location)


def read_targets(
    path: Path | None = None,
    on_problem: Callable[[str, ConfigurationError], object] | None = None,
) -> tuple[Target, ...]:
    """Targets of the `[targets.NAME]` tables in the settings file; none where it is missing.

    Args:
        path: of another file than the one that counts here.
        on_problem: receives a table's name and what is wrong with it, which is then left out: one
            broken target does not stop the others. Without it, that is raised.

    Raises:
        ConfigurationError: not TOML, an unknown key, or a value of the wrong type.
    """
    targets = []
    for name, table in read_settings_file(path).get("targets", {}).items():
        try:
            targets.append(_target_from_table(name, table, path or settings_file()))
        except ConfigurationError as error:
            if on_problem is None:
                raise
            on_problem(name, error)
    return tuple(targets)


def _target_from_table(name: str, table: Any, path: Path) -> Target:
    where = f"[targets.{name}] in {path.name}"
    if not isinstance(table, dict):
        raise ConfigurationError(f"{where} must be a table.")
    table = _in_our_words(dict(table))
    unknown = sorted(table.keys() - _TABLE_KEYS)
    if unknown:
        if unknown[0] in _OWN_WORDS:
            raise ConfigurationError(f"{where}: {_OWN_WORDS[unknown[0]]}.")
        words = sorted(_TABLE_KEYS | _OWN_WORDS.keys())
        near = difflib.get_close_matches(unknown[0], words, n=1, cutoff=0.5)
        advice = f"did you mean {near[0]}?" if near else f"it takes {', '.join(words)}."
        raise ConfigurationError(f"{where} has an unknown key {unknown[0]!r}: {advice}")
    if "location" not in table:
        raise ConfigurationError(f"{where} lacks 'location', the repository's path or URL.")
    paths = table.get("paths", [])
    texts = {key: value for key, value in table.items() if key != "paths"}
    if not isinstance(paths, list) or not all(isinstance(one, str) for one in paths):
        raise ConfigurationError(f"{where}: 'paths' must be a list of strings.")
    for key, value in texts.items():
        if not isinstance(value, str):
            raise ConfigurationError(f"{where}: {key!r} must be a string.")
    texts["location"] = _relative_to(path.parent, texts["location"])
    return Target(name=check_name(name), paths=tuple(paths), **texts)


def _in_our_words(table: dict[str, Any]) -> dict[str, Any]:
    """A table with `releases` and `with` as what a target calls them."""
    of_package = is_package(str(table.get("location", "")))
    if of_package and "releases" in table:
        table["branch"] = table.pop("releases")
    extra = table.pop("with", None)
    if isinstance(extra, str):
        extra = extra.splitlines()
    if isinstance(extra, list) and all(isinstance(one, str) for one in extra):
        file = None if of_package else table.get("requirements")
        table["requirements"] = "\n".join(extra) if of_package else join_requirements(file, extra)
    elif extra is not None:
        table["with"] = extra  # refused with what it must be
    return table


def _relative_to(folder: Path, location: str) -> str:
    if is_url(location):
        return public_address(location)
    if is_package(location):
        return location
    if is_folder(location):
        return f"{FOLDER_PREFIX}{(folder / folder_path(location)).resolve()}"
    return str((folder / path_from(location)).resolve())


def find_target(
    wanted: str | None, stored: Iterable[Target], *, package: str | None = None
) -> Target:
    """The target that a `--target` option means.

    A stored or configured name comes first, then a path or URL: the stored target of that location,
    or a new one named after its last part.

    Args:
        wanted: None for the built-in target.
        package: import root, where the caller names one.

    Raises:
        ConfigurationError: nothing fits, or the new name is taken by another location.
    """
    if wanted is None or wanted == BUILTIN:
        return builtin_target()
    wrong: dict[str, ConfigurationError] = {}
    in_file = read_targets(on_problem=wrong.__setitem__)
    if wanted in wrong:
        raise wrong[wanted]
    known = {target.name: target for target in (*stored, *in_file)}
    target = known.get(wanted)
    if target is None:
        target = _by_location(wanted, known)
    if package is not None and package != target.package:
        target = replace(target, package=package)
    return target


def _by_location(wanted: str, known: dict[str, Target]) -> Target:
    elsewhere = is_url(wanted) or is_package(wanted) or is_folder(wanted)
    if not elsewhere and not path_from(wanted).exists():
        names = ", ".join(sorted(known)) or "none yet"
        raise ConfigurationError(
            f"There is no target {wanted!r} (known: {names}) and no repository at that path: "
            "virnucpro-monitor targets add NAME REPOSITORY stores one."
        )
    location = absolute_location(wanted)
    for target in known.values():
        if target.location == location:
            return target
    name = name_from_location(location)
    if name in known or name == BUILTIN:
        raise ConfigurationError(
            f"The name {name!r} is taken by another repository: give this one a name of its own "
            f"with 'virnucpro-monitor targets add'."
        )
    return Target(name=name, location=location)


def name_from_location(location: str) -> str:
    """The last part of a path or URL, as a target's name."""
    last = re.split(r"[/:\\]", location.rstrip("/\\"))[-1].removesuffix(".git")
    return re.sub(r"[^A-Za-z0-9._-]+", "-", last).strip("-.")[:100] or "repository"
