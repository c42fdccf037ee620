"""The fork server: a warm process that forks one child for each job.

It imports torch, fair-esm and the yardstick and maps the checkpoint, but computes nothing: OpenMP
and CUDA come to life in the children only, because neither survives a fork. Jobs arrive as JSON
lines on standard input, events leave as JSON lines on standard output. Where forking is not safe
(anywhere but Linux), each job gets a fresh interpreter instead.
"""

import json
import os
import subprocess
import sys
import traceback
from contextlib import suppress
from pathlib import Path

from virnucpro_monitor.records import Json
from virnucpro_monitor.runner import worker
from virnucpro_monitor.runner.supervisor import (
    Limits,
    adopt_orphans,
    die_with_parent,
    limit_own_memory,
    supervise,
)

MAX_LINE_BYTES = 1 << 20


def main() -> None:
    adopt_orphans()
    commands, events = _take_over_streams()
    if "--spawn" not in sys.argv:
        _preload()
    pending = bytearray()
    while (line := _next_line(commands, pending)) is not None:
        _serve(json.loads(line), commands, events)


def _take_over_streams() -> tuple[int, int]:
    """Keep both pipes to ourselves: whatever a library prints must not get into them."""
    commands, events = os.dup(0), os.dup(1)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(2, 1)
    return commands, events


def _preload() -> None:
    import esm.pretrained  # noqa: F401
    import torch  # noqa: F401

    import virnucpro_monitor.data.benchmarks
    import virnucpro_monitor.models.esm2_flash
    import virnucpro_monitor.models.weights
    import virnucpro_monitor.runner.adapters
    import virnucpro_monitor.runner.environment
    import virnucpro_monitor.runner.reuse
    import virnucpro_monitor.runner.warm
    import virnucpro_monitor.validation.oracle
    import virnucpro_monitor.validation.validate  # noqa: F401


def _next_line(descriptor: int, pending: bytearray) -> bytes | None:
    while (end := pending.find(b"\n")) < 0:
        data = os.read(descriptor, MAX_LINE_BYTES)
        if not data:
            return None
        pending += data
    line = bytes(pending[:end])
    del pending[: end + 1]
    return line


def _serve(job: Json, commands: int, events: int) -> None:
    limits = Limits(**job["limits"])
    forking = "--spawn" not in sys.argv
    if forking and job["kind"] == "measure" and job["warm"]:
        _map_checkpoints(job)

    def send(data: bytes) -> bool:
        _write_all(events, data + b"\n")
        return b'"event": "verdict"' in data[:40]

    result_read, result_write = os.pipe()
    output_read, output_write = os.pipe()
    if forking:
        pid = os.fork()
        if pid == 0:
            _child(job, limits, result_write, output_write, {commands, events})
    else:
        pid = _spawn(job, result_write, output_write)
    os.close(result_write)
    os.close(output_write)
    ending = supervise(pid, result_read, output_read, limits, send, cancel_fd=commands)
    send(
        json.dumps(
            {"event": "end", "cause": ending.cause, "code": ending.code, "log": ending.output}
        ).encode()
    )


def _map_checkpoints(job: Json) -> None:
    from virnucpro_monitor.runner.warm import map_checkpoint

    with suppress(Exception):  # the child meets the same fault and reports it
        map_checkpoint(Path(job["checkpoint"]))
        map_checkpoint(Path(job["regression"]))


def _child(job: Json, limits: Limits, result_fd: int, output_fd: int, inherited: set[int]) -> None:
    """Never returns."""
    status = 1
    try:
        os.setsid()
        die_with_parent()
        for descriptor in inherited:
            os.close(descriptor)
        os.dup2(output_fd, 1)
        os.dup2(output_fd, 2)
        os.close(output_fd)
        if not job["request"]["device"].startswith("cuda"):
            limit_own_memory(limits)
        worker.run_job(job, result_fd)
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        with suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)


def _spawn(job: Json, result_fd: int, output_fd: int) -> int:
    """Start a fresh interpreter for a job; it reads the job from its standard input."""
    source = Path(job["cache_folder"]) / "jobs" / f"{os.getpid()}.json"
    source.parent.mkdir(parents=True, exist_ok=True)
    source.write_text(json.dumps(job), encoding="utf-8")
    with source.open("rb") as file:
        process = subprocess.Popen(
            [
                sys.executable,
                "-P",
                "-m",
                "virnucpro_monitor.runner.server",
                "--job",
                str(result_fd),
            ],
            stdin=file,
            stdout=output_fd,
            stderr=output_fd,
            pass_fds=(result_fd,),
            start_new_session=True,
        )
    source.unlink()
    process.returncode = 0  # reaped by the supervisor, not by subprocess
    return process.pid


def run_spawned(result_fd: int) -> None:
    die_with_parent()
    job = json.loads(sys.stdin.buffer.read())
    if not job["request"]["device"].startswith("cuda"):
        limit_own_memory(Limits(**job["limits"]))
    worker.run_job(job, result_fd)


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


if __name__ == "__main__":
    if "--job" in sys.argv:
        run_spawned(int(sys.argv[-1]))
    else:
        main()
