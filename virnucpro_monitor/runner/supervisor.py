"""Watch one child process: its time, its memory, its output, and whatever it leaves behind."""

import math
import os
import resource
import selectors
import signal
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from virnucpro_monitor.records.messages import MAX_MESSAGE_BYTES
from virnucpro_monitor.runner.cgroup import JobGroup
from virnucpro_monitor.runner.containment import Contained

GIB = 1024**3
POLL_S = 0.05
MEMORY_POLL_S = 0.2
TARGET_GONE = 66
"""The exit status of a judge whose target's process has gone."""
_LAST_WORDS_S = 1.0
KEPT_HEAD_BYTES = 16 * 1024
KEPT_TAIL_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Limits:
    """Attributes:
    timeout_s: from the start, and again from each result.
    memory_limit_gib: GiB of memory that the child and all its children really use together.
    """

    timeout_s: float
    memory_limit_gib: float | None = None


@dataclass(frozen=True, slots=True)
class Ending:
    """How a child ended.

    Attributes:
        cause: "exit", "signal", "timeout", "memory", "garbage" (a line too long) or "cancelled".
        code: exit status or signal number.
        output: what it printed, cut in the middle where long.
        detail: one sentence more on the cause, or nothing.
    """

    cause: str
    code: int
    output: str
    detail: str = ""


class OutputKeeper:
    """Keeps the first and the last part of a stream, however long it is."""

    def __init__(self, head: int = KEPT_HEAD_BYTES, tail: int = KEPT_TAIL_BYTES) -> None:
        self._limits = (head, tail)
        self._head = bytearray()
        self._tail = bytearray()
        self._dropped = 0

    def add(self, data: bytes) -> None:
        head, tail = self._limits
        room = head - len(self._head)
        self._head += data[:room]
        self._tail += data[room:] if room < len(data) else b""
        excess = len(self._tail) - tail
        if excess > 0:
            del self._tail[:excess]
            self._dropped += excess

    def text(self) -> str:
        head = self._head.decode(errors="replace")
        tail = self._tail.decode(errors="replace")
        if self._dropped:
            return f"{head}\n… {self._dropped} bytes left out …\n{tail}"
        return head + tail


class LineSplitter:
    """Cuts a stream into lines, and gives up on one that is longer than any message.

    Args:
        on_line: receives each line, without its end; True is handed on by `add`.
    """

    def __init__(
        self, on_line: Callable[[bytes], bool], max_bytes: int = MAX_MESSAGE_BYTES
    ) -> None:
        self._on_line = on_line
        self._max_bytes = max_bytes
        self._pending = bytearray()
        self.overflown = False

    def add(self, data: bytes) -> bool:
        """Take more of the stream; True if any line asked for it."""
        asked = False
        *lines, rest = data.split(b"\n")
        for line in lines:
            if not self._has_room(line):
                return asked
            asked |= self._on_line(bytes(self._pending + line))
            self._pending.clear()
        if self._has_room(rest):
            self._pending += rest
        return asked

    def _has_room(self, part: bytes) -> bool:
        self.overflown |= len(self._pending) + len(part) > self._max_bytes
        if self.overflown:
            self._pending.clear()
        return not self.overflown


def limit_own_memory(limits: Limits) -> None:
    """Called in the child: let allocations fail at the limit instead of meeting the OOM killer.

    Bounds private writable memory only, so that a mapped checkpoint does not count. It is no use
    under CUDA, which reserves address space freely; there the polling alone counts.
    """
    if limits.memory_limit_gib is not None:
        used = _sizes(Path("/proc/self/status")).get("VmData", 0)
        size = used + int(limits.memory_limit_gib * GIB)
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_DATA, (size, size))


