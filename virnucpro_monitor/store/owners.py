"""Who holds a lease: a process that can be told from every other, and seen to be dead."""

import os
import socket
import time
from pathlib import Path


def new_owner() -> str:
    """An owner of one lease, as "host:pid:start:namespace:boot:number" of this process."""
    return f"{_describe(os.getpid())}:{time.monotonic_ns()}"


def is_dead_here(owner: str) -> bool:
    """Whether `owner` is a process of this host, boot and process namespace that has ended."""
    process, _, _ = owner.rpartition(":")
    host, *rest = process.rsplit(":", 4)
    if len(rest) != 4 or "?" in rest:
        return False  # another kind of owner, or a system that does not tell
    pid, _, namespace, boot = rest
    if (host, namespace, boot) != (socket.gethostname(), _namespace(), _boot()):
        return False
    return pid.isdecimal() and _describe(int(pid)) != process


def _describe(pid: int) -> str:
    return f"{socket.gethostname()}:{pid}:{_start(pid)}:{_namespace()}:{_boot()}"


def _start(pid: int) -> str:
    """When the process started, in ticks since the boot: a pid is used again, this is not."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return "ended"
    return text.rpartition(")")[2].split()[19]


def _namespace() -> str:
    """Processes of other containers cannot be seen, though they may share a host's name."""
    try:
        return str(os.stat("/proc/self/ns/pid").st_ino)
    except OSError:
        return "?"


def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return "?"
