"""A job's control group: nobody in it outlives it. Asked where groups can be made (conftest.py)."""

import os
import signal
import time
from pathlib import Path

from virnucpro_monitor.runner import cgroup
from virnucpro_monitor.runner.cgroup import JobGroup
from virnucpro_monitor.runner.containment import Inside, fork_contained
from virnucpro_monitor.runner.supervisor import Limits, supervise

RUNAWAY_S = 30.0


def run_away(until: float) -> None:
    """Be another process at each moment, of a session of one's own: who kills by number is late."""
    while time.monotonic() < until:
        time.sleep(0.001)
        if os.fork():
            os._exit(0)
        os.setsid()


def is_empty(folder: Path) -> bool:
    return "populated 0" in (folder / "cgroup.events").read_text()


def wait_until_empty(folder: Path) -> bool:
    end = time.monotonic() + 20
    while not is_empty(folder) and time.monotonic() < end:
        time.sleep(0.01)
    return is_empty(folder)


def test_who_runs_away_from_its_watcher_is_ended() -> None:
    group = JobGroup.make()
    assert group is not None
    result, output = os.pipe(), os.pipe()
    child = fork_contained(namespace=False)
    if isinstance(child, Inside):
        try:
            group.join()
            for _ in range(3):
                if os.fork() == 0:
                    run_away(time.monotonic() + RUNAWAY_S)
                    os._exit(0)
            time.sleep(0.2)
        finally:
            os._exit(0)
    os.close(result[1])
    os.close(output[1])
    start = time.monotonic()
    ending = supervise(child, result[0], output[0], Limits(60.0), lambda _: False, group=group)
    assert (ending.cause, ending.code) == ("exit", 0)
    assert wait_until_empty(group.folder)
    assert time.monotonic() - start < RUNAWAY_S
    group.remove()
    assert not group.folder.exists()


def test_the_group_of_a_killed_maker_is_swept() -> None:
    read, write = os.pipe()
    maker = os.fork()
    if maker == 0:
        group = JobGroup.make()
        if group is not None and os.fork() == 0:
            os.setsid()
            group.join()
            os.write(write, str(group.folder).encode())
            time.sleep(600)
        time.sleep(600)
    left = Path(os.read(read, 1000).decode())
    os.kill(maker, signal.SIGKILL)
    os.waitpid(maker, 0)
    assert not is_empty(left)
    end = time.monotonic() + 20
    while left.exists() and time.monotonic() < end:
        cgroup._sweep(left.parent)
        time.sleep(0.01)
    assert not left.exists()
    os.close(read)
    os.close(write)