def supervise(
    child: Contained,
    result_fd: int,
    output_fd: int,
    limits: Limits,
    on_line: Callable[[bytes], bool],
    cancel_fd: int | None = None,
    judge: Contained | None = None,
    go_fd: int | None = None,
    group: JobGroup | None = None,
) -> Ending:
    """Follow a child until it ends, then end what it left behind.

    Args:
        result_fd, output_fd: read ends of the child's pipes; closed here.
        on_line: receives each line of the result pipe; True restarts the clock.
        cancel_fd: once readable, the child is ended.
        judge: another child, which asks the first one and writes to the result pipe. The job ends
            with it, and as the first one ended where that is why.
        go_fd: once readable, the clock starts; None where it starts at once.
        group: that the child has joined.
    """
    keeper = OutputKeeper()
    lines = LineSplitter(on_line)
    deadline = math.inf if go_fd is not None else time.monotonic() + limits.timeout_s
    next_memory_look = 0.0
    cause = ""
    status: int | None = None
    with selectors.DefaultSelector() as selector:
        for descriptor in (result_fd, output_fd):
            os.set_blocking(descriptor, False)
            selector.register(descriptor, selectors.EVENT_READ)
        for waited_for in (cancel_fd, go_fd):
            if waited_for is not None:
                selector.register(waited_for, selectors.EVENT_READ)
        ended_fd = _told_of_end(child if judge is None else judge)
        if ended_fd is not None:
            selector.register(ended_fd, selectors.EVENT_READ)
        while status is None:
            for key, _ in selector.select(POLL_S):
                if key.fd == cancel_fd:
                    cause = cause or "cancelled"
                    selector.unregister(cancel_fd)
                    continue
                if key.fd == go_fd:
                    deadline = time.monotonic() + limits.timeout_s
                    selector.unregister(go_fd)
                    continue
                if key.fd == ended_fd:
                    selector.unregister(ended_fd)
                    continue
                data = _read(key.fd)
                if not data:
                    selector.unregister(key.fd)
                elif key.fd == output_fd:
                    keeper.add(data)
                elif lines.add(data):
                    deadline = time.monotonic() + limits.timeout_s
            now = time.monotonic()
            if not cause and now > deadline:
                cause = "timeout"
            if not cause and limits.memory_limit_gib is not None and now > next_memory_look:
                if used_memory_bytes(child.pid) > limits.memory_limit_gib * GIB:
                    cause = "memory"
                # The kernel walks all pages for an answer: at most a twentieth of the time.
                took = time.monotonic() - now
                next_memory_look = now + max(MEMORY_POLL_S, 20 * took)
            if not cause and lines.overflown:
                cause = "garbage"
            if cause:
                child.kill()
                if judge is not None:
                    judge.kill()
            if judge is None:
                status = child.poll()
                continue
            judged = judge.poll()
            if judged is None:
                continue
            # The target sees that the judge has gone, and prints what it still holds.
            left = child.wait(_LAST_WORDS_S)
            if judged == TARGET_GONE:
                status = left
                cause = cause or ("closed" if left is None else "")
            else:
                status = judged
                cause = cause or ("lost" if judged else "")
            break
    if ended_fd is not None:
        os.close(ended_fd)
    child.kill()
    if group is not None:
        group.kill()
    end_descendants()
    while data := _read(result_fd):
        lines.add(data)
    while data := _read(output_fd):
        keeper.add(data)
    os.close(result_fd)
    os.close(output_fd)
    if lines.overflown:
        detail = f"It wrote a line of more than {MAX_MESSAGE_BYTES // 1024**2} MiB."
        return Ending("garbage", signal.SIGKILL, keeper.text(), detail)
    if cause == "closed":
        return Ending("garbage", signal.SIGKILL, keeper.text(), "It closed that channel.")
    if cause or status is None:
        return Ending(cause, signal.SIGKILL, keeper.text())
    if status < 0:
        return Ending("signal", -status, keeper.text())
    return Ending("exit", status, keeper.text())


def _told_of_end(child: Contained) -> int | None:
    """A descriptor that can be read once a child has ended; None where it is only polled for."""
    if not hasattr(os, "pidfd_open"):
        return None
    with suppress(OSError):  # an old kernel, or one that keeps it from us
        return os.pidfd_open(child.pid)
    return None


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 1 << 20)
    except BlockingIOError:
        return b""


def end_descendants() -> None:
    """Kill every process below this one and reap it.

    On Linux the caller adopts orphans (see `containment`), so that children which a target left
    running, even in sessions of their own, are found here.
    """
    end_children(but=set())


def end_children(*, but: Collection[int]) -> None:
    """Kill this process's children and all below them, but for those in `but`, and reap them."""
    for _ in range(100):
        below = [one for one in _children(os.getpid()) if one not in but]
        if not below:
            return
        for pid in (one for child in below for one in (child, *descendants(child))):
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        for child in below:
            with suppress(ChildProcessError):
                os.waitpid(child, os.WNOHANG)
        time.sleep(0.01)


def _children(pid: int) -> list[int]:
    return _family().get(pid, [])


def descendants(pid: int) -> list[int]:
    """Ids of all processes below `pid`; none where /proc is missing."""
    children = _family()
    found: list[int] = []
    waiting = [pid]
    while waiting:
        below = children.get(waiting.pop(), [])
        found += below
        waiting += below
    return found


def _family() -> dict[int, list[int]]:
    """The children of each process that has any."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError, ValueError, IndexError):
            # The command name stands in brackets and may hold anything.
            fields = entry.read_text(errors="replace").rpartition(")")[2].split()
            children.setdefault(int(fields[1]), []).append(int(entry.parent.name))
    return children


def used_memory_bytes(pid: int) -> int:
    """Memory that a process and all below it really use, in bytes.

    A page that several share counts once in all (as a part in each); mapped files, which the kernel
    can drop, do not count. What was swapped out does.
    """
    return sum(_used_bytes(one) for one in (pid, *descendants(pid)))


def _used_bytes(pid: int) -> int:
    sizes = _sizes(Path(f"/proc/{pid}/smaps_rollup"))
    if "Pss_Anon" in sizes:
        return sum(sizes.get(name, 0) for name in ("Pss_Anon", "Pss_Shmem", "SwapPss"))
    # Not readable, or a kernel before 5.9: shared pages count once in each process.
    sizes = _sizes(Path(f"/proc/{pid}/status"))
    return sum(sizes.get(name, 0) for name in ("RssAnon", "RssShmem", "VmSwap"))


def _sizes(path: Path) -> dict[str, int]:
    """Name -> bytes of the lines that end in kB; nothing where the file cannot be read."""
    found = {}
    with suppress(OSError, ValueError):
        for line in path.read_text(errors="replace").splitlines():
            name, _, value = line.partition(":")
            if value.endswith("kB"):
                found[name] = int(value.split()[0]) * 1024
    return found
