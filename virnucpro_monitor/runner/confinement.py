"""What a process that runs foreign code gives up before it imports any of it.

Landlock (Linux 5.13) takes from it, for good and for all that it starts: to write anywhere but in
its own folders, to read the oracle, to signal or trace other processes, and TCP. It needs no rights
and no namespace, so that it holds for CUDA as well. Where there is a namespace, everything is
mounted read-only besides, and there is no network but the loopback.

What the kernel lacks is left as it is, and told.
"""

import ctypes
import fcntl
import os
import platform
import socket
import stat
import struct
import sys
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_LANDLOCK_CREATE, _LANDLOCK_ADD, _LANDLOCK_RESTRICT = 444, 445, 446
_MOUNT_SETATTR = 442
_NUMBERED = ("x86_64", "aarch64")  # machines on which these numbers hold
_ASK_VERSION = 1
_RULE_PATH = 1
# Rights by the version that brought them. Device ioctls (5) are left alone: they are CUDA's.
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_CHANGE_DIR = sum(1 << bit for bit in range(4, 13))
_REFER, _TRUNCATE = 1 << 13, 1 << 14
_READ = _EXECUTE | _READ_FILE | _READ_DIR
LOCKS_TCP, LOCKS_SIGNALS = 4, 6
"""Versions of Landlock that brought these."""
_TCP = 0b11
_SCOPES = 0b11  # abstract sockets, signals
_ON_FILES = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE

_PR_SET_NO_NEW_PRIVS = 38
_PR_CAPBSET_DROP = 24
_CAPABILITY_VERSION_3 = 0x20080522
_KEPT_CAPABILITIES = (0, 1, 3)  # chown, dac_override, fowner: a root without these is hardly one
_MS_BIND, _MS_NOSUID, _MS_NODEV, _MS_RDONLY = 4096, 2, 4, 1
_AT_RECURSIVE, _ATTR_RDONLY = 0x8000, 1
_AT_FDCWD = -100
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 1
_CLONE_NEWNET = 0x40000000

_DEVICES = (
    "null", "zero", "full", "random", "urandom", "tty", "ptmx", "pts", "shm", "fd", "dri",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Territory:
    """What a process may still do with files.

    Attributes:
        writable: folders that it may write; all else is read-only.
        hidden: files and folders that it may not even read.
    """

    writable: tuple[Path, ...]
    hidden: tuple[Path, ...] = ()


def landlock_version() -> int:
    """The version of Landlock that the kernel offers; 0 for none."""
    if sys.platform != "linux" or platform.machine() not in _NUMBERED:
        return 0
    return max(0, _syscall(_LANDLOCK_CREATE, None, 0, _ASK_VERSION))


def confine_files(territory: Territory, *, network: bool) -> bool:
    """Give up, for good, what `territory` does not hold; False where the kernel cannot do that.

    Args:
        network: whether TCP stays open.
    """
    version = landlock_version()
    if not version:
        return False
    handled = _READ | _WRITE_FILE | _CHANGE_DIR
    handled |= _REFER if version >= 2 else 0
    handled |= _TRUNCATE if version >= 3 else 0
    tcp = _TCP if version >= LOCKS_TCP and not network else 0
    attributes = struct.pack("=QQQ", handled, tcp, _SCOPES if version >= LOCKS_SIGNALS else 0)
    size = 24 if version >= LOCKS_SIGNALS else 16 if version >= LOCKS_TCP else 8
    ruleset = _syscall(_LANDLOCK_CREATE, attributes, size, 0)
    if ruleset < 0:
        return False
    try:
        for path in _shown(territory.hidden):
            _allow(ruleset, path, _READ & handled)
        own = Path(
            f"/proc/{os.getpid()}"
        )  # where CUDA names its threads: refused, it will not start
        for path in (*territory.writable, *_devices(), own):
            _allow(ruleset, path, handled)
        return _no_new_privileges() and _syscall(_LANDLOCK_RESTRICT, ruleset, 0) == 0
    finally:
        os.close(ruleset)


def give_up_capabilities() -> None:
    """Keep of root's rights those over files alone, so that none is left over other processes."""
    library = ctypes.CDLL(None, use_errno=True)
    for capability in range(64):
        if capability not in _KEPT_CAPABILITIES:
            library.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)
    _no_new_privileges()
    header = struct.pack("=Ii", _CAPABILITY_VERSION_3, 0)
    now = ctypes.create_string_buffer(24)
    if library.capget(header, now) != 0:
        return
    kept = sum(1 << one for one in _KEPT_CAPABILITIES)
    effective, permitted = (word & kept for word in struct.unpack("=III", now.raw[:12])[:2])
    library.capset(header, struct.pack("=IIIIII", effective, permitted, 0, 0, 0, 0))


