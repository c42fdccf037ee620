"""The caller's side of the fork server: start it, hand it jobs, restart it when it has died."""

import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Collection, Generator
from contextlib import suppress
from dataclasses import dataclass, replace
from types import TracebackType
from typing import IO, NoReturn

from virnucpro_monitor import errors
from virnucpro_monitor.bytecode import own_bytecode
from virnucpro_monitor.records.messages import (
    OWN,
    WORKERS,
    Ended,
    Job,
    MeasureJob,
    MessageError,
    Refused,
    Said,
    decode_ended,
    decode_said,
    encode,
)
from virnucpro_monitor.runner.standby import NEEDS_FRESH
from virnucpro_monitor.runner.supervisor import descendants
from virnucpro_monitor.runner.visible import count_by_bus
from virnucpro_monitor.secrecy import public_environment

SERVER_MODULE = "virnucpro_monitor.runner.server"
STOP_TIMEOUT_S = 10.0
CANCEL_POLL_S = 0.2
STUCK_GRACE_S = 60.0  # beyond a job's own time limit

_TOO_LATE = ("exit", NEEDS_FRESH)

Accept = Callable[[Said], None]


@dataclass(frozen=True, slots=True)
class _Held:
    """A job whose processes wait for the word to go."""

    job: MeasureJob
    connection: socket.socket
    go_fd: int


