"""A target's repository: its history, its revisions, and one checkout for each commit.

A local repository is only read: its commits are checked out through a bare cache repository that
borrows its objects. A remote one is mirrored into the cache.
"""

import hashlib
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from virnucpro_monitor.errors import AmbiguousRevision, RepositoryError
from virnucpro_monitor.records import Commit
from virnucpro_monitor.runner.git import NETWORK_TIMEOUT_S, GitError, run_git

_FORMAT = "%H%x1f%P%x1f%an%x1f%aI%x1f%cI%x1f%s%x1e"
FULL_DISK_BYTES = 2**20  # file systems keep a little to themselves
_MISSING_OBJECT = re.compile(r"unable to read sha1 file of (.+) \(")


def is_url(location: str) -> bool:
    """Whether `location` is remote: a URL, or `user@host:path` as ssh spells it."""
    return "://" in location or bool(re.match(r"^[\w.-]+@[\w.-]+:", location))


class Repository:
    """A git repository that is read, never written."""

    def __init__(self, location: str, source: Path, cache: Path) -> None:
        self.location = location
        self._source = source  # git directory that answers questions
        self._cache = cache  # bare repository that owns the worktrees

    @classmethod
    def open(cls, location: str, cache_folder: Path, *, fetch: bool = True) -> "Repository":
        """Open a local repository, or mirror a remote one into the cache.

        Raises:
            RepositoryError: no repository there, unreachable, or credentials missing.
        """
        key = hashlib.sha256(location.encode()).hexdigest()[:16]
        cache = cache_folder / "repositories" / f"{key}.git"
        if is_url(location):
            _mirror(location, cache, fetch=fetch)
            return cls(location, cache, cache)
        path = Path(location).expanduser()
        if not path.exists():
            raise RepositoryError(f"There is no repository at {location}: check the path.")
        if not path.is_dir():
            raise RepositoryError(f"{location} is a file, not a git repository: name its folder.")
        try:
            answer = run_git("rev-parse", "--path-format=absolute", "--git-common-dir", folder=path)
        except GitError as error:
            if "not a git repository" in error.stderr:
                raise RepositoryError(
                    f"{location} is not a git repository: name its top folder, or run 'git init' "
                    f"and commit there."
                ) from error
            raise RepositoryError(f"{location}: {error}") from error
        source = Path(answer.strip())
        _borrow(source, cache)
        return cls(location, path if path.joinpath(".git").exists() else source, cache)

    def _git(self, *arguments: str) -> str:
        return run_git(*arguments, folder=self._source)

    def resolve(self, revision: str) -> str:
        """Return the full hash of a commit.

        Raises:
            AmbiguousRevision: a short hash fits several commits.
            RepositoryError: no such revision.
        """
        if not revision or revision.startswith("-"):
            raise RepositoryError(f"{revision!r} is not a revision: give a hash, tag or branch.")
        try:
            return self._git(
                "rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}"
            ).strip()
        except GitError as error:
            matches = self._commits_starting_with(revision)
            if len(matches) > 1:
                raise AmbiguousRevision(
                    f"{revision!r} fits {len(matches)} commits ({', '.join(matches[:3])}, …): "
                    f"give more digits."
                ) from error
            hint = "name a hash, tag or branch that it has"
            if self._git("rev-parse", "--is-shallow-repository").strip() == "true":
                hint = "the clone is shallow; 'git fetch --unshallow' there brings the history"
            raise RepositoryError(
                f"Revision {revision!r} is not known in {self.location}: {hint}."
            ) from error

    def _commits_starting_with(self, prefix: str) -> list[str]:
        if not re.fullmatch(r"[0-9a-fA-F]{4,40}", prefix):
            return []
        found = self._git("rev-parse", f"--disambiguate={prefix}").split()
        return [name for name in found if self._git("cat-file", "-t", name).strip() == "commit"]

    def history(self, tip: str) -> tuple[str, ...]:
        """The first-parent history of `tip`: full hashes, oldest first."""
        return tuple(self._git("rev-list", "--first-parent", "--reverse", tip, "--").split())

    def between(
        self, base: str, tip: str, *, paths: Sequence[str] = (), first_parent: bool = True
    ) -> tuple[str, ...]:
        """Commits that `tip` has and `base` has not, oldest first; with `paths`, those that
        touched them."""
        chain = ["--first-parent"] if first_parent else []
        return tuple(
            self._git(
                "rev-list", "--reverse", "--topo-order", *chain, f"{base}..{tip}", "--", *paths
            ).split()
        )

    def is_ancestor(self, ancestor: str, descendant: str) -> bool:
        try:
            self._git("merge-base", "--is-ancestor", ancestor, descendant)
        except GitError:
            return False
        return True

    def branches_with(self, commit: str) -> tuple[str, ...]:
        """The branches that hold a commit, by name; those of `origin` without its name."""
        names = self._git(
            "for-each-ref", "--contains", commit, "--format=%(refname:lstrip=2)",
            "refs/heads", "refs/remotes",
        ).split()  # fmt: skip
        unique = {name.removeprefix("origin/") for name in names}
        return tuple(sorted(unique - {"HEAD"}))

    def commits(self, hashes: Sequence[str], history: Sequence[str] = ()) -> tuple[Commit, ...]:
        """Read commits, in the order given; `history` gives each its position."""
        if not hashes:
            return ()
        positions = {name: index for index, name in enumerate(history)}
        read: dict[str, Commit] = {}
        for start in range(0, len(hashes), 500):  # a command line has a limit
            text = self._git(
                "log", "--no-walk=unsorted", f"--format={_FORMAT}", *hashes[start : start + 500]
            )
            for entry in text.split("\x1e"):
                if entry.strip():
                    commit = _parse_commit(entry.strip("\n"), positions)
                    read[commit.hash] = commit
        return tuple(read[name] for name in hashes)

    def files(self, commit: str) -> dict[str, str]:
        """Path -> "mode object" of every file of a commit."""
        entries = self._git("ls-tree", "-r", "-z", "--full-tree", commit).split("\0")
        found = {}
        for entry in filter(None, entries):
            description, path = entry.split("\t", 1)
            mode, _, name = description.split(" ")
            found[path] = f"{mode} {name}"
        return found

    def tree(self, commit: str) -> str:
        """Hash of a commit's whole tree."""
        return self._git("rev-parse", f"{commit}^{{tree}}").strip()

    @contextmanager
    def checkout(self, commit: str) -> Iterator[tuple[Path, str]]:
        """Check a commit out into the cache for as long as the context lasts.

        Yields its folder, and a note about files whose content the repository lacks (partial
        clones, lost large files), empty if there are none.

        Raises:
            RepositoryError: disk full, or the repository has gone.
        """
        folder = self._cache.parent / "worktrees" / f"{commit[:12]}-{os.getpid()}"
        shutil.rmtree(folder, ignore_errors=True)
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            run_git("worktree", "prune", folder=self._cache)
            run_git(
                "worktree", "add", "--detach", "--force", "--no-checkout", str(folder), commit,
                folder=self._cache,
            )  # fmt: skip
            run_git("read-tree", commit, folder=folder)
            note = _write_files(folder)
        except (GitError, OSError) as error:
            hint = _full_disk_hint(folder.parent)
            shutil.rmtree(folder, ignore_errors=True)
            raise RepositoryError(
                f"Commit {commit[:12]} cannot be checked out: {error}{hint}"
            ) from error
        try:
            yield folder, note
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            with suppress(GitError):
                run_git("worktree", "prune", folder=self._cache)


