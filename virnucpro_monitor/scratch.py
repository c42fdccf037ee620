"""Private folders that vanish with their process, and a sweep for those that outlived it.

A folder's owner holds a lock on a file beside it for as long as it lives; the kernel drops that
lock however the owner ends, and shows it to every container on the machine, whatever process ids
those see. Where another machine may share the disk, its folders are left alone.
"""

import fcntl
import os
import shutil
import socket
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

LOCK_SUFFIX = ".owner"
UNKNOWN_OWNER_S = 7 * 86_400.0
"""After this, a folder without a lock, or of a machine that is not heard of, counts as left."""


@contextmanager
def scratch_folder(parent: Path, prefix: str) -> Iterator[Path]:
    """A new name in `parent` that nobody else has, for a folder or file that the caller makes.

    What is there at the end is removed.

    Args:
        parent: made where it is missing.

    Raises:
        OSError: `parent` cannot be written.
    """
    parent.mkdir(parents=True, exist_ok=True)
    while True:
        folder = parent / f"{prefix}{uuid.uuid4().hex[:12]}"
        lock = _lock_of(folder)
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with suppress(OSError):  # a disk without locks: nobody sweeps there either
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if lock.exists():  # else a sweep was faster than the lock
            break
        os.close(descriptor)
    try:
        os.write(descriptor, _this_machine().encode())  # a full disk is met here, with its error
        yield folder
    finally:
        remove_tree(folder)
        lock.unlink(missing_ok=True)
        os.close(descriptor)


def sweep(parent: Path, prefix: str = "") -> list[str]:
    """Remove the scratch folders of processes that are no more, and return their names.

    Args:
        prefix: of the folders that are looked at.
    """
    removed = []
    with suppress(OSError):
        entries = sorted(parent.iterdir())
        locks = {entry.name for entry in entries if entry.name.endswith(LOCK_SUFFIX)}
        for entry in entries:
            name = entry.name.removesuffix(LOCK_SUFFIX)
            if not name.startswith(prefix):
                continue
            if entry.name in locks:
                if _sweep_locked(entry, parent / name):
                    removed.append(name)
            elif f"{name}{LOCK_SUFFIX}" not in locks and entry.is_dir() and _is_old(entry):
                remove_tree(entry)
                removed.append(name)
    return removed


def remove_tree(folder: Path) -> None:
    """Remove a folder (or file), also one whose permissions forbid it; what resists stays."""
    if folder.is_symlink() or folder.is_file():
        with suppress(OSError):
            folder.unlink()
    shutil.rmtree(folder, ignore_errors=True)
    if not folder.is_dir() or folder.is_symlink():
        return
    with suppress(OSError):
        folder.chmod(0o700)
    for place, names, _ in os.walk(folder):
        for path in (Path(place, name) for name in names):
            if not path.is_symlink():
                with suppress(OSError):
                    path.chmod(0o700)
    shutil.rmtree(folder, ignore_errors=True)


def is_in_use(folder: Path) -> bool:
    """Whether a scratch folder is there, or its owner is still about to make it."""
    return folder.exists() or _lock_of(folder).exists()


def _sweep_locked(lock: Path, folder: Path) -> bool:
    try:
        descriptor = os.open(lock, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False  # its owner has just removed it, or another user's
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        owner = os.read(descriptor, 1000).decode(errors="replace")
        # An owner that was killed before it could write its name left no folder either.
        if owner and not _is_here(owner) and not _is_old(lock):
            return False
        remove_tree(folder)
        lock.unlink(missing_ok=True)
        return True
    except OSError:
        return False  # held, or a disk without locks
    finally:
        os.close(descriptor)


def _lock_of(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}{LOCK_SUFFIX}")


def _is_old(path: Path) -> bool:
    return time.time() - path.stat().st_mtime > UNKNOWN_OWNER_S


def _this_machine() -> str:
    """ "boot host": containers of one machine share the first, a machine keeps the second."""
    with suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {socket.gethostname()}"
    return f"- {socket.gethostname()}"


def _is_here(owner: str) -> bool:
    """Whether a lock's owner ran on this machine: a lock that can be taken is a dead one's here."""
    boot, _, host = owner.partition(" ")
    own_boot, _, own_host = _this_machine().partition(" ")
    return (boot == own_boot and boot != "-") or host == own_host
