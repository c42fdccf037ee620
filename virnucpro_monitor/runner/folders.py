"""A folder without git as a line of commits: each change of content is one, in order of time seen.

A content's name is its digest: that of a commit without parents, date or author, which a repository
of our own in the cache makes of it. So contents that were seen stay there to be measured, compared
and searched, and are read and checked out as any commit is. When each was seen is a reference
beside it. A content that comes back after another is a further point, named by how often it did:
the last point is what the folder holds.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from virnucpro_monitor.disks import path_from, writing
from virnucpro_monitor.errors import ConfigurationError, RepositoryError
from virnucpro_monitor.records import Commit, Target, short_hash
from virnucpro_monitor.runner.checkout import Repository, making_alone, repository_cache
from virnucpro_monitor.runner.git import NETWORK_TIMEOUT_S, GitError, run_git

FOLDER_PREFIX = "folder:"
_SEEN = "refs/seen"
_LEFT_OUT = (":(exclude,glob)**/__pycache__/**", ":(exclude,glob)**/*.pyc")
_NOBODY = {
    f"GIT_{who}_{what}": value
    for who in ("AUTHOR", "COMMITTER")
    for what, value in (("NAME", "-"), ("EMAIL", "-"), ("DATE", "@0 +0000"))
}
# Whatever a folder's own attributes ask for, its bytes are its content.
_ATTRIBUTES = "* -text -ident -filter -working-tree-encoding\n"


@dataclass(frozen=True, slots=True)
class _Point:
    """A content as it was seen once; contents are the same where their trees are."""

    name: str
    tree: str
    moment: datetime


class Folder:
    """The contents that a folder was seen with, in order of time."""

    def __init__(self, location: str, cache: Path, seen: Sequence[_Point]) -> None:
        self.location = location
        self._path = folder_path(location)
        self._kept = Repository(location, cache, cache)
        self._seen = {point.name: point for point in seen}
        self._names = tuple(self._seen)
        self._first = {point.tree: point.name for point in reversed(seen)}

    @classmethod
    def open(cls, target: Target, cache_folder: Path, *, fetch: bool = True) -> "Folder":
        """Look at a folder's present content, and keep it where it differs from the last.

        Args:
            fetch: False to take what was seen before.

        Raises:
            RepositoryError: there is no such folder, or what it holds cannot be kept.
        """
        path = folder_path(target.location)
        cache = repository_cache(target.location, cache_folder)
        if fetch or not _read_seen(cache):
            if not path.is_dir():
                raise RepositoryError(f"There is no folder {path}: check the path.")
            try:
                _keep(path, cache)
            except GitError as error:
                raise RepositoryError(f"The folder {path}: {error}") from error
        return cls(target.location, cache, _read_seen(cache))

    @staticmethod
    def is_here(location: str, cache_folder: Path) -> bool:
        """Whether a content of the folder was seen, or can be now."""
        known = _read_seen(repository_cache(location, cache_folder))
        return bool(known) or folder_path(location).is_dir()

    def resolve(self, revision: str, say: Callable[[str], None] | None = None) -> str:
        """The content that is meant: the first digits of its digest, or "HEAD" for the last one.

        Raises:
            RepositoryError: no such content was seen.
        """
        if revision == "HEAD":
            return self._names[-1]
        found = [name for name in self._names if name.startswith(revision.lower())]
        if len(found) != 1 or len(revision) < 4:
            raise RepositoryError(
                f"{revision!r} is no content that {self._path} was seen with: give the first "
                f"digits of its digest, as in {short_hash(self._names[-1])}."
            )
        return found[0]

    def resolve_branch(self, branch: str | None) -> str:
        """The last content; a folder has no branches."""
        return self._names[-1] if branch is None else self.resolve(branch)

    def history(self, tip: str) -> tuple[str, ...]:
        """Contents up to `tip`, in order of time seen."""
        return self._names[: self._names.index(self.resolve(tip)) + 1]

    def between(
        self, base: str, tip: str, *, paths: Sequence[str] = (), first_parent: bool = True
    ) -> tuple[str, ...]:
        """Contents after `base`, up to `tip`."""
        return self.history(tip)[self._names.index(self.resolve(base)) + 1 :]

    def merge_base(self, one: str, other: str) -> str:
        """The content that was seen earlier."""
        return min(one, other, key=self._names.index)

    def branches_with(self, commit: str) -> tuple[str, ...]:
        """None: there is one line of contents."""
        return ()

    def commits(self, hashes: Sequence[str], history: Sequence[str] = ()) -> tuple[Commit, ...]:
        """Contents as commits, in the order given; `history` gives each its position."""
        positions = {name: index for index, name in enumerate(history)}
        return tuple(
            Commit(
                hash=name,
                subject=self._subject(self._seen[name]),
                committed_at=self._seen[name].moment,
                position=positions.get(name),
                on_branch=name in positions or not positions,
            )
            for name in hashes
        )

    def back_at(self, name: str) -> str | None:
        """The first of the points with a later one's content; None for the first itself."""
        first = self._first[self._seen[name].tree]
        return None if first == name else first

    def _subject(self, point: _Point) -> str:
        first = self.back_at(point.name)
        back = f" is back at {short_hash(first)}," if first else ""
        return f"{self._path.name}{back} as seen on {point.moment:%Y-%m-%d %H:%M} UTC"

    def files(self, commit: str) -> dict[str, str]:
        return self._kept.files(commit)

    def read_text(self, commit: str, path: str) -> str:
        return self._kept.read_text(commit, path)

    def tree(self, commit: str) -> str:
        return self._kept.tree(commit)

    @contextmanager
    def checkout(self, commit: str) -> Iterator[tuple[Path, str]]:
        with self._kept.checkout(commit) as (folder, note):
            yield folder, note


