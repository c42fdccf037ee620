"""Processes that foreign code cannot leave, stop or outlive.

Where the kernel lets us, a job gets a process namespace of its own: it sees no process outside, so
it can neither stop nor end the one that keeps its time, and when the namespace's first process
ends, the kernel ends all others in it, whatever they did with sessions and signals.

    supervisor ──fork── first process (reaps, tells how the worker ended) ──fork── worker
                  └────────────── namespace ─────────────────────────────────────────┘

Elsewhere the worker leads a session of its own, its orphans come to the supervisor, and what the
supervisor's own end leaves comes to the server, which ends it.
"""

import ctypes
import os
import signal
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from virnucpro_monitor.runner.confinement import Territory, leave_network, mount_read_only

_CLONE_NEWNS = 0x00020000
_CLONE_NEWUSER = 0x10000000
_CLONE_NEWPID = 0x20000000
_MS_NOSUID, _MS_NODEV, _MS_NOEXEC = 2, 4, 8
_MS_REC, _MS_SLAVE = 0x4000, 0x80000
_HANDLED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


@dataclass(slots=True)
class Contained:
    """A child process and all that it starts.

    Attributes:
        pid: of the namespace's first process, or of the worker itself.
        status_fd: read end of the pipe on which the first process tells how the worker ended; None
            where there is no namespace.
    """

    pid: int
    status_fd: int | None = None
    _status: int | None = field(default=None, init=False)

    def poll(self) -> int | None:
        """The worker's exit status (negative for a signal), None while anything of it runs."""
        if self._status is None:
            ended, status = os.waitpid(self.pid, os.WNOHANG)
            if ended:
                self._status = os.waitstatus_to_exitcode(status)
                if self.status_fd is not None:
                    told = os.read(self.status_fd, 100)
                    os.close(self.status_fd)
                    self._status = int(told) if told else self._status
        return self._status

    def wait(self, timeout_s: float) -> int | None:
        """The worker's exit status, None where it still runs after that time."""
        end = time.monotonic() + timeout_s
        while (status := self.poll()) is None and time.monotonic() < end:
            time.sleep(0.002)
        return status

    def kill(self) -> None:
        """End the child; in a namespace all of it, elsewhere its session."""
        with suppress(ProcessLookupError, PermissionError):
            if self._status is None:  # else the id may be another's by now
                os.kill(self.pid, signal.SIGKILL)
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)


@dataclass(frozen=True, slots=True)
class Inside:
    """What a contained process knows of itself.

    Attributes:
        namespace: it has a process namespace of its own.
        read_only: it finds all mounted read-only but its territory.
        network: it reaches a network.
    """

    namespace: bool = False
    read_only: bool = False
    network: bool = True


def fork_contained(
    *, namespace: bool = True, territory: Territory | None = None, network: bool = True
) -> Contained | Inside:
    """Fork a worker, which leads a session of its own, and in which `Inside` is returned.

    The caller has one thread, and does nothing else than watch that worker.

    Args:
        namespace: use one where the kernel offers it.
        territory: in a namespace, what may be written there; None for all.
        network: whether a namespace shares the machine's network.
    """
    if not namespace or not enter_process_namespace():
        pid = os.fork()
        if pid == 0:
            os.setsid()
            die_with_parent()
            return Inside()
        return Contained(pid)
    status_read, status_write = os.pipe()
    pid = os.fork()
    if pid:
        os.close(status_write)
        return Contained(pid, status_read)
    die_with_parent()
    os.close(status_read)
    own_mounts = _hide_other_processes()
    inside = Inside(
        namespace=True,
        read_only=own_mounts and territory is not None and mount_read_only(territory),
        network=network or not leave_network(),
    )
    # Without handlers the kernel keeps every signal from inside the namespace away from its first
    # process; from the start, since the worker may be quick.
    handlers = {number: signal.signal(number, signal.SIG_DFL) for number in _HANDLED}
    worker = os.fork()
    if worker == 0:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        os.close(status_write)
        os.setsid()
        die_with_parent()
        return inside
    _be_first(worker, status_write)
    raise AssertionError("unreachable")


