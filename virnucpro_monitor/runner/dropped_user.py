"""What keeps a target from files where the kernel has neither Landlock nor mounts of one's own: a
user that owns nothing. Only root can become one.
"""

import os
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path

from virnucpro_monitor.runner.confinement import Territory

NOBODY = 65534  # user and group alike, where the system names none
NAME = "nobody"
_OWNER_ALONE = 0o077


def become_nobody(territory: Territory, needed: Collection[Path]) -> bool:
    """Give root up for a user that owns nothing but the territory's folders.

    The hidden ones are closed to all but their owner. False, and nothing changed for this process,
    where it is not root's, or where that user would not reach what it needs.

    Args:
        needed: files and folders that must stay readable.
    """
    if os.geteuid() != 0:
        return False
    for path in territory.hidden:
        with suppress(OSError):
            path.chmod(path.stat().st_mode & ~_OWNER_ALONE)
    for folder in territory.writable:
        for path in _tree(folder):
            with suppress(OSError):
                os.chown(path, NOBODY, NOBODY, follow_symlinks=False)
    if not _reaches((*territory.writable, *needed)):
        return False
    _drop()
    return True


def _reaches(paths: Collection[Path]) -> bool:
    """Tried in a child: what is given up cannot be had again."""
    pid = os.fork()
    if pid == 0:
        status = 1
        with suppress(BaseException):
            _drop()
            status = 0 if all(os.access(path, os.R_OK) for path in paths) else 1
        os._exit(status)
    return os.waitpid(pid, 0)[1] == 0


def _drop() -> None:
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)


def _tree(folder: Path) -> Iterator[Path]:
    yield folder
    for parent, folders, files in os.walk(folder):
        yield from (Path(parent, name) for name in (*folders, *files))
