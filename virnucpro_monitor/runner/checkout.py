"""A target's repository: its history, its revisions, and one checkout for each commit.

A local repository is only read: its commits are checked out through a bare cache repository that
borrows its objects. A remote one is mirrored into the cache.
"""

import fcntl
import hashlib
import os
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

from virnucpro_monitor.disks import path_from, writing
from virnucpro_monitor.errors import AmbiguousRevision, RepositoryError
from virnucpro_monitor.records import Commit, short_hash
from virnucpro_monitor.runner.commit_objects import first_parent, read_commits, read_objects
from virnucpro_monitor.runner.git import NETWORK_TIMEOUT_S, GitError, run_git
from virnucpro_monitor.runner.passwords import password_of, public_address
from virnucpro_monitor.runner.worktrees import check_out, empty_seat
from virnucpro_monitor.secrecy import masked_url

_HASH = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
_SHORT_HASH = re.compile(r"[0-9a-fA-F]{4,64}")
_MAX_REVISION_CHARACTERS = 1_000
PASSWORD_VARIABLE = "VIRNUCPRO_MONITOR_GIT_PASSWORD"


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
        location = public_address(location)
        cache = repository_cache(location, cache_folder)
        if is_url(location):
            _mirror(location, cache, fetch=fetch)
            return cls(location, cache, cache)
        path = path_from(location)
        if not path.exists():
            raise RepositoryError(f"There is no repository at {location}: check the path.")
        if not path.is_dir():
            raise RepositoryError(f"{location} is a file, not a git repository: name its folder.")
        try:
            answer = run_git("rev-parse", "--path-format=absolute", "--git-common-dir", folder=path)
        except GitError as error:
            if "not a git repository" in error.stderr:
                raise RepositoryError(
                    f"{location} is not a git repository: name its top folder, or "
                    f"watch its content as it is by 'folder:{location}'."
                ) from error
            raise RepositoryError(f"{location}: {error}") from error
        source = Path(answer.strip())
        _borrow(source, cache)
        return cls(location, path if path.joinpath(".git").exists() else source, cache)

    @staticmethod
    def is_here(location: str, cache_folder: Path) -> bool:
        """Whether the repository can be read without asking the network."""
        if is_url(location):
            return repository_cache(location, cache_folder).joinpath("HEAD").exists()
        return path_from(location).is_dir()

    @staticmethod
    def folder_here(location: str, cache_folder: Path) -> Path | None:
        """A repository whose objects can be read without the network or a new cache, if any."""
        cache = repository_cache(location, cache_folder)
        if cache.joinpath("HEAD").exists():
            return cache
        path = None if is_url(location) else path_from(location)
        return path if path is not None and path.is_dir() else None

    def _ask(self, *arguments: str) -> str:
        """Ask the repository itself: its names, and the depth of its clone."""
        return run_git(*arguments, folder=self._source)

    def _read(self, *arguments: str) -> str:
        """Read objects, through the cache: it has no configuration but ours."""
        return run_git(*arguments, folder=self._cache)

    def resolve(self, revision: str, say: Callable[[str], None] | None = None) -> str:
        """Return the full hash of a commit.

        What looks like the beginning of a hash is one where a commit has it, whatever branches and
        tags are called.

        Args:
            say: receives a sentence where a branch or tag of the same name means another commit.

        Raises:
            AmbiguousRevision: a short hash fits several commits.
            RepositoryError: no such revision.
        """
        if not revision or revision[0] in "-^" or not revision.isprintable():
            raise RepositoryError(f"{revision!r} is not a revision: give a hash, tag or branch.")
        if len(revision) > _MAX_REVISION_CHARACTERS:
            raise RepositoryError(
                f"{revision[:40]!r}… is too long for a revision: give a hash, tag or branch."
            )
        start = re.match(r"[^~^@:]*", revision)
        name = start[0] if start else ""
        full = self._commit_starting_with(name)
        if full is not None and say is not None:
            self._say_if_hidden(name, full, say)
        meant = revision if full is None else full + revision[len(name) :]
        found = self._peel(meant)
        if found is not None:
            return found
        self._refuse_damaged(meant)
        hint = "name a hash, tag or branch that it has"
        if self._ask("rev-parse", "--is-shallow-repository").strip() == "true":
            hint = "the clone is shallow; 'git fetch --unshallow' there brings the history"
        place = masked_url(self.location)
        raise RepositoryError(f"Revision {revision!r} is not known in {place}: {hint}.")

    def _refuse_damaged(self, revision: str) -> None:
        """Raise `RepositoryError` where a revision is known and its commit cannot be read."""
        try:
            name = self._ask("rev-parse", "--verify", "--quiet", "--end-of-options", revision)
        except GitError:
            return
        ((name, content),) = read_objects([name.strip()], self._source)
        if content is None and not self._is_other_object(name):
            raise RepositoryError(
                f"{revision!r} of {masked_url(self.location)} is {name}, which is missing or "
                f"damaged there: 'git fsck' in that repository says more."
            )

    def _is_other_object(self, name: str) -> bool:
        try:
            return self._ask("cat-file", "-t", name).strip() != "commit"
        except GitError:
            return False

    def resolve_branch(self, branch: str | None) -> str:
        """Return the hash of a branch's last commit; None means the branch that HEAD is on.

        A tag of that name, or a hash that begins so, does not count where there is such a branch.

        Raises:
            RepositoryError: no such branch, nor any other revision of that name.
        """
        if branch is None:
            return self.resolve("HEAD")
        if branch and branch.isprintable():
            for reference in (f"refs/heads/{branch}", f"refs/remotes/origin/{branch}"):
                found = self._peel(reference)
                if found is not None:
                    return found
        return self.resolve(branch)

    def default_branch(self) -> str | None:
        """The branch that a remote repository calls its main one, or this one's `origin` does.

        As it can be asked for here ("main", "origin/main"); None where nobody calls one so.
        """
        reference = "HEAD" if is_url(self.location) else "refs/remotes/origin/HEAD"
        try:
            name = self._ask("symbolic-ref", "--quiet", "--short", reference).strip()
        except GitError:
            return None
        return name if self._peel(name) is not None else None

    def _peel(self, revision: str) -> str | None:
        """The commit that git takes a revision for, None where there is none."""
        try:
            answer = self._ask(
                "rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}"
            )
        except GitError as error:
            if error.stderr:
                raise RepositoryError(f"{masked_url(self.location)}: {error}") from error
            return None
        return answer.strip()

    def _commit_starting_with(self, prefix: str) -> str | None:
        """The one commit whose hash begins so, None where no object's does."""
        if not _SHORT_HASH.fullmatch(prefix):
            return None
        names = self._ask("rev-parse", f"--disambiguate={prefix}").split()
        objects = read_objects(names, self._source)
        matches = [name for name, content in objects if content is not None]
        if len(matches) > 1:
            raise AmbiguousRevision(
                f"{prefix!r} fits {len(matches)} commits ({', '.join(matches[:3])}, …): "
                f"give more digits."
            )
        return matches[0] if matches else None

    def _say_if_hidden(self, name: str, full: str, say: Callable[[str], None]) -> None:
        for kind, folder in (("branch", "heads"), ("tag", "tags"), ("branch", "remotes/origin")):
            other = self._peel(f"refs/{folder}/{name}")
            if other is not None and other != full:
                say(
                    f"{name!r} is read as the commit {short_hash(full)}; the {kind} of that "
                    f"name, at {short_hash(other)}, is refs/{folder}/{name}."
                )

    def history(self, tip: str) -> tuple[str, ...]:
        """The first-parent history of `tip`: full hashes, oldest first.

        It begins at a root, where a shallow clone ends, or at a commit that cannot be read.
        """
        tip = tip if _HASH.fullmatch(tip) else self.resolve(tip)
        try:
            return tuple(self._read("rev-list", "--first-parent", "--reverse", tip, "--").split())
        except GitError:
            return self._readable_history(tip)

    def _readable_history(self, tip: str) -> tuple[str, ...]:
        """As `history`, step by step: git itself gives up at the first damaged commit."""
        chain: list[str] = []
        name: str | None = tip
        while name is not None and name not in chain:
            if not _HASH.fullmatch(name):
                break
            chain.append(name)
            ((_, content),) = read_objects([name], self._cache)
            name = first_parent(content) if content is not None else None
        return tuple(reversed(chain))

    def between(
        self, base: str, tip: str, *, paths: Sequence[str] = (), first_parent: bool = True
    ) -> tuple[str, ...]:
        """Commits that `tip` has and `base` has not, oldest first; with `paths`, those that
        touched them."""
        chain = ["--first-parent"] if first_parent else []
        return tuple(
            self._read(
                "rev-list", "--reverse", "--topo-order", *chain, f"{base}..{tip}", "--", *paths
            ).split()
        )

    def merge_base(self, one: str, other: str) -> str:
        """The commit at which two lines of history part; a full hash.

        Raises:
            RepositoryError: they have none in common.
        """
        try:
            return self._read("merge-base", one, other).split()[0]
        except (GitError, IndexError) as error:
            raise RepositoryError(
                f"{short_hash(one)} and {short_hash(other)} have no commit in common here: fetch "
                "the whole history ('git fetch --unshallow')."
            ) from error

    def branches_with(self, commit: str) -> tuple[str, ...]:
        """The branches that hold a commit, by name; those of `origin` without its name."""
        names = self._ask(
            "for-each-ref", "--contains", commit, "--format=%(refname:lstrip=2)",
            "refs/heads", "refs/remotes",
        ).split()  # fmt: skip
        unique = {name.removeprefix("origin/") for name in names}
        return tuple(sorted(unique - {"HEAD"}))

    def commits(self, hashes: Sequence[str], history: Sequence[str] = ()) -> tuple[Commit, ...]:
        """Read commits, in the order given; `history` gives each its position.

        One that cannot be read has nothing but its hash and position.
        """
        positions = {name: index for index, name in enumerate(history)}
        return read_commits(hashes, self._cache, positions)

    def files(self, commit: str) -> dict[str, str]:
        """Path -> "mode object" of every file of a commit.

        Bytes of a path that are not UTF-8 are written as `\\xff`, so that no two paths meet.
        """
        entries = self._read("ls-tree", "-r", "-z", "--full-tree", commit).split("\0")
        found = {}
        for entry in filter(None, entries):
            description, path = entry.split("\t", 1)
            mode, _, name = description.split(" ")
            raw = path.encode(errors="surrogateescape")
            found[raw.decode(errors="backslashreplace")] = f"{mode} {name}"
        return found

    def read_text(self, commit: str, path: str) -> str:
        """A file of a commit.

        Raises:
            RepositoryError: there is none of that path.
        """
        return self._read("cat-file", "blob", f"{commit}:{path}")

    def tree(self, commit: str) -> str:
        """Hash of a commit's whole tree."""
        return self._read("rev-parse", "--verify", f"{commit}^{{tree}}").strip()

    def seat(self) -> AbstractContextManager[Path]:
        """An empty folder for a commit that is not known yet, for as long as the context lasts.

        Raises:
            OSError: the cache cannot be written.
        """
        return empty_seat(self._cache)

    @contextmanager
    def checkout(self, commit: str, seat: Path | None = None) -> Iterator[tuple[Path, str]]:
        """Check a commit out into the cache for as long as the context lasts.

        Args:
            seat: a folder of `seat` to do it in; None for one of its own.

        Yields its folder, and a note about files whose content the repository lacks (partial
        clones, lost large files), empty if there are none.

        Raises:
            RepositoryError: disk full, or the repository has gone.
        """
        with check_out(commit, self._cache, seat) as (folder, note):
            yield folder, note