def _hide_other_processes() -> bool:
    """Let /proc show this namespace's processes alone: neither the environment nor the command line
    of ours. Where the kernel refuses, /proc stays as it is.

    Returns:
        Whether this process has mounts of its own.
    """
    library = ctypes.CDLL(None, use_errno=True)
    # What is mounted here must not appear outside; what is mounted outside may come in.
    if (
        library.unshare(_CLONE_NEWNS) != 0
        or library.mount(b"none", b"/", None, _MS_REC | _MS_SLAVE, None) != 0
    ):
        return False
    library.mount(b"proc", b"/proc", b"proc", _MS_NOSUID | _MS_NODEV | _MS_NOEXEC, None)
    return True


def own_shared_memory() -> bool:
    """Have an empty /dev/shm of one's own, which goes with this process and all that it starts.

    For a process of one thread without a namespace of processes, in which it has that anyway. Needs
    either the right to mount or user namespaces, in which this process then keeps its user and
    group. False where the kernel refuses.
    """
    shared = Path("/dev/shm")
    if sys.platform != "linux" or not shared.is_dir():
        return False
    user, group = os.getuid(), os.getgid()
    library = ctypes.CDLL(None, use_errno=True)
    if library.unshare(_CLONE_NEWNS) != 0:
        if not _user_namespaces_work() or library.unshare(_CLONE_NEWUSER | _CLONE_NEWNS) != 0:
            return False
        _map_user(user, group)
    if library.mount(b"none", b"/", None, _MS_REC | _MS_SLAVE, None) != 0:
        return False
    flags, options = _MS_NOSUID | _MS_NODEV, b"mode=1777"
    return bool(library.mount(b"none", os.fsencode(shared), b"tmpfs", flags, options) == 0)


def _be_first(worker: int, status_fd: int) -> None:
    """Be the namespace's first process: reap orphans, and tell how the worker ended."""
    status = 1
    try:
        for descriptor in _open_descriptors():
            if descriptor != status_fd:
                with suppress(OSError):
                    os.close(descriptor)
        while True:
            ended, how = os.waitpid(-1, 0)
            if ended == worker:
                os.write(status_fd, str(os.waitstatus_to_exitcode(how)).encode())
                status = 0
                break
    finally:
        os._exit(status)


def _open_descriptors() -> list[int]:
    with suppress(OSError):
        return [int(path.name) for path in Path("/proc/self/fd").iterdir()]
    return list(range(3, 256))


def enter_process_namespace() -> bool:
    """Put the children that this process will have into a process namespace of their own.

    Needs either the right to make one or user namespaces, in which this process then keeps its user
    and group. False where the kernel refuses; nothing has changed then.
    """
    if sys.platform != "linux":
        return False
    user, group = os.getuid(), os.getgid()
    library = ctypes.CDLL(None, use_errno=True)
    if library.unshare(_CLONE_NEWPID) == 0:
        return True
    if not _user_namespaces_work():
        return False
    if library.unshare(_CLONE_NEWUSER | _CLONE_NEWPID) != 0:
        return False
    _map_user(user, group)
    return True


def _user_namespaces_work() -> bool:
    """Try it in a child: what half works (no mapping allowed) cannot be taken back."""
    user, group = os.getuid(), os.getgid()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            library = ctypes.CDLL(None, use_errno=True)
            if library.unshare(_CLONE_NEWUSER | _CLONE_NEWPID) == 0:
                _map_user(user, group)
                inner = os.fork()
                if inner == 0:
                    os._exit(0)
                status = os.waitpid(inner, 0)[1]
        except OSError:
            pass
        finally:
            os._exit(1 if status else 0)
    return os.waitpid(pid, 0)[1] == 0


def _map_user(user: int, group: int) -> None:
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
    Path("/proc/self/gid_map").write_text(f"{group} {group} 1")


def adopt_orphans() -> None:
    """Make this process the parent of orphaned descendants."""
    with suppress(OSError, AttributeError):  # not Linux
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def die_with_parent() -> None:
    """Ask the kernel to kill this process when its parent ends, however that ends."""
    with suppress(OSError, AttributeError):  # not Linux
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
