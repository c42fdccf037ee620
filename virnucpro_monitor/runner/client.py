"""The caller's side of the fork server: start it, hand it jobs, restart it when it has died."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Generator
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import virnucpro_monitor
from virnucpro_monitor.errors import MonitorError
from virnucpro_monitor.records import Json


class WorkerPool:
    """One fork server, started when the first job comes.

    Args:
        python: interpreter to use; another than our own gets this package by `PYTHONPATH`.
        fork: fork each job from a warm process; otherwise every job gets a fresh interpreter.
    """

    def __init__(self, python: Path | None = None, *, fork: bool | None = None) -> None:
        self._python = python or Path(sys.executable)
        self._fork = sys.platform == "linux" if fork is None else fork
        self._process: subprocess.Popen[bytes] | None = None
        self._errors: IO[bytes] | None = None

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
        """Start the server without waiting for it; it warms up meanwhile."""
        if self._process is not None and self._process.poll() is None:
            return
        self.close()
        environment = dict(os.environ)
        # Forking with idle BLAS threads about is needless; torch has its own pool.
        environment.setdefault("OPENBLAS_NUM_THREADS", "1")
        environment["PYTHONUNBUFFERED"] = "1"
        if self._python != Path(sys.executable):
            package_root = str(Path(virnucpro_monitor.__file__).parent.parent)
            environment["PYTHONPATH"] = package_root
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 (closed by close())
        self._process = subprocess.Popen(
            [
                str(self._python), "-P", "-m", "virnucpro_monitor.runner.server",
                *([] if self._fork else ["--spawn"]),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=environment,
            start_new_session=True,  # Ctrl-C is ours to handle
        )  # fmt: skip

    def run(self, job: Json) -> Generator[Json]:
        """Run one job and yield its events; the last is always "end".

        A server that dies on the way ends the job with cause "lost"; the next job starts anew.
        """
        self.start()
        process = self._process
        assert process is not None
        assert process.stdin is not None
        assert process.stdout is not None
        finished = False
        try:
            with suppress(BrokenPipeError):
                process.stdin.write(json.dumps(job).encode() + b"\n")
                process.stdin.flush()
            for line in process.stdout:
                event: dict[str, Any] = json.loads(line)
                finished = event["event"] == "end"
                yield event
                if finished:
                    return
            said = self._last_words()
            self.close()
            finished = True
            yield {"event": "end", "cause": "lost", "code": process.returncode or 0, "log": said}
        finally:
            if not finished:  # the caller turned away: what still runs must end
                self.close()

    def _last_words(self) -> str:
        if self._errors is None:
            return ""
        self._errors.seek(0)
        return self._errors.read()[-8000:].decode(errors="replace")

    def close(self) -> None:
        """End the server and everything it started."""
        process, self._process = self._process, None
        if process is not None:
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    with suppress(OSError):
                        stream.close()  # it ends its job, then itself
            try:
                process.wait(timeout=5)
            except subprocess.TimeoutExpired:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        if self._errors is not None:
            self._errors.close()
            self._errors = None


def raise_refused(event: Json) -> None:
    """Raise in this process the error that a worker refused a job with."""
    import virnucpro_monitor.errors as errors

    kind = getattr(errors, event["error"], MonitorError)
    raise kind(event["message"])
