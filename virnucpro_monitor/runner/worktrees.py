"""One folder for each commit that is being measured, checked out byte for byte as it is stored."""

import errno
import os
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from virnucpro_monitor.disks import explain, is_full
from virnucpro_monitor.errors import DiskError, RepositoryError
from virnucpro_monitor.records import short_hash
from virnucpro_monitor.runner.git import GitError, run_git
from virnucpro_monitor.scratch import is_in_use, remove_tree, scratch_folder, sweep

_MISSING_OBJECT = re.compile(r"unable to read sha1 file of (.+) \(")
# The last word on attributes, above what a commit's own .gitattributes files say: no filters, no
# conversions. Encodings are "unspecified", since git dies of an encoding that is "unset".
_ATTRIBUTES = "* -text -filter -ident -export-subst !eol !working-tree-encoding\n"


@contextmanager
def empty_seat(repository: Path) -> Iterator[Path]:
    """An empty folder in which a commit of `repository` can be checked out later.

    Raises:
        OSError: the disk is full, read-only or has gone.
    """
    with scratch_folder(repository.parent / "worktrees", "seat-") as folder:
        folder.mkdir()
        yield folder


@contextmanager
def check_out(
    commit: str, repository: Path, seat: Path | None = None
) -> Iterator[tuple[Path, str]]:
    """Check a commit of the bare `repository` out for as long as the context lasts.

    Args:
        seat: an empty folder of `empty_seat` to do it in; None for one of its own.

    Yields the folder, and a note about files whose content is lacking, empty if there are none.

    Raises:
        DiskError: the disk is full, read-only or has gone.
        RepositoryError: the repository has gone, or lacks what the commit needs.
    """
    parent = repository.parent / "worktrees"
    with ExitStack() as stack:
        try:
            _sweep_worktrees(parent, repository)
            folder = seat or stack.enter_context(scratch_folder(parent, f"{short_hash(commit)}-"))
            stack.callback(remove_tree, repository / "worktrees" / folder.name)
            note = _fill(folder, commit, repository)
        except GitError as error:
            # Git does not always say that the disk is what failed it.
            if is_full(parent):
                full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                raise DiskError(f"{_failure(commit)} {explain(full, parent)}") from error
            raise RepositoryError(f"{_failure(commit)} {error}") from error
        except OSError as error:
            raise DiskError(f"{_failure(commit)} {explain(error, parent)}") from error
        yield folder, note


def _fill(folder: Path, commit: str, repository: Path) -> str:
    attributes = repository / "info" / "attributes"
    attributes.parent.mkdir(exist_ok=True)
    if not attributes.exists() or attributes.read_text() != _ATTRIBUTES:
        attributes.write_text(_ATTRIBUTES)
    run_git(
        "worktree", "add", "--detach", "--force", "--no-checkout", str(folder), commit,
        folder=repository,
    )  # fmt: skip
    run_git("read-tree", commit, folder=folder)
    try:
        run_git("checkout-index", "--all", "--force", "--quiet", folder=folder)
    except GitError as error:
        lines = [line for line in error.stderr.splitlines() if line.strip()]
        missing = [found[1] for line in lines if (found := _MISSING_OBJECT.search(line))]
        if not missing or len(missing) < len(lines):
            raise
        return f"{len(missing)} files lack their content here: {', '.join(missing[:5])}"
    return ""


def _sweep_worktrees(parent: Path, repository: Path) -> None:
    """Remove what killed processes left: folders, and the repository's entries of folders gone.

    `git worktree prune` would also drop the entries of containers that see the same cache under
    another path.
    """
    sweep(parent)
    with suppress(OSError):
        for entry in (repository / "worktrees").iterdir():
            if not is_in_use(parent / entry.name):
                remove_tree(entry)


def _failure(commit: str) -> str:
    return f"Commit {short_hash(commit)} cannot be checked out:"