def is_folder(location: str) -> bool:
    """Whether a target's location is a folder's content: `folder:PATH`."""
    return location.startswith(FOLDER_PREFIX)


def folder_path(location: str) -> Path:
    """PATH of `folder:PATH`.

    Raises:
        ConfigurationError: there is none.
    """
    path = location.removeprefix(FOLDER_PREFIX)
    if not path.strip():
        raise ConfigurationError(f"{location!r} names no folder: name a folder, folder:PATH.")
    return path_from(path)


def _keep(path: Path, cache: Path) -> None:
    """Keep a folder's present content in our repository, where it is not the last one there."""
    with making_alone(cache), writing("The cache of folders", cache):
        if not cache.joinpath("HEAD").exists():
            cache.mkdir(parents=True, exist_ok=True)
            run_git("init", "--quiet", "--bare", "--template=", str(cache))
        cache.joinpath("info").mkdir(exist_ok=True)
        cache.joinpath("info", "attributes").write_text(_ATTRIBUTES)
        # Our own index: what has not changed since is not read again. A killed one left a lock.
        cache.joinpath("index.lock").unlink(missing_ok=True)
        ours = {"GIT_DIR": str(cache), "GIT_WORK_TREE": str(path)} | _NOBODY

        def ask(*arguments: str) -> str:
            return run_git(*arguments, folder=path, environment=ours, timeout_s=NETWORK_TIMEOUT_S)

        ask("add", "--all", "--force", "--", ".", *_LEFT_OUT)
        entries = ask("ls-files", "--stage", "-z").split("\0")
        if entries == [""]:
            raise GitError("it is empty: there is nothing to watch.", "")
        inside = [one.partition("\t")[2] for one in entries if one.startswith("160000 ")]
        if inside:
            raise GitError(
                f"it holds a git repository of its own in {inside[0]}: its content cannot be "
                f"told by its files alone.", "",
            )  # fmt: skip
        links = [one.partition("\t")[2] for one in entries if one.startswith("120000 ")]
        _refuse_ways_out(path, links)
        tree = ask("write-tree").strip()
        seen = [point.tree for point in _read_seen(cache)]
        if seen and seen[-1] == tree:
            return
        times = seen.count(tree)
        name = ask("commit-tree", "-m", f"content, back {times}" if times else "content", tree)
        moment = datetime.now(UTC).strftime("%Y%m%dT%H%M%S%f")
        ask("update-ref", f"{_SEEN}/{moment}", name.strip())


def _refuse_ways_out(path: Path, links: Iterable[str]) -> None:
    """Refuse links that lead out of a folder at any step: what is behind them is no content."""
    root = os.path.realpath(path)
    for link in links:
        told = os.readlink(os.path.join(root, link))
        place = os.path.dirname(os.path.join(root, link))
        inside = not os.path.isabs(told)
        for part in told.split(os.sep):
            place = os.path.realpath(os.path.join(place, part))
            inside = inside and os.path.commonpath([root, place]) == root
        if not inside:
            raise GitError(
                f"its link {link} leads out of it, to {told}, where changes are not seen: copy "
                f"the files in, or name the real folder.", "",
            )  # fmt: skip


def _read_seen(cache: Path) -> list[_Point]:
    """Contents with when each was seen, in that order."""
    if not cache.joinpath("HEAD").exists():
        return []
    answer = run_git("for-each-ref", "--format=%(objectname) %(tree) %(refname:lstrip=2)", _SEEN,
                     folder=cache)  # fmt: skip
    found = []
    for line in answer.splitlines():
        name, tree, moment = line.split(" ")
        seen_at = datetime.strptime(moment, "%Y%m%dT%H%M%S%f").replace(tzinfo=UTC)
        found.append(_Point(name, tree, seen_at))
    return found
