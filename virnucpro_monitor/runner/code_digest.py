"""Digest of the code that decides a commit's result: equal digests, equal results."""

import functools
import hashlib
from collections.abc import Sequence
from fnmatch import fnmatch
from importlib.machinery import ModuleSpec, PathFinder
from importlib.metadata import entry_points
from pathlib import Path

from virnucpro_monitor.disks import sha256_of
from virnucpro_monitor.records import Json, Target, content_digest
from virnucpro_monitor.runner.adapter_names import ADAPTERS, SHIPPED, AdapterName, parse_adapter
from virnucpro_monitor.runner.builtin import builtin_digest
from virnucpro_monitor.runner.git import GitError
from virnucpro_monitor.runner.oracle_names import oracle_source
from virnucpro_monitor.runner.sources import Source
from virnucpro_monitor.runner.venv import requirement_file

MAX_LINKS = 200
"""Links that are followed, each by a process of git; of more it is not known where they lead."""

_LINK = "120000 "


def code_digest(repository: Source | None, target: Target, commit: str) -> str:
    """Digest of what decides a commit's result: its relevant files and how they are loaded.

    The monitor's own adapters are part of the monitor; of another's, the source counts too.

    Args:
        repository: None for the built-in target, whose code is what is installed.

    Raises:
        RepositoryError: the commit cannot be read.
    """
    if repository is None:
        return builtin_digest()
    loading = [
        target.adapter,
        target.package,
        target.requirements,
        *adapter_source(target.adapter),
        *oracle_source(parse_adapter(target.adapter).oracle),
    ]
    there = repository.files(commit)
    links = [path for path, name in there.items() if name.startswith(_LINK)]
    if not target.paths:
        return content_digest(
            [loading, repository.tree(commit), *_behind_links(repository, commit, links)]
        )
    adapter = parse_adapter(target.adapter).file
    wanted = [*target.paths, *filter(None, (requirement_file(target), adapter))]
    files = {
        path: name
        for path, name in there.items()
        if any(covers(pattern, path) for pattern in wanted)
    }
    content: list[Json] = [loading, dict(files)]
    if any(path in files or any(covers(path, one) for one in wanted) for path in links):
        # What a link leads to decides as well, wherever in the commit that is.
        content += [repository.tree(commit), *_behind_links(repository, commit, links)]
    return content_digest(content)


def _behind_links(repository: Source, commit: str, links: Sequence[str]) -> tuple[str, ...]:
    """The commit's own name where a link leads out of it: what is there is no content of it.

    Such a commit has the code of no other, whatever its files are, so that it never inherits.
    """
    out = len(links) > MAX_LINKS or any(leads_out(repository, commit, path) for path in links)
    return (commit,) if out else ()


def leads_out(repository: Source, commit: str, path: str) -> bool:
    """Whether a commit's link leads out of it, or may: where links lead on to links, each counts.

    What goes up after it went down may have gone through another link, and counts as leading out.
    """
    try:
        parts = repository.read_text(commit, path).split("/")
    except (GitError, ValueError):
        return True
    ups = next((n for n, part in enumerate(parts) if part not in ("..", ".")), len(parts))
    depth = path.count("/") - parts[:ups].count("..")
    return parts[0] == "" or depth < 0 or ".." in parts[ups:]


def covers(pattern: str, path: str) -> bool:
    """Whether a target's path covers a file: the file, a folder above it, or a glob."""
    pattern = pattern.rstrip("/")
    return path == pattern or path.startswith(f"{pattern}/") or fnmatch(path, pattern)


@functools.cache
def adapter_source(name: str) -> tuple[str, ...]:
    """Digest of the files of somebody's own adapter; nothing for the monitor's.

    The module is found, not imported: all Python files beside it count where it is in a package.
    One that is not found here counts by its name alone.
    """
    parsed = parse_adapter(name)
    if (file := parsed.file) is not None:
        there = Path(file).is_absolute() and Path(file).is_file()  # else it is the repository's
        return (sha256_of(Path(file)),) if there else ()
    module = _module_of(parsed)
    if module is None or module.partition(".")[0] == __name__.partition(".")[0]:
        return ()
    spec = _find(module)
    if spec is None or spec.origin is None or not Path(spec.origin).is_file():
        return ()
    origin = Path(spec.origin)
    in_package = "." in module or spec.submodule_search_locations is not None
    digest = hashlib.sha256()
    for path in sorted(origin.parent.rglob("*.py")) if in_package else [origin]:
        digest.update(f"{path.relative_to(origin.parent)}\0".encode())
        digest.update(path.read_bytes() + b"\0")
    return (digest.hexdigest(),)


def adapter_path(name: str) -> str | None:
    """The folder in which this interpreter finds the module of somebody's own adapter."""
    module = _module_of(parse_adapter(name))
    spec = None if module is None else PathFinder.find_spec(module.partition(".")[0])
    if spec is None or spec.origin is None:
        return None
    origin = Path(spec.origin)
    return str(origin.parent.parent if spec.submodule_search_locations else origin.parent)


def _module_of(parsed: AdapterName) -> str | None:
    """Where `module:callable` or an entry point has its adapter; None for all others."""
    if parsed.file is not None or parsed.name in SHIPPED:
        return None
    if parsed.place:
        return parsed.place
    entry = next((one for one in entry_points(group=ADAPTERS) if one.name == parsed.name), None)
    return None if entry is None else entry.module


def _find(module: str) -> ModuleSpec | None:
    """The spec of a module without importing its packages."""
    path: list[str] | None = None
    spec: ModuleSpec | None = None
    parts = module.split(".")
    for depth in range(1, len(parts) + 1):
        spec = PathFinder.find_spec(".".join(parts[:depth]), path)
        if spec is None:
            return None
        path = list(spec.submodule_search_locations or ())
    return spec
