"""One runner at a time: a file lock on one host, a lease in a shared database across hosts."""

import contextlib
import fcntl
import hashlib
import os
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from virnucpro_monitor.disks import path_from
from virnucpro_monitor.errors import ConfigurationError, LockedError
from virnucpro_monitor.user_folders import user_folder

POLL_S = 1.0
LEASE_TTL_S = 120.0


def lock_path(database_url: str, target: str) -> Path:
    """The file that runs of one target into one database lock, however its address is written.

    It lies beside an SQLite file, as every container sees it there; a link to that file, a relative
    path and an absolute one lead to the same. A server has a lease of its own, so that the file is
    only for this user's other runs.
    """
    if database_url.startswith("sqlite"):
        database = path_from(database_url.partition(":///")[2]).resolve()
        return database.with_name(f".{database.name}.{target}.lock")
    place = re.sub(r"^[^:]*://(?:.*@)?|[?#].*$", "", database_url, flags=re.S)
    key = hashlib.sha256(f"{place}\n{target}".encode(errors="replace")).hexdigest()[:16]
    return user_folder("XDG_DATA_HOME", ".local/share") / "locks" / f"{key}.lock"


@contextmanager
def file_lock(
    path: Path, *, wait_s: float = 0.0, on_wait: Callable[[str], None] | None = None
) -> Iterator[None]:
    """Hold an exclusive lock on a file; the kernel frees it when the process ends, however.

    Raises:
        ConfigurationError: the file cannot be made.
        LockedError: another process holds it, and still does after `wait_s`.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise ConfigurationError(
            f"The lock {path} cannot be made ({error.strerror}): check the folder's disk and its "
            f"rights."
        ) from error
    try:
        _wait_for(descriptor, wait_s, on_wait)
        _write(descriptor, f"process {os.getpid()} on {socket.gethostname()}")
        yield
        _write(descriptor, "")
    finally:
        os.close(descriptor)


def _wait_for(descriptor: int, wait_s: float, on_wait: Callable[[str], None] | None) -> None:
    end, said = time.monotonic() + wait_s, False
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            holder = os.pread(descriptor, 1000, 0).decode(errors="replace") or "another process"
        if time.monotonic() >= end:
            raise LockedError(f"Another runner is at work here ({holder}): try again later.")
        if on_wait and not said:
            on_wait(f"Waiting for another runner ({holder}).")
            said = True
        time.sleep(min(POLL_S, max(end - time.monotonic(), 0.01)))


def _write(descriptor: int, holder: str) -> None:
    """Note who holds the lock. A full disk does not take the note, and the lock holds as well."""
    with suppress(OSError):
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, holder.encode(), 0)


@contextmanager
def lease(
    name: str,
    acquire: Callable[[str, str, float], bool],
    release: Callable[[str, str], object],
    *,
    owner: str | None = None,
    wait_s: float = 0.0,
    on_wait: Callable[[str], None] | None = None,
    ttl_s: float = LEASE_TTL_S,
    poll_s: float = 5.0,
) -> Iterator[None]:
    """Hold a lease that hosts share, renewing it from a thread until the context ends.

    Args:
        acquire: (name, owner, seconds) -> whether owner now holds it.
        release: (name, owner).
        owner: unlike that of every other process; made up where it is not given.

    Raises:
        LockedError: another host holds it, and still does after `wait_s`.
    """
    owner = owner or f"{socket.gethostname()}:{os.getpid()}:{time.monotonic_ns()}"
    end, said = time.monotonic() + wait_s, False
    while not acquire(name, owner, ttl_s):
        if time.monotonic() >= end:
            raise LockedError(f"A runner on another host is at work on {name}: try again later.")
        if on_wait and not said:
            on_wait(f"Waiting for a runner on another host ({name}).")
            said = True
        time.sleep(min(poll_s, max(end - time.monotonic(), 0.01)))
    stop = threading.Event()

    def renew() -> None:
        while not stop.wait(ttl_s / 4):
            with contextlib.suppress(Exception):  # the next turn tries again
                acquire(name, owner, ttl_s)

    thread = threading.Thread(target=renew, daemon=True, name="lease")
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(timeout=5)
        release(name, owner)
