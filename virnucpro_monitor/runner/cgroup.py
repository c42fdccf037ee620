"""A control group (version 2) of a job's own, where the runner may make one.

The kernel ends all processes of a group at once, whatever they do with sessions, parents and new
processes while that happens. The runner may make groups as root, or where systemd has delegated its
own (`schedule install --systemd` asks for that). Memory is not counted by it: that takes a
controller, which a group that holds the runner itself cannot hand on.
"""

import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Self

_PREFIX = "virnucpro-monitor-job-"
_LEAVING_S = 2.0


class JobGroup:
    """A group that a job's processes join. Its folder is `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._members = os.open(folder / "cgroup.procs", os.O_WRONLY | os.O_CLOEXEC)

    @classmethod
    def make(cls) -> Self | None:
        """A new group; None where this process may make none, or the kernel is before 5.14."""
        with suppress(OSError, ValueError, StopIteration):
            parent = _parent()
            _sweep(parent)
            folder = parent / f"{_own_prefix()}{os.getpid()}"
            folder.mkdir()
            if (folder / "cgroup.kill").exists():
                return cls(folder)
            folder.rmdir()
        return None

    def join(self) -> None:
        """In a child: belong to the group, and with it all that this process starts.

        The file was opened by the runner, so that this works under read-only mounts, too.
        """
        with suppress(OSError):
            os.write(self._members, b"0")

    def kill(self) -> None:
        """End all members."""
        _kill(self.folder)

    def remove(self) -> None:
        """Take the group away, once its last members have ended."""
        os.close(self._members)
        end = time.monotonic() + _LEAVING_S
        while self.folder.exists() and time.monotonic() < end:
            try:
                self.folder.rmdir()
            except OSError:
                time.sleep(0.01)


def _parent() -> Path:
    """The group that jobs get theirs in.

    Raises:
        OSError, StopIteration: the system has no groups of version 2.
    """
    lines = Path("/proc/self/cgroup").read_text().splitlines()
    own = next(line.removeprefix("0::") for line in lines if line.startswith("0::"))
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    root = next(fields[1] for fields in mounts if fields[2] == "cgroup2")
    return Path(f"{root}{own}")


def _own_prefix() -> str:
    """Numbers of processes mean something within one process namespace."""
    return f"{_PREFIX}{os.stat('/proc/self/ns/pid').st_ino}-"


def _sweep(parent: Path) -> None:
    """End and remove groups whose maker was killed."""
    prefix = _own_prefix()
    for folder in parent.glob(f"{prefix}*"):
        if not Path("/proc", folder.name.removeprefix(prefix)).exists():
            _kill(folder)
            with suppress(OSError):  # its members need a moment; the next job finds it empty
                folder.rmdir()


def _kill(folder: Path) -> None:
    with suppress(OSError):
        (folder / "cgroup.kill").write_text("1")
