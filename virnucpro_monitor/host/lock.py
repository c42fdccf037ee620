"""One runner at a time: a file lock on one host, a lease in a shared database across hosts."""

import contextlib
import fcntl
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from virnucpro_monitor.errors import LockedError

POLL_S = 1.0
LEASE_TTL_S = 120.0


@contextmanager
def file_lock(
    path: Path, *, wait_s: float = 0.0, on_wait: Callable[[str], None] | None = None
) -> Iterator[None]:
    """Hold an exclusive lock on a file; the kernel frees it when the process ends, however.

    Raises:
        LockedError: another process holds it, and still does after `wait_s`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as file:
        end, said = time.monotonic() + wait_s, False
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                file.seek(0)
                holder = file.read().strip() or "another process"
                if time.monotonic() >= end:
                    raise LockedError(
                        f"Another runner is at work here ({holder}): try again later, or wait for "
                        f"it with --wait MINUTES."
                    ) from None
                if on_wait and not said:
                    on_wait(f"Waiting for another runner ({holder}).")
                    said = True
                time.sleep(min(POLL_S, max(end - time.monotonic(), 0.01)))
        file.seek(0)
        file.truncate()
        file.write(f"process {os.getpid()}")
        file.flush()
        try:
            yield
        finally:
            file.seek(0)
            file.truncate()


@contextmanager
def lease(
    name: str,
    acquire: Callable[[str, str, float], bool],
    release: Callable[[str, str], object],
    *,
    wait_s: float = 0.0,
    on_wait: Callable[[str], None] | None = None,
    ttl_s: float = LEASE_TTL_S,
    poll_s: float = 5.0,
) -> Iterator[None]:
    """Hold a lease that hosts share, renewing it from a thread until the context ends.

    Args:
        acquire: (name, owner, seconds) -> whether owner now holds it.
        release: (name, owner).

    Raises:
        LockedError: another host holds it, and still does after `wait_s`.
    """
    owner = f"{socket.gethostname()}:{os.getpid()}:{time.monotonic_ns()}"
    end, said = time.monotonic() + wait_s, False
    while not acquire(name, owner, ttl_s):
        if time.monotonic() >= end:
            raise LockedError(
                f"A runner on another host is at work on {name}: try again later, or wait for it "
                f"with --wait MINUTES."
            )
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
