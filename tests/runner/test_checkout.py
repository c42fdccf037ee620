import shutil
import stat
from pathlib import Path

import pytest

from tests.runner.tiny_target import HEALTHY, MODEL_FILE, TinyRepository
from virnucpro_monitor.errors import AmbiguousRevision, DiskError, MonitorError, RepositoryError
from virnucpro_monitor.runner import worktrees
from virnucpro_monitor.runner.checkout import Repository, is_url
from virnucpro_monitor.runner.git import GitError


def listing(folder: Path) -> dict[str, tuple[int, int]]:
    return {
        str(path.relative_to(folder)): (path.lstat().st_size, path.lstat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
    }


def test_a_checkout_holds_the_commits_files_and_goes_away(
    tiny: TinyRepository, tmp_path: Path
) -> None:
    first = tiny.git("rev-parse", "HEAD")
    tiny.commit({MODEL_FILE: "changed = True\n"})
    repository = Repository.open(str(tiny.folder), tmp_path / "cache")
    with repository.checkout(first) as (folder, note):
        assert (folder / MODEL_FILE).read_text() == HEALTHY[MODEL_FILE]
        assert note == ""
    assert not folder.exists()


@pytest.mark.parametrize(
    ("free_bytes", "kind", "sentence"),
    [
        (4096, DiskError, "the disk of .*worktrees is full: free some space there"),
        (10**9, RepositoryError, "git worktree failed"),
    ],
)
def test_a_checkout_that_fails_on_a_full_disk_says_so(
    free_bytes: int,
    kind: type[MonitorError],
    sentence: str,
    tiny: TinyRepository,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whatever git makes of the disk; and a fault of the disk is none of the commit's."""
    repository = Repository.open(str(tiny.folder), tmp_path / "cache")
    head = repository.resolve("HEAD")

    def fail(*arguments: str, **_: object) -> str:
        raise GitError(f"git {arguments[0]} failed (it said nothing).", "")

    monkeypatch.setattr(worktrees, "run_git", fail)
    usage = shutil.disk_usage(tmp_path)._replace(free=free_bytes)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(kind, match=f"cannot be checked out: {sentence}"), repository.checkout(head):
        pass


def test_the_users_repository_is_not_touched(tiny: TinyRepository, tmp_path: Path) -> None:
    (tiny.folder / "uncommitted.txt").write_text("mine")
    before = listing(tiny.folder)
    repository = Repository.open(str(tiny.folder), tmp_path / "cache")
    head = repository.resolve("HEAD")
    repository.commits(repository.history(head))
    with repository.checkout(head) as (folder, _):
        (folder / MODEL_FILE).write_text("scribble")
    assert listing(tiny.folder) == before


def test_a_read_only_and_a_bare_repository_work(tiny: TinyRepository, tmp_path: Path) -> None:
    bare = tmp_path / "bare.git"
    tiny.git("clone", "--quiet", "--bare", str(tiny.folder), str(bare))
    writable = [path for path in [bare, *bare.rglob("*")] if not path.is_symlink()]
    for path in writable:
        path.chmod(path.stat().st_mode & ~stat.S_IWUSR & ~stat.S_IWGRP & ~stat.S_IWOTH)
    try:
        repository = Repository.open(str(bare), tmp_path / "cache")
        with repository.checkout(repository.resolve("main")) as (folder, _):
            assert (folder / MODEL_FILE).exists()
    finally:
        for path in writable:
            path.chmod(path.stat().st_mode | stat.S_IWUSR)


def test_a_subfolder_and_a_linked_worktree_name_the_same_repository(
    tiny: TinyRepository, tmp_path: Path
) -> None:
    tiny.git("worktree", "add", "--quiet", "--detach", str(tmp_path / "linked"))
    head = tiny.git("rev-parse", "HEAD")
    for place in (tiny.folder / "tinytarget", tmp_path / "linked"):
        repository = Repository.open(str(place), tmp_path / "cache")
        with repository.checkout(repository.resolve("HEAD")) as (folder, _):
            assert (folder / MODEL_FILE).exists()
        assert repository.resolve("HEAD") == head


def test_a_url_is_mirrored_and_follows_the_remote(tiny: TinyRepository, tmp_path: Path) -> None:
    url = tiny.folder.as_uri()
    assert Repository.open(url, tmp_path / "cache").resolve("HEAD") == tiny.git("rev-parse", "HEAD")
    newer = tiny.commit({MODEL_FILE: "x = 1\n"})
    repository = Repository.open(url, tmp_path / "cache")
    assert repository.resolve("main") == newer
    with repository.checkout(newer) as (folder, _):
        assert (folder / MODEL_FILE).read_text() == "x = 1\n"


def test_a_mirror_follows_a_renamed_default_branch(tiny: TinyRepository, tmp_path: Path) -> None:
    url = tiny.folder.as_uri()
    Repository.open(url, tmp_path / "cache")
    tiny.git("branch", "--quiet", "--move", "main", "trunk")
    newer = tiny.commit({"a": "b"})
    assert Repository.open(url, tmp_path / "cache").resolve("HEAD") == newer


def test_submodules_hooks_and_large_file_filters_do_not_run(
    tiny: TinyRepository, tmp_path: Path
) -> None:
    hook = tiny.folder / ".git" / "hooks" / "post-checkout"
    hook.write_text(f"#!/bin/sh\ntouch {tmp_path / 'hook-ran'}\n")
    hook.chmod(0o755)
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
    modules = '[submodule "gone"]\n\tpath = gone\n\turl = https://localhost:1/gone.git\n'
    head = tiny.commit(
        {
            ".gitattributes": "*.bin filter=lfs diff=lfs merge=lfs -text\n",
            "weights.bin": pointer,
            ".gitmodules": modules,
        }
    )
    tiny.git("update-index", "--add", "--cacheinfo", f"160000,{head},gone")
    tiny.git("commit", "--quiet", "-m", "Add a submodule")
    repository = Repository.open(str(tiny.folder), tmp_path / "cache")
    with repository.checkout(repository.resolve("HEAD")) as (folder, note):
        assert (folder / "weights.bin").read_text() == pointer
        assert note == ""
    assert not (tmp_path / "hook-ran").exists()


def test_files_without_content_are_noted_and_the_rest_is_there(
    tiny: TinyRepository, tmp_path: Path
) -> None:
    head = tiny.commit({"large.pth": "lost"})
    name = tiny.git("rev-parse", "HEAD:large.pth")
    lost = tiny.folder / ".git" / "objects" / name[:2] / name[2:]
    lost.chmod(0o644)
    lost.unlink()
    repository = Repository.open(str(tiny.folder), tmp_path / "cache")
    with repository.checkout(head) as (folder, note):
        assert (folder / MODEL_FILE).exists()
        assert not (folder / "large.pth").exists()
    assert note == "1 files lack their content here: large.pth"


def test_the_history_follows_first_parents(tiny: TinyRepository, tmp_path: Path) -> None:
    root = tiny.git("rev-parse", "HEAD")
    tiny.git("checkout", "--quiet", "-b", "side")
    side = tiny.commit({"side.txt": "s"})
    tiny.git("checkout", "--quiet", "main")
    main = tiny.commit({"main.txt": "m"})
    tiny.git("merge", "--quiet", "--no-ff", "-m", "Merge side", "side")
    merge = tiny.git("rev-parse", "HEAD")
    repository = Repository.open(str(tiny.folder), tmp_path / "cache")
    history = repository.history("main")
    assert history == (root, main, merge)
    assert repository.between(root, merge) == (main, merge)
    assert set(repository.between(root, merge, first_parent=False)) == {main, side, merge}
    commits = repository.commits([merge, side], history)
    assert [commit.position for commit in commits] == [2, None]
    assert commits[0].parents == (main, side)
    assert commits[0].subject == "Merge side"
    assert commits[0].committed_at is not None
    assert commits[0].committed_at.utcoffset() is not None
    assert not commits[1].on_branch


def test_bad_revisions_are_one_sentence(tiny: TinyRepository, tmp_path: Path) -> None:
    repository = Repository.open(str(tiny.folder), tmp_path / "cache")
    with pytest.raises(RepositoryError, match=r"Revision 'nope' is not known"):
        repository.resolve("nope")
    with pytest.raises(RepositoryError, match=r"'--help' is not a revision"):
        repository.resolve("--help")


def test_a_short_hash_that_fits_two_commits_is_refused(
    tiny: TinyRepository, tmp_path: Path
) -> None:
    tree = tiny.git("rev-parse", "HEAD^{tree}")
    seen: set[str] = set()
    for number in range(2000):
        prefix = tiny.git("commit-tree", tree, "-m", str(number))[:4]
        if prefix in seen:
            break
        seen.add(prefix)
    repository = Repository.open(str(tiny.folder), tmp_path / "cache")
    with pytest.raises(AmbiguousRevision, match=r"fits 2 commits \(.*give more digits"):
        repository.resolve(prefix)


def test_bad_places_are_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    (tmp_path / "file").write_text("x")
    for place, sentence in [
        (tmp_path / "plain", "is not a git repository"),
        (tmp_path / "file", "is a file"),
        (tmp_path / "gone", "There is no repository at"),
    ]:
        with pytest.raises(RepositoryError, match=sentence):
            Repository.open(str(place), tmp_path / "cache")
    with pytest.raises(RepositoryError, match="cannot be reached"):
        Repository.open((tmp_path / "gone").as_uri(), tmp_path / "cache")
    with pytest.raises(RepositoryError, match="cannot be reached"):
        Repository.open("https://localhost:1/gone.git", tmp_path / "cache")
    assert not list((tmp_path / "cache").glob("repositories/*.git"))


def test_a_shallow_clone_says_how_to_get_the_rest(tiny: TinyRepository, tmp_path: Path) -> None:
    first = tiny.git("rev-parse", "HEAD")
    tiny.commit({"a": "b"})
    shallow = tmp_path / "shallow"
    tiny.git("clone", "--quiet", "--depth", "1", tiny.folder.as_uri(), str(shallow))
    repository = Repository.open(str(shallow), tmp_path / "cache")
    assert len(repository.history("HEAD")) == 1
    with pytest.raises(RepositoryError, match="shallow"):
        repository.resolve(first)
    with repository.checkout(repository.resolve("HEAD")) as (folder, _):
        assert (folder / "a").exists()


def test_a_deleted_repository_is_a_checkout_error(tiny: TinyRepository, tmp_path: Path) -> None:
    repository = Repository.open(str(tiny.folder), tmp_path / "cache")
    head = repository.resolve("HEAD")
    shutil.rmtree(tiny.folder)
    with (
        pytest.raises(RepositoryError, match="cannot be checked out"),
        repository.checkout(head),
    ):
        pass


def test_a_cache_that_cannot_be_written_is_an_error(tiny: TinyRepository, tmp_path: Path) -> None:
    repository = Repository.open(str(tiny.folder), tmp_path / "cache")
    (tmp_path / "cache" / "repositories" / "worktrees").write_text("in the way")
    with (
        pytest.raises(DiskError, match=r"cannot be checked out: .*worktrees is in the way"),
        repository.checkout(repository.resolve("HEAD")),
    ):
        pass


def test_urls_are_told_from_paths() -> None:
    assert is_url("https://example.org/a.git")
    assert is_url("git@example.org:a/b.git")
    assert not is_url("/srv/git/a.git")
    assert not is_url("./a:b")
