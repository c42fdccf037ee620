"""What a commit says of itself and which files it changes, read where its repository is at hand."""

from dataclasses import dataclass
from pathlib import Path

from virnucpro_monitor.runner.checkout import Repository
from virnucpro_monitor.runner.git import GitError, run_git

MAX_FILES = 100
MAX_BODY_CHARACTERS = 20_000


@dataclass(frozen=True, slots=True)
class ChangedFile:
    """One path of a commit's difference to its first parent; binary files have no counts."""

    path: str
    num_added: int | None
    num_removed: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitStory:
    """A commit's words and files.

    Attributes:
        body: the message below its subject; empty where there is none.
        files: the first `MAX_FILES` of the `num_files` that it changes.
    """

    body: str
    files: tuple[ChangedFile, ...]
    num_files: int


def read_story(location: str, cache_folder: Path, commit: str) -> CommitStory | None:
    """Read a commit without asking the network.

    Args:
        location: path or URL of its repository.
        commit: full hash.

    Returns:
        None where the repository, or the commit, is not on this machine.
    """
    folder = Repository.folder_here(location, cache_folder)
    if folder is None:
        return None
    try:
        body = run_git("log", "-1", "--no-show-signature", "--format=%b", commit, folder=folder)
        changes = run_git(
            "diff-tree", "-r", "-m", "--first-parent", "--root", "--no-commit-id", "--no-renames",
            "--numstat", "-z", commit, folder=folder,
        )  # fmt: skip
    except GitError:
        return None
    files = [_changed(line) for line in changes.split("\0") if line.count("\t") >= 2]
    return CommitStory(
        body=body.strip()[:MAX_BODY_CHARACTERS],
        files=tuple(files[:MAX_FILES]),
        num_files=len(files),
    )


def _changed(line: str) -> ChangedFile:
    added, removed, path = line.split("\t", 2)
    return ChangedFile(
        path,
        int(added) if added.isdecimal() else None,
        int(removed) if removed.isdecimal() else None,
    )
