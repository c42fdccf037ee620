import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.runner.tiny_target import HEALTHY, TinyRepository
from virnucpro_monitor.runner.checkout import Repository
from virnucpro_monitor.scratch import LOCK_SUFFIX, UNKNOWN_OWNER_S, scratch_folder, sweep

_OWNER = """
import sys, time
from pathlib import Path
from virnucpro_monitor.scratch import scratch_folder
with scratch_folder(Path(sys.argv[1]), "a-") as folder:
    folder.mkdir()
    (folder / "file").write_text("x")
    print(folder, flush=True)
    time.sleep(600)
"""


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_folder_goes_with_its_context(tmp_path: Path) -> None:
    with scratch_folder(tmp_path, "a-") as folder:
        folder.mkdir()
        (folder / "file").write_text("x")
        assert sweep(tmp_path) == []
        assert (folder / "file").exists()
    assert names(tmp_path) == []


def test_a_folder_that_forbids_its_removal_goes_too(tmp_path: Path) -> None:
    with scratch_folder(tmp_path, "a-") as folder:
        (folder / "inner").mkdir(parents=True)
        (folder / "inner" / "file").write_text("x")
        outside = tmp_path / "outside"
        outside.mkdir(mode=0o500)
        (folder / "inner" / "link").symlink_to(outside)
        (folder / "inner").chmod(0)
        folder.chmod(0o500)
    assert names(tmp_path) == ["outside"]
    assert outside.stat().st_mode & 0o777 == 0o500


def test_a_killed_owners_folder_is_swept_and_a_living_ones_is_not(tmp_path: Path) -> None:
    owners = [
        subprocess.Popen([sys.executable, "-c", _OWNER, str(tmp_path)], stdout=subprocess.PIPE)
        for _ in range(2)
    ]
    try:
        folders = []
        for owner in owners:
            assert owner.stdout is not None
            folders.append(Path(owner.stdout.readline().decode().strip()))
        os.kill(owners[0].pid, signal.SIGKILL)
        owners[0].wait()
        assert (folders[0] / "file").exists()
        assert sweep(tmp_path, "b-") == []
        assert sweep(tmp_path, "a-") == [folders[0].name]
        assert (folders[1] / "file").exists()
        assert names(tmp_path) == sorted([folders[1].name, f"{folders[1].name}{LOCK_SUFFIX}"])
    finally:
        for owner in owners:
            owner.kill()
            owner.wait()
            assert owner.stdout is not None
            owner.stdout.close()


@pytest.mark.parametrize(("age_s", "swept"), [(60, False), (UNKNOWN_OWNER_S + 60, True)])
@pytest.mark.parametrize("owner", ["another-boot another-host", None])
def test_what_may_be_another_machines_is_left_until_it_is_old(
    owner: str | None, age_s: float, swept: bool, tmp_path: Path
) -> None:
    (tmp_path / "a-1").mkdir()
    then = time.time() - age_s
    if owner is not None:
        lock = tmp_path / f"a-1{LOCK_SUFFIX}"
        lock.write_text(owner)
        os.utime(lock, (then, then))
    os.utime(tmp_path / "a-1", (then, then))
    assert sweep(tmp_path) == (["a-1"] if swept else [])
    assert (tmp_path / "a-1").exists() is not swept


def test_the_lock_of_one_killed_before_it_wrote_its_name_is_swept_by_the_next(
    tmp_path: Path,
) -> None:
    (tmp_path / f"a-1{LOCK_SUFFIX}").touch()
    assert sweep(tmp_path, "b-") == []
    assert sweep(tmp_path, "a-") == ["a-1"]
    assert names(tmp_path) == []


def test_worktrees_of_equal_names_and_killed_processes_do_not_meet(tmp_path: Path) -> None:
    tiny = TinyRepository(tmp_path / "tiny")
    head = tiny.commit(HEALTHY)
    repository = Repository.open(str(tiny.folder), tmp_path / "cache")
    worktrees = tmp_path / "cache" / "repositories" / "worktrees"
    (cache,) = (tmp_path / "cache" / "repositories").glob("*.git")
    code = (
        "import sys, os; from pathlib import Path;"
        "from virnucpro_monitor.runner.checkout import Repository;"
        "checkout = Repository.open(sys.argv[1], Path(sys.argv[2])).checkout(sys.argv[3]);"
        "print(checkout.__enter__()[0], flush=True); os.kill(os.getpid(), 9)"
    )
    command = [sys.executable, "-c", code, str(tiny.folder), str(tmp_path / "cache"), head]
    killed = Path(subprocess.run(command, capture_output=True, text=True).stdout.strip())
    assert killed.is_dir()
    assert names(cache / "worktrees") == [killed.name]
    with repository.checkout(head) as (first, _), repository.checkout(head) as (second, _):
        assert first != second
        assert not killed.exists()
        assert names(cache / "worktrees") == sorted([first.name, second.name])
    assert names(worktrees) == []
    assert names(cache / "worktrees") == []
