"""Whether a driver starts under confinement is tried, not hoped for."""

import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from virnucpro_monitor.runner.confined_cuda import Found, try_confined
from virnucpro_monitor.runner.confinement import Territory, landlock_version

_STAND_IN = """
import os, time
from virnucpro_monitor.runner import confined_cuda

def writes(path):
    with open(path, "w") as file:
        file.write("named")
    return True

def leaves(kind):
    raise kind

confined_cuda.TRIAL_S = 1
confined_cuda.tell(lambda: {start})
"""


_LEAVES_A_FILE = """
import os, sys
from virnucpro_monitor.runner.containment import own_shared_memory
own = own_shared_memory()
open("/dev/shm/" + sys.argv[1], "w").close()
print(own)
"""


def found_for(territory: Territory, start: str) -> Found:
    """How a stand-in for CUDA's driver starts, which is an expression."""
    command = (sys.executable, "-P", "-c", _STAND_IN.format(start=start))
    return try_confined(territory, network=False, command=command).found()


def stands_confinement(territory: Territory, start: str) -> bool:
    return found_for(territory, start).starts


@pytest.fixture
def shared_file() -> Iterator[Path]:
    """A name in the machine's own shared memory."""
    path = Path("/dev/shm", f"virnucpro-monitor-{uuid.uuid4().hex}")
    yield path
    path.unlink(missing_ok=True)


def leaves_nothing(shared_file: Path) -> bool:
    """Whether the kernel gives a process shared memory of its own, by what is left of it."""
    command = [sys.executable, "-P", "-c", _LEAVES_A_FILE, shared_file.name]
    said = subprocess.run(command, capture_output=True, check=True, text=True).stdout.strip()
    assert said == str(not shared_file.exists())
    return not shared_file.exists()


def test_what_a_process_leaves_in_its_own_shared_memory_goes_with_it(shared_file: Path) -> None:
    own_memory = leaves_nothing(shared_file)
    assert found_for(Territory(()), "True") == Found(starts=True, own_memory=own_memory)


def test_a_driver_that_needs_the_machine_s_shared_memory_gets_it(shared_file: Path) -> None:
    shared_file.touch()
    start = f"os.path.exists('{shared_file}')"
    assert found_for(Territory(()), start) == Found(starts=True, own_memory=False)


def test_a_driver_may_name_its_threads(tmp_path: Path) -> None:
    # CUDA's does, by this file, and gives error 304 where it may not.
    name = "writes(f'/proc/self/task/{os.getpid()}/comm')"
    assert stands_confinement(Territory((tmp_path,)), name)


def test_a_driver_that_wants_more_than_is_left_does_not_start(tmp_path: Path) -> None:
    mine, theirs = tmp_path / "mine", tmp_path / "theirs"
    mine.mkdir()
    theirs.mkdir()
    territory = Territory((mine,))
    assert stands_confinement(territory, f"writes('{mine}/file')")
    started = stands_confinement(territory, f"writes('{theirs}/file')")
    assert started is (landlock_version() == 0)
    assert (theirs / "file").exists() is started


def test_the_one_who_asks_stays_as_he_is(tmp_path: Path) -> None:
    assert not stands_confinement(Territory(()), "False")
    (tmp_path / "file").touch()


@pytest.mark.parametrize(
    "start", ["leaves(OSError)", "leaves(SystemExit)", "time.sleep(600)"], ids=str
)
def test_a_driver_that_raises_or_hangs_has_not_started(start: str) -> None:
    assert not stands_confinement(Territory(()), start)


def test_a_trial_that_others_reap_is_heard_all_the_same() -> None:
    command = (sys.executable, "-P", "-c", _STAND_IN.format(start="True"))
    trial = try_confined(Territory(()), network=False, command=command)
    os.waitpid(trial.pid, 0)
    assert trial.found().starts


@pytest.mark.gpu
def test_cuda_starts_in_a_confined_process(tmp_path: Path, shared_file: Path) -> None:
    found = try_confined(Territory((tmp_path,)), network=False).found()
    assert found == Found(starts=True, own_memory=leaves_nothing(shared_file))
