"""The sample repository is built the same each time, and its faults live in its code alone."""

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from virnucpro_monitor.cli.sample.repository import (
    SAMPLE_FOLDER,
    Edit,
    SampleCommit,
    apply_edit,
    build_repository,
    load_history,
)
from virnucpro_monitor.errors import RepositoryError


def git(folder: Path, *arguments: str) -> str:
    return subprocess.run(
        ["git", *arguments], cwd=folder, capture_output=True, text=True, check=True
    ).stdout


def without_fault(history: Sequence[SampleCommit], name: str) -> list[SampleCommit]:
    """The history in which the commit `name` changes nothing."""
    assert any(commit.name == name for commit in history)
    return [replace(commit, edits=()) if commit.name == name else commit for commit in history]


def test_the_same_hashes_wherever_and_whoever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = build_repository(tmp_path / "first")
    configuration = tmp_path / "gitconfig"
    configuration.write_text(
        "[commit]\n\tgpgsign = true\n[core]\n\tautocrlf = true\n[user]\n\tname = Other\n"
        "[init]\n\tdefaultBranch = trunk\n"
    )
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(configuration))
    monkeypatch.setenv("GIT_AUTHOR_NAME", "Other")
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere"))
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    second = build_repository(tmp_path / "second")
    monkeypatch.delenv("GIT_DIR")
    assert first == second
    assert len(set(first)) == len(load_history())
    assert git(tmp_path / "second", "rev-parse", "--abbrev-ref", "HEAD").strip() == "main"
    assert git(tmp_path / "second", "status", "--porcelain") == ""


def test_a_repository_that_is_right_is_left_alone_and_another_is_replaced(tmp_path: Path) -> None:
    folder = tmp_path / "sample"
    hashes = build_repository(folder)
    marker = folder / ".git" / "marker"
    marker.write_text("")
    assert build_repository(folder) == hashes
    assert marker.exists()
    git(folder, "commit", "--quiet", "--allow-empty", "--message", "Another")
    assert build_repository(folder) == hashes
    assert git(folder, "rev-parse", "HEAD").strip() == hashes[-1]
    assert not marker.exists()
    assert [path.name for path in tmp_path.iterdir()] == ["sample"]


def test_every_edit_of_the_history_applies_and_no_two_commits_are_alike(tmp_path: Path) -> None:
    history = load_history()
    folder = tmp_path / "sample"
    build_repository(folder)
    trees = git(folder, "log", "--format=%T").split()
    assert len(set(trees)) == len(history)  # equal trees would inherit instead of being measured
    git(folder, "checkout", "--quiet", git(folder, "rev-list", "--max-parents=0", "HEAD").strip())
    for commit in history[1:]:
        for edit in commit.edits:
            assert apply_edit(folder, edit), f"{commit.name}: an edit of {edit.file} is void"


def test_every_module_of_every_commit_compiles(tmp_path: Path) -> None:
    folder = tmp_path / "sample"
    for revision in build_repository(folder):
        for name in git(folder, "ls-tree", "-r", "--name-only", revision).split():
            if name.endswith(".py"):
                compile(git(folder, "show", f"{revision}:{name}"), f"{revision}:{name}", "exec")


def test_an_edit_whose_text_is_not_there_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("x = 1\n")
    assert not apply_edit(tmp_path, Edit(file="a.py", old="y = 1\n", new="y = 2\n"))
    assert not apply_edit(tmp_path, Edit(file="b.py", old="y = 1\n", new="y = 2\n"))
    assert apply_edit(tmp_path, Edit(file="a.py", old="x = 1\n", new="x = 2\n"))
    assert (tmp_path / "a.py").read_text() == "x = 2\n"
    assert not (tmp_path / "b.py").exists()


@pytest.mark.parametrize("name", [commit.name for commit in load_history()[1:]])
def test_any_commit_can_be_taken_out_and_the_rest_still_builds(tmp_path: Path, name: str) -> None:
    history = load_history()
    hashes = build_repository(tmp_path / "sample", without_fault(history, name))
    assert len(hashes) == len(history)


def test_the_package_is_written_for_the_sample_alone() -> None:
    for path in (SAMPLE_FOLDER / "base").rglob("*.py"):
        assert "virnucpro" not in path.read_text().lower()


def test_missing_git_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RepositoryError, match="git and a writable folder are needed"):
        build_repository(tmp_path / "sample")


def test_importing_the_builder_stays_light() -> None:
    code = (
        "import sys, virnucpro_monitor.cli.sample.repository as r; "
        "sys.exit(any(name in sys.modules for name in ('torch', 'esm', 'sqlalchemy')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
