"""Where a target's commits come from: a git repository, a package's releases, or a folder."""

import tomllib
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from virnucpro_monitor.errors import ConfigurationError
from virnucpro_monitor.records import Commit, Target, short_hash
from virnucpro_monitor.runner.adapter_names import parse_adapter
from virnucpro_monitor.runner.checkout import Repository
from virnucpro_monitor.runner.folders import Folder, is_folder
from virnucpro_monitor.runner.releases import Releases
from virnucpro_monitor.runner.venv import is_package

_PYPROJECT = "pyproject.toml"


class Source(Protocol):
    """A line of commits that can be named, read and checked out; `Repository` says how each acts.

    A commit's name is what `resolve` gives: git's full hash, a release's version, or the digest of
    a folder's content.
    """

    location: str

    def resolve(self, revision: str, say: Callable[[str], None] | None = None) -> str: ...

    def resolve_branch(self, branch: str | None) -> str: ...

    def history(self, tip: str) -> tuple[str, ...]: ...

    def between(
        self, base: str, tip: str, *, paths: Sequence[str] = (), first_parent: bool = True
    ) -> tuple[str, ...]: ...

    def merge_base(self, one: str, other: str) -> str: ...

    def branches_with(self, commit: str) -> tuple[str, ...]: ...

    def commits(self, hashes: Sequence[str], history: Sequence[str] = ()) -> tuple[Commit, ...]: ...

    def files(self, commit: str) -> dict[str, str]: ...

    def read_text(self, commit: str, path: str) -> str: ...

    def tree(self, commit: str) -> str: ...

    def checkout(self, commit: str) -> AbstractContextManager[tuple[Path, str]]: ...


def open_source(target: Target, cache_folder: Path, *, fetch: bool = True) -> Source:
    """Open what a target's location names.

    Args:
        fetch: False to ask nobody beyond this machine.

    Raises:
        RepositoryError: it is not there, or cannot be reached.
        ConfigurationError: the target is not well formed.
    """
    if is_package(target.location):
        return Releases.open(target, cache_folder, fetch=fetch)
    if is_folder(target.location):
        return Folder.open(target, cache_folder, fetch=fetch)
    return Repository.open(target.location, cache_folder, fetch=fetch)


def named_adapter(source: Source, commit: str) -> str | None:
    """The adapter that a commit's own pyproject.toml names; None where it names none.

        [tool.virnucpro-monitor]
        adapter = "tools/monitor.py:make"

    Raises:
        ConfigurationError: it is not well formed, or names an oracle: what a commit is held against
            is not the commit's to say.
    """
    if _PYPROJECT not in source.files(commit):
        return None
    where = f"{_PYPROJECT} of {short_hash(commit)}"
    try:
        named: object = tomllib.loads(source.read_text(commit, _PYPROJECT))
    except (ValueError, RecursionError) as error:
        raise ConfigurationError(
            f"{where} is not TOML ({error}): name the adapter by "
            "`virnucpro-monitor targets add NAME LOCATION --adapter ADAPTER`."
        ) from error
    for key in ("tool", "virnucpro-monitor", "adapter"):
        named = named.get(key) if isinstance(named, dict) else None
    if named is None:
        return None
    if not isinstance(named, str) or "oracle=" in named:
        raise ConfigurationError(
            f"{where} must name its adapter as in 'tools/monitor.py:make', without an oracle."
        )
    parse_adapter(named)
    return named


def is_here(target: Target, cache_folder: Path) -> bool:
    """Whether a target's source can be read without asking the network."""
    if is_package(target.location):
        return Releases.is_here(target.location, cache_folder)
    if is_folder(target.location):
        return Folder.is_here(target.location, cache_folder)
    return Repository.is_here(target.location, cache_folder)
