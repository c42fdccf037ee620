import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from virnucpro_monitor.errors import LockedError
from virnucpro_monitor.host.lock import file_lock, lease

_HOLDER = """
import sys, time
from pathlib import Path
from virnucpro_monitor.host.lock import file_lock
with file_lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


def test_a_second_start_leaves_and_a_killed_holder_frees_the_lock(tmp_path: Path) -> None:
    path = tmp_path / "locks" / "one.lock"
    holder = subprocess.Popen([sys.executable, "-c", _HOLDER, str(path)], stdout=subprocess.PIPE)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(LockedError, match=f"process {holder.pid}"), file_lock(path):
            pass
        said: list[str] = []
        threading.Timer(0.3, holder.kill).start()
        with file_lock(path, wait_s=20, on_wait=said.append):
            assert f"process {holder.pid}" in said[0]
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()


class Leases:
    """What the store offers, in memory."""

    def __init__(self) -> None:
        self.holder: str | None = None
        self.renewals = 0

    def acquire(self, name: str, owner: str, ttl_s: float) -> bool:
        if self.holder in (None, owner):
            self.renewals += self.holder == owner
            self.holder = owner
            return True
        return False

    def release(self, name: str, owner: str) -> bool:
        held, self.holder = self.holder == owner, None
        return held


def test_a_lease_is_renewed_while_held_and_given_back() -> None:
    leases = Leases()
    with lease("run t", leases.acquire, leases.release, ttl_s=0.1):
        end = time.monotonic() + 10
        while leases.renewals < 2 and time.monotonic() < end:
            time.sleep(0.01)
        assert leases.renewals >= 2
        with (
            pytest.raises(LockedError, match="another host"),
            lease("run t", leases.acquire, leases.release),
        ):
            pass
    assert leases.holder is None


def test_a_lease_is_waited_for() -> None:
    leases = Leases()
    leases.holder = "someone"
    threading.Timer(0.2, lambda: leases.release("run t", "someone")).start()
    said: list[str] = []
    with lease(
        "run t", leases.acquire, leases.release, wait_s=20, poll_s=0.05, on_wait=said.append
    ):
        assert leases.holder != "someone"
    assert said == ["Waiting for a runner on another host (run t)."]
