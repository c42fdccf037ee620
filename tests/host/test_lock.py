import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from virnucpro_monitor.errors import ConfigurationError, LockedError
from virnucpro_monitor.host.lock import file_lock, lease, lock_path

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


def test_one_database_has_one_lock_however_its_address_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = tmp_path / "data" / "monitor.db"
    database.parent.mkdir()
    (tmp_path / "link.db").symlink_to(database)
    (tmp_path / "folder").symlink_to(database.parent)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    urls = [
        f"sqlite:///{database}",
        f"sqlite+pysqlite:///{database}",
        f"sqlite:////{database}",
        "sqlite:///data/monitor.db",
        "sqlite:///./data/../data/monitor.db",
        "sqlite:///~/data/monitor.db",
        "sqlite:///link.db",
        "sqlite:///folder/monitor.db",
    ]
    expected = database.parent / ".monitor.db.t.lock"
    assert {lock_path(url, "t") for url in urls} == {expected}
    database.touch()
    assert {lock_path(url, "t") for url in urls} == {expected}
    assert lock_path(urls[0], "other") != expected
    servers = ["postgresql://h/db", "postgresql://u:p@x@h/db", "postgresql+psycopg://u@h/db?a=b"]
    assert len({lock_path(url, "t") for url in servers}) == 1
    assert lock_path("postgresql://h/other", "t") != lock_path("postgresql://h/db", "t")


def test_a_folder_that_takes_no_lock_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(ConfigurationError, match=r"The lock .* cannot be made"),
        file_lock(tmp_path / "file" / "one.lock"),
    ):
        pass