@contextmanager
def making_alone(cache: Path) -> Iterator[None]:
    """Let one process at a time make or change a repository of the cache."""
    with ExitStack() as stack:
        with writing("The cache of repositories", cache):
            cache.parent.mkdir(parents=True, exist_ok=True)
            file = stack.enter_context(cache.with_suffix(".lock").open("a"))
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _borrow(source: Path, cache: Path) -> None:
    """Make `cache` a bare repository that reads the objects of `source`."""
    with making_alone(cache), writing("The cache of repositories", cache):
        if not cache.joinpath("HEAD").exists():
            cache.mkdir(parents=True, exist_ok=True)
            run_git("init", "--quiet", "--bare", "--template=", str(cache))
        information = cache / "objects" / "info"
        information.mkdir(exist_ok=True)
        _replace(information / "alternates", _quoted(source / "objects") + b"\n")
        shallow = source / "shallow"  # where a shallow clone's history ends
        if shallow.exists():
            _replace(cache / "shallow", shallow.read_bytes())
        else:
            cache.joinpath("shallow").unlink(missing_ok=True)


def _replace(path: Path, content: bytes) -> None:
    """Write a file so that whoever reads at the same time finds the old one or the new."""
    if path.exists() and path.read_bytes() == content:
        return
    fresh = path.with_name(f"{path.name}.fresh")
    fresh.write_bytes(content)
    fresh.replace(path)


