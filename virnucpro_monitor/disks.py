"""Disks that fill, close or vanish: which one it is and what to do, told before the work where the
trouble can be known before."""

import errno
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from virnucpro_monitor.errors import ConfigurationError, DiskError

PROBE_BYTES = 256 * 1024
_FULL_BYTES = 2**20  # file systems keep a little to themselves


@contextmanager
def writing(what: str, path: Path) -> Iterator[None]:
    """Turn what the system says about our own files into one sentence.

    Args:
        what: the thing that is written, as in "The oracle".

    Raises:
        DiskError: in place of an `OSError`.
    """
    try:
        yield
    except OSError as error:
        raise DiskError(f"{what} cannot be written: {explain(error, path)}") from error


def explain(error: OSError, path: Path | None = None) -> str:
    """One sentence on an error of a disk: where, and what to do.

    Args:
        path: what was being written; the error's own file where it names one.
    """
    named = error.filename if isinstance(error.filename, str | bytes) else None
    place = Path(os.fsdecode(named)) if named else path
    where = f"{place}" if place is not None else "a file"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"the disk of {where} is full: free some space there, or choose another place."
    if error.errno == errno.EROFS:
        return f"the disk of {where} is read-only: mount it writable, or choose another place."
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"{where} is closed to this user: change its owner or rights."
    if error.errno in (errno.EIO, errno.ENXIO, errno.ENODEV, errno.ESTALE, errno.ENOTCONN):
        return f"the disk of {where} has gone or fails ({error.strerror}): check it."
    if error.errno == errno.ENOENT and place is None and not _has_working_folder():
        return "the working folder has been deleted: go to one that is there."
    if error.errno == errno.ENOENT:
        return f"{where} has gone: check that its disk is mounted."
    if error.errno in (errno.ENOTDIR, errno.EEXIST, errno.EISDIR):
        return f"{where} is in the way or no folder ({error.strerror}): move it away."
    if error.errno == errno.EFBIG:
        return f"{where} is at its size limit: raise the limit (ulimit -f), or free some space."
    return f"{where}: {error.strerror or error}."


def _has_working_folder() -> bool:
    try:
        os.getcwd()
    except FileNotFoundError:
        return False
    return True


def path_from(text: str) -> Path:
    """A path as a person writes it, where `~` is the home folder.

    Raises:
        ConfigurationError: no path can be written so.
    """
    try:
        os.fsencode(text)
        if "\0" in text:
            raise ValueError("it holds a NUL character")
    except ValueError as error:
        raise ConfigurationError(f"{text[:100]!r} is no path: {error}.") from error
    return Path(os.path.expanduser(text))  # unlike Path's own, leaves ~nobody as it is


def sha256_of(path: Path) -> str:
    """SHA-256 (hex) of a file as it is now.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def probe_folder(what: str, folder: Path) -> None:
    """Write a small file into a folder and take it away again.

    Args:
        folder: made where it is missing.

    Raises:
        DiskError: it cannot be written.
    """
    probe = folder / f".probe.{os.getpid()}"
    with writing(what, folder):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            with probe.open("wb") as file:
                file.write(bytes(PROBE_BYTES))
                file.flush()
                os.fsync(file.fileno())
        finally:
            with suppress(OSError):
                probe.unlink(missing_ok=True)


def is_full(folder: Path) -> bool:
    """Whether a folder's disk has no room; libraries do not always say so."""
    with suppress(OSError):
        return shutil.disk_usage(folder).free < _FULL_BYTES
    return False


def write_private(path: Path, text: str) -> None:
    """Write a file that this user alone may read, from the first byte on, whole or not at all.

    Raises:
        OSError: it cannot be written.
    """
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        fresh.unlink(missing_ok=True)
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
    except OSError:
        with suppress(OSError):
            fresh.unlink(missing_ok=True)
        raise
