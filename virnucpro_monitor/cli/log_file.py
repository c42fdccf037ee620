"""A log that rotates itself, for starts that nobody watches."""

import errno
import io
import os
import sys
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TextIO

import typer

from virnucpro_monitor.cli.options import say
from virnucpro_monitor.disks import explain
from virnucpro_monitor.errors import DiskError

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer as Buffer

LogOption = Annotated[
    Path | None,
    typer.Option("--log", metavar="FILE", help="Append all output to FILE, rotating it."),
]
MAX_LOG_BYTES = 5 * 1024**2
KEPT_LOGS = 5
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def redirect_output(path: Path) -> None:
    """Send standard output and error of this process and its children to the end of a file.

    A disk without room costs lines of the log and never the run: results are worth more.

    Raises:
        DiskError: it cannot be written for another reason.
    """
    moment = datetime.now().astimezone().isoformat(timespec="seconds")
    sys.stdout = _unstoppable(sys.stdout)
    sys.stderr = _unstoppable(sys.stderr)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        rotate(path)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            os.write(descriptor, f"--- {moment}\n".encode())
            sys.stdout.flush()
            sys.stderr.flush()
            os.dup2(descriptor, 1)
            os.dup2(descriptor, 2)
        finally:
            os.close(descriptor)
    except OSError as error:
        sentence = f"The log cannot be written: {explain(error, path)}"
        if error.errno not in _NO_ROOM:
            raise DiskError(sentence) from error
        say(f"{sentence} The run goes on without it.")


def _unstoppable(stream: TextIO) -> TextIO:
    """The stream, but for a disk without room, which takes nothing and says nothing."""
    try:
        raw = _Unstoppable(stream.fileno(), "wb", closefd=False)
    except (OSError, ValueError):
        return stream  # no file: nothing to run out of
    buffered = io.BufferedWriter(raw)
    return io.TextIOWrapper(
        buffered, encoding=stream.encoding, errors=stream.errors, line_buffering=True
    )


class _Unstoppable(io.FileIO):
    def write(self, data: "Buffer", /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            if error.errno not in _NO_ROOM:
                raise
            return memoryview(data).nbytes


def rotate(path: Path, *, max_bytes: int = MAX_LOG_BYTES, kept: int = KEPT_LOGS) -> None:
    """Move a log that has grown too long to `.1`, that to `.2`, and so on; the last one goes."""
    if not path.exists() or path.stat().st_size < max_bytes:
        return
    for number in range(kept - 1, 0, -1):
        older = path.with_name(f"{path.name}.{number}")
        if older.exists():
            older.replace(path.with_name(f"{path.name}.{number + 1}"))
    path.replace(path.with_name(f"{path.name}.1"))
