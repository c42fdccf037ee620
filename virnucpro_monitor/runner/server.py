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
import select
import socket
import sys
import tempfile
import time
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
from virnucpro_monitor.runner.containment import adopt_orphans, die_with_parent, fork_contained
from virnucpro_monitor.runner.supervisor import (
    Limits,
    end_children,
    limit_own_memory,
    supervise,
)

TEND_S = 0.5


def main() -> None:
    control = socket.socket(fileno=os.dup(0))
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    forking = "--spawn" not in sys.argv
    if forking:
        _preload()
        forking = not _holds_gpu()
    adopt_orphans()
    supervisors: set[int] = set()
    while True:
        if not select.select([control], [], [], TEND_S)[0]:
            _tend(supervisors)
            continue
        message, descriptors, _, _ = socket.recv_fds(control, 1, 1)
        _tend(supervisors)
        if not message:
            break
        connection = socket.socket(fileno=descriptors[0])
        line = connection.makefile("rb").readline()
        if line:
            job = decode_job(line)
            if forking and isinstance(job, MeasureJob) and job.warm:
                _map_checkpoints(job)
            pid = os.fork()
            if pid == 0:
                control.close()
                _supervise(job, connection, forking)
            supervisors.add(pid)
        connection.close()
    while supervisors:  # each ends its job once its own socket is closed
        _tend(supervisors)
        time.sleep(0.01)


def _tend(supervisors: set[int]) -> None:
    """Reap supervisors, and end what one that was killed has left to us."""
    ended = False
    with suppress(ChildProcessError):
        while pid := os.waitpid(-1, os.WNOHANG)[0]:
            ended |= pid in supervisors
            supervisors.discard(pid)
    if ended:
        end_children(but=supervisors)


def _preload() -> None:
    import torch

    import virnucpro_monitor.data.benchmarks
    import virnucpro_monitor.models.esm2_flash
    import virnucpro_monitor.models.weights
    import virnucpro_monitor.runner.environment
    import virnucpro_monitor.runner.loading
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
    source = None if forking else _write_job(job)
    # CUDA does not start in a process namespace that has no /proc of its own (seen: error 304).
    child = fork_contained(namespace=not job.request.device.startswith("cuda"))
    if child is None:
        connection.close()
        os.dup2(output_write, 1)
        os.dup2(output_write, 2)
        os.close(output_write)
        if source is not None:
            _become_worker(source, result_write)
        _work(job, limits, result_write)
    if source is not None:
        os.close(source)
    os.close(result_write)
    os.close(output_write)
    ending = supervise(child, result_read, output_read, limits, send, cancel_fd=connection.fileno())
    ended = Ended(cause=ending.cause, code=ending.code, log=ending.output, detail=ending.detail)
    connection.sendall(OWN + encode(ended) + b"\n")


def _work(job: Job, limits: Limits, result_fd: int) -> NoReturn:
    status = 1
    try:
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


def _write_job(job: Job) -> int:
    """A file without a name that holds the job, open at its beginning."""
    descriptor = os.memfd_create("job") if hasattr(os, "memfd_create") else _unnamed_file()
    with os.fdopen(os.dup(descriptor), "wb") as file:
        file.write(encode(job))
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


def _unnamed_file() -> int:
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def _become_worker(source: int, result_fd: int) -> NoReturn:
    """Become a fresh interpreter that reads its job from standard input."""
    os.dup2(source, 0)
    os.set_inheritable(result_fd, True)
    arguments = [sys.executable, "-P", "-m", __spec__.name, "--job", str(result_fd)]
    os.execv(sys.executable, arguments)


def run_spawned(result_fd: int) -> None:
    job = decode_job(sys.stdin.buffer.read())
    if not job.request.device.startswith("cuda"):
        limit_own_memory(Limits(job.timeout_s, job.memory_limit_gib))
    worker.run_job(job, result_fd)


if __name__ == "__main__":
    if "--job" in sys.argv:
        run_spawned(int(sys.argv[-1]))
    else:
        main()