def mount_read_only(territory: Territory) -> bool:
    """In a mount namespace of one's own: all read-only but the writable folders, the hidden folders
    and files empty.

    /dev/shm is this namespace's own from then on.
    """
    library = ctypes.CDLL(None, use_errno=True)

    def mount(source: bytes, path: Path, kind: bytes | None, flags: int, data: bytes) -> bool:
        return bool(library.mount(source, os.fsencode(path), kind, flags, data) == 0)

    for folder in territory.writable:
        if not mount(os.fsencode(folder), folder, None, _MS_BIND, b""):
            return False
    hidden = [one for one in territory.hidden if one.is_dir()]
    files = [one for one in territory.hidden if one.is_file()]
    if not _set_read_only(Path("/"), True, recursive=True):
        return False
    opened = all(_set_read_only(one, False) for one in territory.writable)
    for folder in hidden:
        mount(b"none", folder, b"tmpfs", _MS_RDONLY | _MS_NOSUID | _MS_NODEV, b"size=4k")
    shared = Path("/dev/shm")
    empty = Path("/dev/null")
    if shared.is_dir() and mount(b"none", shared, b"tmpfs", _MS_NOSUID | _MS_NODEV, b"mode=1777"):
        empty = shared / ".hidden"  # that a device takes what is written there would look like more
        empty.touch(mode=0o400)
    for file in files:
        mount(os.fsencode(empty), file, None, _MS_BIND, b"")
        _set_read_only(file, True)
    return opened


def leave_network() -> bool:
    """Have a network of one's own, in which there is the loopback alone. Needs rights to make it,
    as in a user namespace of one's own."""
    library = ctypes.CDLL(None, use_errno=True)
    if library.unshare(_CLONE_NEWNET) != 0:
        return False
    with suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        name = b"lo".ljust(16, b"\0")
        asked = fcntl.ioctl(any_socket, _SIOCGIFFLAGS, name + bytes(24))
        flags = struct.unpack("=h", asked[16:18])[0] | _IFF_UP
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, name + struct.pack("=h", flags) + bytes(22))
    return True


def close_descriptors(but: Collection[int]) -> None:
    """Close every file that is open, but for the standard streams and these."""
    with suppress(OSError):
        for entry in list(Path("/proc/self/fd").iterdir()):
            descriptor = int(entry.name)
            if descriptor > 2 and descriptor not in but:
                with suppress(OSError):
                    os.close(descriptor)


def _shown(hidden: Collection[Path]) -> Iterator[Path]:
    """The fewest paths under which everything lies but what is hidden.

    What is made later in a folder that holds something hidden is not under them.
    """
    avoided = {path.resolve() for path in hidden if path.exists()}
    above = {parent for path in avoided for parent in path.parents}
    waiting = [Path("/")]
    while waiting:
        path = waiting.pop()
        if path in avoided:
            continue
        if path not in above:
            yield path
            continue
        with suppress(OSError):
            waiting += [entry for entry in path.iterdir() if not entry.is_symlink()]


def _devices() -> Iterator[Path]:
    for name in _DEVICES:
        yield Path("/dev", name)
    with suppress(OSError):
        yield from (path for path in Path("/dev").iterdir() if path.name.startswith("nvidia"))


def _allow(ruleset: int, path: Path, rights: int) -> None:
    """Allow these rights under a path; one that is not there needs none."""
    with suppress(OSError):
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
        try:
            if not stat.S_ISDIR(os.fstat(descriptor).st_mode):
                rights &= _ON_FILES
            rule = struct.pack("=Qi", rights, descriptor)
            _syscall(_LANDLOCK_ADD, ruleset, _RULE_PATH, rule, 0)
        finally:
            os.close(descriptor)


def _set_read_only(path: Path, read_only: bool, *, recursive: bool = False) -> bool:
    flags = (_ATTR_RDONLY, 0) if read_only else (0, _ATTR_RDONLY)
    attributes = struct.pack("=QQQQ", *flags, 0, 0)
    how = _AT_RECURSIVE if recursive else 0
    return _syscall(_MOUNT_SETATTR, _AT_FDCWD, os.fsencode(path), how, attributes, 32) == 0


def _no_new_privileges() -> bool:
    library = ctypes.CDLL(None, use_errno=True)
    return bool(library.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0)


def _syscall(number: int, *arguments: int | bytes | None) -> int:
    library = ctypes.CDLL(None, use_errno=True)
    library.syscall.restype = ctypes.c_long
    typed = [ctypes.c_long(one) if isinstance(one, int) else one for one in arguments]
    return int(library.syscall(ctypes.c_long(number), *typed))