class WorkerPool:
    """One fork server, started when the first job comes. Jobs may run from several threads.

    Args:
        fork: fork each job from a warm process; otherwise every job gets a fresh interpreter.
        without: environment variables of this process that its processes are not to have.
    """

    def __init__(self, *, fork: bool | None = None, without: Collection[str] = ()) -> None:
        self._without = frozenset(without)
        self._fork = sys.platform == "linux" if fork is None else fork
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._errors: IO[bytes] | None = None
        self._connections: set[socket.socket] = set()
        self._held: list[_Held] = []
        self._num_closed = 0  # times; what ran then must not begin anew
        self._idle = True  # whether the server has had no job yet

    def __enter__(self) -> "WorkerPool":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def start(self) -> None:
        """Start the server before the first job is known, so that it is ready by then."""
        with self._lock:
            if self._process is None:
                self._start()

    def run(
        self, job: Job, accept: Accept | None = None, *, cancel: threading.Event | None = None
    ) -> Generator[Said | Ended]:
        """Run one job and yield its events; the last is always `Ended`.

        A line that is no message, or that `accept` refuses, ends the job with cause "garbage"; a
        server that dies on the way ends it with cause "lost", and the next job starts anew.
        Closing the generator ends the job. A job that was held (`hold`) goes on from there.

        Args:
            accept: called with each event; raises `MessageError` for one that cannot be.
            cancel: once another thread has set it, the job is ended.
        """
        num_closed = self._num_closed
        held = self._let_go(job)
        if held is not None and (yield from self._follow(held, job, accept, cancel, held=True)):
            return
        if self._num_closed != num_closed:
            yield Ended(cause="lost", code=0, log="")
            return
        connection = self._connect()
        with suppress(BrokenPipeError, ConnectionResetError):
            connection.sendall(encode(job) + b"\n")
        yield from self._follow(connection, job, accept, cancel)

    def _follow(
        self,
        connection: socket.socket,
        job: Job,
        accept: Accept | None,
        cancel: threading.Event | None,
        *,
        held: bool = False,
    ) -> Generator[Said | Ended, None, bool]:
        """Yield a job's events, as `run` says.

        Returns:
            Whether they say how it ended; False where a held one is to be begun anew.
        """
        # The job's watcher keeps the time. It is itself watched, in case something has stopped it.
        connection.settimeout(job.timeout_s + STUCK_GRACE_S)
        refused, stuck, silent = "", False, True
        over = threading.Event()
        if cancel is not None:
            _end_when(cancel, over, connection)
        try:
            with connection.makefile("rb") as lines:
                try:
                    for line in lines:
                        if line.startswith(OWN):
                            ended = decode_ended(line[len(OWN) :])
                            if held and silent and (ended.cause, ended.code) == _TOO_LATE:
                                return False
                            yield _as_garbage(ended, refused) if refused else ended
                            return True
                        silent = False
                        if refused:
                            continue
                        try:
                            said = decode_said(line[len(WORKERS) :])
                            if accept is not None:
                                accept(said)
                        except MessageError as error:
                            refused = str(error)
                            connection.shutdown(socket.SHUT_WR)  # the job is to end
                        else:
                            yield said
                except ConnectionResetError:
                    pass
                except TimeoutError:
                    stuck = True
                    self._end_all()
            if held and silent and not stuck:
                return False
            cause = "timeout" if stuck else "lost"
            yield Ended(cause=cause, code=0, log="" if stuck else self._last_words())
            return True
        finally:
            over.set()
            self._end(connection)

    def hold(self, job: MeasureJob) -> None:
        """Start a job's processes, which load what no commit changes and then wait for `run`.

        Its checkout is an empty folder, and is filled before. Where that cannot be, nothing
        happens: `run` begins from the start then.
        """
        if not self._fork:
            return
        go_read, go_write = os.pipe()
        try:
            connection = self._connect(go_read)
        finally:
            os.close(go_read)
        with suppress(BrokenPipeError, ConnectionResetError):
            connection.sendall(encode(job) + b"\n")
        with self._lock:
            self._held.append(_Held(job, connection, go_write))

    def drop(self, checkout: str) -> None:
        """End what is held for a commit in this folder."""
        with self._lock:
            dropped = [held for held in self._held if held.job.checkout == checkout]
            self._held = [held for held in self._held if held not in dropped]
        for held in dropped:
            os.close(held.go_fd)
            self._end(held.connection)

    def num_held(self, device: str) -> int:
        """How many jobs are held on a device."""
        with self._lock:
            return sum(held.job.request.device == device for held in self._held)

    def _let_go(self, job: Job) -> socket.socket | None:
        """The connection to this very job, which is held and now begins; None where none is."""
        with self._lock:
            held = next((one for one in self._held if one.job == job), None)
            if held is None:
                return None
            self._held.remove(held)
        try:
            if select.select([held.connection], [], [], 0)[0]:  # it has ended meanwhile
                self._end(held.connection)
                return None
            os.write(held.go_fd, b"g")
        finally:
            os.close(held.go_fd)
        return held.connection

    def _end(self, connection: socket.socket) -> None:
        with self._lock:
            self._connections.discard(connection)
        connection.close()

    def _connect(self, go_fd: int | None = None) -> socket.socket:
        ours, theirs = socket.socketpair()
        with self._lock, theirs:
            for _ in range(2):  # a server that died while idle is replaced once
                if self._process is None or self._process.poll() is not None:
                    self._start()
                assert self._control is not None
                try:
                    descriptors = [theirs.fileno(), *([] if go_fd is None else [go_fd])]
                    socket.send_fds(self._control, [b"j" if go_fd is None else b"h"], descriptors)
                    self._idle = False
                    break
                except (BrokenPipeError, ConnectionResetError):
                    self._stop()
            self._connections.add(ours)
        return ours

    def _start(self) -> None:
        self._stop()
        environment = public_environment(os.environ)  # the target reads what is in it
        for name in self._without:
            environment.pop(name, None)
        # Idle BLAS threads only get in the way of forking; torch has a pool of its own.
        environment.setdefault("OPENBLAS_NUM_THREADS", "1")
        # Asking whether there is a GPU must not open it in a process that will fork.
        environment.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")
        count_by_bus(environment)
        # Threads that spin while they wait make a shared machine many times slower.
        environment.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        self._idle = True
        self._control, theirs = socket.socketpair()
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 (closed by _stop)
        with theirs:
            self._process = subprocess.Popen(
                [
                    sys.executable, "-P", *own_bytecode(environment), "-m", SERVER_MODULE,
                    *([] if self._fork else ["--spawn"]),
                ],
                stdin=theirs.fileno(),
                stdout=self._errors,
                stderr=self._errors,
                env=environment,
                start_new_session=True,  # Ctrl-C is ours to handle
            )  # fmt: skip

    def _end_all(self) -> None:
        """Kill the server and everything below it, stopped or not."""
        with self._lock:
            if self._process is not None:
                for pid in (*descendants(self._process.pid), self._process.pid):
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
            self._stop()

    def _last_words(self) -> str:
        with self._lock:
            if self._errors is None:
                return ""
            self._errors.seek(0)
            return self._errors.read()[-8000:].decode(errors="replace")

    def close(self) -> None:
        """End all jobs, the server and everything they started."""
        with self._lock:
            self._num_closed += 1
            for connection in self._connections:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
            for held in self._held:
                os.close(held.go_fd)
                self._connections.discard(held.connection)
                held.connection.close()
            self._held = []
            self._stop()

    def _stop(self) -> None:
        process, self._process = self._process, None
        if self._control is not None:
            self._control.close()
            self._control = None
        if process is not None:
            if self._idle:
                process.kill()  # else it is heard of only once it has imported everything
            try:
                process.wait(timeout=STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        if self._errors is not None:
            self._errors.close()
            self._errors = None


def _end_when(cancel: threading.Event, over: threading.Event, connection: socket.socket) -> None:
    """End a job from another thread: its watcher ends it once our side is closed."""

    def watch() -> None:
        while not over.is_set():
            if cancel.wait(CANCEL_POLL_S):
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_WR)
                return

    threading.Thread(target=watch, daemon=True).start()


def _as_garbage(ended: Ended, refused: str) -> Ended:
    return replace(ended, cause="garbage", detail=refused)


def raise_refused(refused: Refused) -> NoReturn:
    """Raise in this process the error that a worker refused a job with."""
    kind = getattr(errors, refused.error, None)
    if not (isinstance(kind, type) and issubclass(kind, errors.MonitorError)):
        kind = errors.MonitorError
    raise kind(refused.message)
