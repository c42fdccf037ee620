"""A folder without git as a line of commits: each distinct content is one, in order of time seen.

A content's name is its digest: that of a commit without parents, date or author, which a repository
of our own in the cache makes of it. So contents that were seen stay there to be measured, compared
and searched, and are read and checked out as any commit is. When each was first seen is a reference
beside it.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from virnucpro_monitor.disks import path_from, writing
from virnucpro_monitor.errors import RepositoryError
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


class Folder:
    """The contents that a folder was seen with.

    Args:
        seen: names in order of time, with that time.
        now: the present content's; None where the folder is not there any more.
    """

    def __init__(
        self, location: str, cache: Path, seen: Sequence[tuple[str, datetime]], now: str | None
    ) -> None:
        self.location = location
        self._path = folder_path(location)
        self._kept = Repository(location, cache, cache)
        self._seen = dict(seen)
        self._names = tuple(self._seen)
        self._now = now

    @classmethod
    def open(cls, target: Target, cache_folder: Path, *, fetch: bool = True) -> "Folder":
        """Look at a folder's present content, and keep it where it is new.

        Args:
            fetch: False to take what was seen before.

        Raises:
            RepositoryError: there is no such folder, or what it holds cannot be kept.
        """
        path = folder_path(target.location)
        cache = repository_cache(target.location, cache_folder)
        now = None
        if fetch or not _read_seen(cache):
            if not path.is_dir():
                raise RepositoryError(f"There is no folder {path}: check the path.")
            try:
                now = _keep(path, cache)
            except GitError as error:
                raise RepositoryError(f"The folder {path}: {error}") from error
        return cls(target.location, cache, _read_seen(cache), now)

    @staticmethod
    def is_here(location: str, cache_folder: Path) -> bool:
        """Whether a content of the folder was seen, or can be now."""
        known = _read_seen(repository_cache(location, cache_folder))
        return bool(known) or folder_path(location).is_dir()

    def resolve(self, revision: str, say: Callable[[str], None] | None = None) -> str:
        """The content that is meant: the first digits of its digest, or "HEAD" for the present one.

        Raises:
            RepositoryError: no such content was seen.
        """
        if revision == "HEAD":
            return self._now or self._names[-1]
        found = [name for name in self._names if name.startswith(revision.lower())]
        if len(found) != 1 or len(revision) < 4:
            raise RepositoryError(
                f"{revision!r} is no content that {self._path} was seen with: give the first "
                f"digits of its digest, as in {short_hash(self._names[-1])}."
            )
        return found[0]

    def resolve_branch(self, branch: str | None) -> str:
        """The last content that was new; a folder has no branches."""
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
                subject=f"{self._path.name} as seen on {self._seen[name]:%Y-%m-%d %H:%M} UTC",
                committed_at=self._seen[name],
                position=positions.get(name),
                on_branch=name in positions or not positions,
            )
            for name in hashes
        )

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
    """PATH of `folder:PATH`."""
    return path_from(location.removeprefix(FOLDER_PREFIX))


def _keep(path: Path, cache: Path) -> str:
    """Keep a folder's present content in our repository; returns its name."""
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
        inside = [one.partition("\t")[2] for one in entries if one.startswith("160000 ")]
        if inside:
            raise GitError(
                f"it holds a git repository of its own in {inside[0]}: its content cannot be "
                f"told by its files alone.", "",
            )  # fmt: skip
        name = ask("commit-tree", "-m", "content", ask("write-tree").strip()).strip()
        seen = {known for known, _ in _read_seen(cache)}
        if name not in seen:
            moment = datetime.now(UTC).strftime("%Y%m%dT%H%M%S%f")
            ask("update-ref", f"{_SEEN}/{moment}", name)
    return name


def _read_seen(cache: Path) -> list[tuple[str, datetime]]:
    """Contents with when each was first seen, in that order."""
    if not cache.joinpath("HEAD").exists():
        return []
    answer = run_git("for-each-ref", "--format=%(objectname) %(refname:lstrip=2)", _SEEN,
                     folder=cache)  # fmt: skip
    found = []
    for line in answer.splitlines():
        name, _, moment = line.partition(" ")
        found.append((name, datetime.strptime(moment, "%Y%m%dT%H%M%S%f").replace(tzinfo=UTC)))
    return found
