"""A log that rotates itself, for starts that nobody watches."""

import os
import sys
from datetime import datetime
from pathlib import Path

from virnucpro_monitor.errors import ConfigurationError

MAX_LOG_BYTES = 5 * 1024**2
KEPT_LOGS = 5


def redirect_output(path: Path) -> None:
    """Send standard output and error of this process and its children to the end of a file.

    Raises:
        ConfigurationError: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        rotate(path)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    except OSError as error:
        raise ConfigurationError(f"The log {path} cannot be written: {error.strerror}.") from error
    sys.stdout.flush()
    sys.stderr.flush()
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)
    moment = datetime.now().astimezone().isoformat(timespec="seconds")
    os.write(2, f"--- {moment}\n".encode())


def rotate(path: Path, *, max_bytes: int = MAX_LOG_BYTES, kept: int = KEPT_LOGS) -> None:
    """Move a log that has grown too long to `.1`, that to `.2`, and so on; the last one goes."""
    if not path.exists() or path.stat().st_size < max_bytes:
        return
    for number in range(kept - 1, 0, -1):
        older = path.with_name(f"{path.name}.{number}")
        if older.exists():
            older.replace(path.with_name(f"{path.name}.{number + 1}"))
    path.replace(path.with_name(f"{path.name}.1"))
