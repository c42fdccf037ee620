"""A job's control group: nobody in it outlives it. Asked where groups can be made (conftest.py).

Each test is a process of its own: to supervise ends every child of the process that does it, and
one that is to be killed is made from scratch.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from virnucpro_monitor.runner import cgroup
from virnucpro_monitor.runner.cgroup import JobGroup
from virnucpro_monitor.runner.containment import Inside, fork_contained
from virnucpro_monitor.runner.supervisor import Limits, supervise

RUNAWAY_S = 30.0
ROOT = Path(__file__).resolve().parents[2]


def command(function: str) -> list[str]:
    """Call a function of this module."""
    return [sys.executable, "-c", f"from tests.runner.test_cgroup import *; {function}()"]


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


def watch_runaways() -> None:
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


def test_who_runs_away_from_its_watcher_is_ended() -> None:
    done = subprocess.run(
        command("watch_runaways"), cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def make_and_wait() -> None:
    group = JobGroup.make()
    assert group is not None
    if os.fork() == 0:
        os.setsid()
        group.join()
        os.write(1, f"{group.folder}\n".encode())
    time.sleep(600)


def test_the_group_of_a_killed_maker_is_swept() -> None:
    maker = subprocess.Popen(command("make_and_wait"), cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert maker.stdout is not None
    left = Path(maker.stdout.readline().strip())
    maker.send_signal(signal.SIGKILL)
    maker.wait()
    assert not is_empty(left)
    end = time.monotonic() + 20
    while left.exists() and time.monotonic() < end:
        cgroup._sweep(left.parent)
        time.sleep(0.01)
    assert not left.exists()
    maker.stdout.close()