def _quoted(path: Path) -> bytes:
    """A path as a line of git's list of alternates, in C's quotes."""
    raw = os.fsencode(path).replace(b"\\", b"\\\\").replace(b'"', b'\\"').replace(b"\n", b"\\n")
    return b'"' + raw + b'"'


def repository_cache(location: str, cache_folder: Path) -> Path:
    key = hashlib.sha256(location.encode()).hexdigest()[:16]
    return cache_folder / "repositories" / f"{key}.git"


def _mirror(url: str, cache: Path, *, fetch: bool) -> None:
    password = password_of(url)
    secret = {PASSWORD_VARIABLE: password} if password else {}

    def ask(*arguments: str, folder: Path | None = None) -> str:
        helper = ("-c", f"credential.helper={_HELPER}") if secret else ()
        return run_git(*helper, *arguments, folder=folder, timeout_s=NETWORK_TIMEOUT_S,
                       network=True, environment=secret)  # fmt: skip

    try:
        with making_alone(cache), writing("The cache of repositories", cache):
            if not cache.joinpath("HEAD").exists():
                shutil.rmtree(cache, ignore_errors=True)
                partial = cache.with_suffix(".partial")
                shutil.rmtree(partial, ignore_errors=True)
                ask("clone", "--quiet", "--mirror", "--template=", "--", url, str(partial))
                partial.rename(cache)
            elif fetch:
                run_git("remote", "set-url", "origin", "--", url, folder=cache)
                ask("fetch", "--quiet", "--prune", "--force", "origin", folder=cache)
                answer = ask("ls-remote", "--symref", "origin", "HEAD", folder=cache)
                if default := re.match(r"ref: (refs/heads/\S+)\tHEAD", answer):
                    run_git("symbolic-ref", "HEAD", default[1], folder=cache)
    except GitError as error:
        raise RepositoryError(f"{masked_url(url)}: {error}") from error


# Neither the list of processes nor the mirror's configuration shows what the environment holds.
_HELPER = f'!f() {{ test "$1" = get && echo "password=${PASSWORD_VARIABLE}"; }}; f'
