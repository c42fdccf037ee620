"""Builds the sample repository: the same files, dates and authors, hence the same commit hashes.

`base/` is the first commit's tree. Each file of `history/` is one commit, in order of name: its
subject, and edits that replace `old` text by `new` text in one file (no `old`: a new file). An
edit whose `old` text is not there changes nothing, as a revert of something that never happened;
so a fault can be taken out of the history without touching the fix that follows it.
"""

import os
import shutil
import subprocess
import tempfile
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from virnucpro_monitor.errors import RepositoryError

SAMPLE_FOLDER = Path(__file__).parent

_FIRST_COMMIT_AT = datetime(2026, 3, 2, 9, 30, tzinfo=UTC)
_BETWEEN_COMMITS = timedelta(hours=31)
_AUTHOR = "Sample Author"
_EMAIL = "author@example.org"


@dataclass(frozen=True, slots=True, kw_only=True)
class Edit:
    """Replace `old` by `new` in `file`; `old` None creates the file."""

    file: str
    old: str | None
    new: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleCommit:
    name: str
    subject: str
    body: str
    edits: tuple[Edit, ...]


def load_history() -> tuple[SampleCommit, ...]:
    """Read the commits of `history/`, oldest first."""
    return tuple(_parse_commit(path) for path in sorted((SAMPLE_FOLDER / "history").glob("*.toml")))


def build_repository(
    folder: Path, history: Sequence[SampleCommit] | None = None
) -> tuple[str, ...]:
    """Make `folder` the sample repository and return its commit hashes, oldest first.

    A folder that already holds this very history is left alone; anything else in its place is
    replaced.

    Raises:
        RepositoryError: git is missing or fails, or the folder cannot be written.
    """
    history = load_history() if history is None else history
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".building-") as workspace:
            tree = Path(workspace) / "repository"
            shutil.copytree(
                SAMPLE_FOLDER / "base", tree, ignore=shutil.ignore_patterns("__pycache__")
            )
            _git(tree, "init", "--quiet", "--initial-branch=main", "--template=")
            for number, commit in enumerate(history):
                for edit in commit.edits:
                    apply_edit(tree, edit)
                _commit_tree(tree, commit, _FIRST_COMMIT_AT + number * _BETWEEN_COMMITS)
            hashes = _list_commits(tree)
            if not (folder / ".git").is_dir() or _list_commits(folder) != hashes:
                shutil.rmtree(folder, ignore_errors=True)
                tree.rename(folder)
    except OSError as error:
        raise RepositoryError(
            f"The sample repository cannot be built in {folder.parent}: "
            f"{error.strerror or error}; git and a writable folder are needed."
        ) from error
    return hashes


def apply_edit(tree: Path, edit: Edit) -> bool:
    """Apply one edit to the files under `tree`; returns whether it changed anything."""
    path = tree / edit.file
    if edit.old is None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(edit.new, encoding="utf-8", newline="\n")
        return True
    if not path.exists():
        return False
    before = path.read_text(encoding="utf-8")
    after = before.replace(edit.old, edit.new)
    path.write_text(after, encoding="utf-8", newline="\n")
    return after != before


def _parse_commit(path: Path) -> SampleCommit:
    content = tomllib.loads(path.read_text(encoding="utf-8"))
    edits = tuple(
        Edit(file=edit["file"], old=edit.get("old"), new=edit["new"])
        for edit in content.get("edit", ())
    )
    return SampleCommit(
        name=path.stem, subject=content["subject"], body=content.get("body", ""), edits=edits
    )


def _commit_tree(tree: Path, commit: SampleCommit, at: datetime) -> None:
    message = f"{commit.subject}\n\n{commit.body}".strip() + "\n"
    _git(tree, "add", "--all")
    _git(tree, "commit", "--quiet", "--allow-empty", "--no-verify", f"--message={message}", at=at)


def _list_commits(tree: Path) -> tuple[str, ...]:
    return tuple(_git(tree, "rev-list", "--reverse", "HEAD").split())


def _git(tree: Path, *arguments: str, at: datetime = _FIRST_COMMIT_AT) -> str:
    """Run git without the user's configuration, which could sign, convert or rename."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    environment = kept | {
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_AUTHOR_NAME": _AUTHOR,
        "GIT_AUTHOR_EMAIL": _EMAIL,
        "GIT_AUTHOR_DATE": at.isoformat(),
        "GIT_COMMITTER_NAME": _AUTHOR,
        "GIT_COMMITTER_EMAIL": _EMAIL,
        "GIT_COMMITTER_DATE": at.isoformat(),
    }
    result = subprocess.run(
        ["git", "-c", "core.safecrlf=false", *arguments],
        cwd=tree,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode != 0:
        raise RepositoryError(
            f"git {arguments[0]} failed while building the sample repository: "
            f"{result.stderr.strip() or result.returncode}."
        )
    return result.stdout
