"""The fork server: a warm process from which every job is forked.

It imports torch, fair-esm and the yardstick and maps the checkpoint, but computes nothing: OpenMP
and CUDA come to life in the jobs only, because neither survives a fork. Standard input is a socket
over which the caller hands one connected socket for each job; the job arrives on that as a line,
and its events leave as lines (`records.messages`). Where forking is not safe (anywhere but Linux),
each job gets a fresh interpreter instead.

    caller ── control socket ── server ──fork── supervisor ──fork── worker (own session)
       └───────────── one socket for each job ─────┘
"""

import importlib
import os
import socket
import subprocess
import sys
import traceback
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from virnucpro_monitor.records.messages import (
    OWN,
    WORKERS,
    Ended,
    Job,
    MeasureJob,
    decode_job,
    encode,
    is_verdict,
)
from virnucpro_monitor.runner import worker
from virnucpro_monitor.runner.supervisor import (
    Limits,
    adopt_orphans,
    die_with_parent,
    limit_own_memory,
    supervise,
)


def main() -> None:
    control = socket.socket(fileno=os.dup(0))
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    forking = "--spawn" not in sys.argv
    if forking:
        _preload()
        forking = not _holds_gpu()
    while True:
        message, descriptors, _, _ = socket.recv_fds(control, 1, 1)
        _reap()
        if not message:
            break
        connection = socket.socket(fileno=descriptors[0])
        line = connection.makefile("rb").readline()
        if line:
            job = decode_job(line)
            if forking and isinstance(job, MeasureJob) and job.warm:
                _map_checkpoints(job)
            if os.fork() == 0:
                control.close()
                _supervise(job, connection, forking)
        connection.close()
    with suppress(ChildProcessError):  # each ends its job once its own socket is closed
        while True:
            os.wait()


def _reap() -> None:
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _preload() -> None:
    import torch

    import virnucpro_monitor.data.benchmarks
    import virnucpro_monitor.models.esm2_flash
    import virnucpro_monitor.models.weights
    import virnucpro_monitor.runner.adapters
    import virnucpro_monitor.runner.environment
    import virnucpro_monitor.runner.reuse
    import virnucpro_monitor.runner.warm
    import virnucpro_monitor.validation.oracle
    import virnucpro_monitor.validation.validate  # noqa: F401
    from virnucpro_monitor.runner.packages import known_owners

    known_owners()  # of modules: half a second, once here instead of in each job
    # A meta tensor's first random fill imports hundreds of modules: once here, not in each job.
    torch.empty(1, device="meta").normal_()
    with suppress(Exception):  # not installed, or built for another torch: the targets' affair
        importlib.import_module("flash_attn")


def _holds_gpu() -> bool:
    """Whether an import has opened the GPU: CUDA does not survive a fork."""
    links = []
    for descriptor in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            links.append(os.readlink(descriptor))
    return any(link.startswith("/dev/nvidia") for link in links)


def _map_checkpoints(job: MeasureJob) -> None:
    from virnucpro_monitor.runner.warm import map_checkpoint

    with suppress(Exception):  # the worker meets the same fault and reports it
        map_checkpoint(Path(job.checkpoint))
        map_checkpoint(Path(job.regression))


def _supervise(job: Job, connection: socket.socket, forking: bool) -> NoReturn:
    """Run one job to its end, in a process of its own that adopts what the job leaves behind."""
    status = 1
    try:
        die_with_parent()
        adopt_orphans()
        _serve(job, connection, forking)
        status = 0
    except BrokenPipeError:
        pass  # the caller has gone
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def _serve(job: Job, connection: socket.socket, forking: bool) -> None:
    limits = Limits(job.timeout_s, job.memory_limit_gib)

    def send(line: bytes) -> bool:
        connection.sendall(WORKERS + line + b"\n")
        return is_verdict(line)

    result_read, result_write = os.pipe()
    output_read, output_write = os.pipe()
    if forking:
        pid = os.fork()
        if pid == 0:
            connection.close()
            _work(job, limits, result_write, output_write)
    else:
        pid = _spawn(job, result_write, output_write)
    os.close(result_write)
    os.close(output_write)
    ending = supervise(pid, result_read, output_read, limits, send, cancel_fd=connection.fileno())
    ended = Ended(cause=ending.cause, code=ending.code, log=ending.output, detail=ending.detail)
    connection.sendall(OWN + encode(ended) + b"\n")


def _work(job: Job, limits: Limits, result_fd: int, output_fd: int) -> NoReturn:
    status = 1
    try:
        os.setsid()
        die_with_parent()
        os.dup2(output_fd, 1)
        os.dup2(output_fd, 2)
        os.close(output_fd)
        if not job.request.device.startswith("cuda"):
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


def _spawn(job: Job, result_fd: int, output_fd: int) -> int:
    """Start a fresh interpreter for a job; it reads the job from its standard input."""
    source = Path(job.cache_folder) / "jobs" / f"{os.getpid()}.json"
    source.parent.mkdir(parents=True, exist_ok=True)
    source.write_bytes(encode(job))
    with source.open("rb") as file:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", __spec__.name, "--job", str(result_fd)],
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
    job = decode_job(sys.stdin.buffer.read())
    if not job.request.device.startswith("cuda"):
        limit_own_memory(Limits(job.timeout_s, job.memory_limit_gib))
    worker.run_job(job, result_fd)


if __name__ == "__main__":
    if "--job" in sys.argv:
        run_spawned(int(sys.argv[-1]))
    else:
        main()
