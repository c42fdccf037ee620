"""Digest of the code that decides a commit's result: equal digests, equal results."""

from fnmatch import fnmatch

from virnucpro_monitor.records import Target, content_digest
from virnucpro_monitor.runner.builtin import builtin_digest
from virnucpro_monitor.runner.checkout import Repository


def code_digest(repository: Repository | None, target: Target, commit: str) -> str:
    """Digest of what decides a commit's result: its relevant files and how they are loaded.

    Args:
        repository: None for the built-in target, whose code is what is installed.

    Raises:
        RepositoryError: the commit cannot be read.
    """
    if repository is None:
        return builtin_digest()
    loading = [target.adapter, target.package, target.requirements]
    if not target.paths:
        return content_digest([loading, repository.tree(commit)])
    wanted = (*target.paths, *((target.requirements,) if target.requirements else ()))
    files = {
        path: name
        for path, name in repository.files(commit).items()
        if any(covers(pattern, path) for pattern in wanted)
    }
    return content_digest([loading, files])


def covers(pattern: str, path: str) -> bool:
    """Whether a target's path covers a file: the file, a folder above it, or a glob."""
    pattern = pattern.rstrip("/")
    return path == pattern or path.startswith(f"{pattern}/") or fnmatch(path, pattern)