def _full_disk_hint(folder: Path) -> str:
    """Git does not always say that the disk is what failed it."""
    with suppress(OSError):
        if shutil.disk_usage(folder).free < FULL_DISK_BYTES:
            return f" The disk of {folder} is full: free some space."
    return ""


def _write_files(folder: Path) -> str:
    try:
        run_git("checkout-index", "--all", "--force", "--quiet", folder=folder)
    except GitError as error:
        lines = [line for line in error.stderr.splitlines() if line.strip()]
        missing = [found[1] for line in lines if (found := _MISSING_OBJECT.search(line))]
        if not missing or len(missing) < len(lines):
            raise
        return f"{len(missing)} files lack their content here: {', '.join(missing[:5])}"
    return ""


def _parse_commit(entry: str, positions: dict[str, int]) -> Commit:
    name, parents, author, authored, committed, subject = entry.split("\x1f", 5)
    position = positions.get(name)
    return Commit(
        hash=name,
        parents=tuple(parents.split()),
        subject=subject,
        author=author,
        authored_at=datetime.fromisoformat(authored),
        committed_at=datetime.fromisoformat(committed),
        position=position,
        on_branch=position is not None or not positions,
    )


def _borrow(source: Path, cache: Path) -> None:
    """Make `cache` a bare repository that reads the objects of `source`."""
    if not cache.joinpath("HEAD").exists():
        cache.mkdir(parents=True, exist_ok=True)
        run_git("init", "--quiet", "--bare", str(cache))
    information = cache / "objects" / "info"
    information.mkdir(exist_ok=True)
    information.joinpath("alternates").write_text(f"{source / 'objects'}\n")
    shallow = source / "shallow"  # where a shallow clone's history ends
    if shallow.exists():
        shutil.copyfile(shallow, cache / "shallow")
    else:
        cache.joinpath("shallow").unlink(missing_ok=True)


def _mirror(url: str, cache: Path, *, fetch: bool) -> None:
    try:
        if not cache.joinpath("HEAD").exists():
            shutil.rmtree(cache, ignore_errors=True)
            cache.parent.mkdir(parents=True, exist_ok=True)
            partial = cache.with_suffix(".partial")
            shutil.rmtree(partial, ignore_errors=True)
            run_git(
                "clone", "--quiet", "--mirror", "--", url, str(partial),
                timeout_s=NETWORK_TIMEOUT_S,
            )  # fmt: skip
            partial.rename(cache)
        elif fetch:
            run_git("fetch", "--quiet", "--prune", "--force", "origin", folder=cache,
                    timeout_s=NETWORK_TIMEOUT_S)  # fmt: skip
            answer = run_git("ls-remote", "--symref", "origin", "HEAD", folder=cache,
                             timeout_s=NETWORK_TIMEOUT_S)  # fmt: skip
            if default := re.match(r"ref: (refs/heads/\S+)\tHEAD", answer):
                run_git("symbolic-ref", "HEAD", default[1], folder=cache)
    except GitError as error:
        raise RepositoryError(f"{without_password(url)}: {error}") from error


def without_password(url: str) -> str:
    """The URL as it may be shown and logged."""
    return re.sub(r"(://[^/@:]*):[^/@]*@", r"\1:***@", url)
