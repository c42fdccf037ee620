"""The fork server: a warm process from which every job is forked.

It imports torch, fair-esm and the yardstick and maps the checkpoint, but computes nothing: OpenMP
and CUDA come to life in the jobs only, because neither survives a fork. Standard input is a socket
over which the caller hands one connected socket for each job; the job arrives on that as a line,
and its events leave as lines (`records.messages`). Where forking is not safe (anywhere but Linux),
each job gets a fresh interpreter instead.

A commit is measured by two processes: the target's, which alone imports its code and is confined,
and the judge's, which asks it for embeddings and alone holds the pipe on which a verdict is said.

A job may be held (`b"h"` and, besides the socket, the read end of a pipe): its processes start and
load what does not depend on the commit, then wait until a byte lies in the pipe. Nothing of the
commit is there before. One that ends without that byte says nothing at all.

    caller ── control socket ── server ──fork── supervisor ──fork── judge (or other worker)
       └───────────── one socket for each job ─────┘ └──────fork── target ──┘ channel
"""

import gc
import json
import mmap
import os
import socket
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from virnucpro_monitor.bytecode import leave_own_bytecode
from virnucpro_monitor.records import from_json, to_json
from virnucpro_monitor.records.calls import Confined
from virnucpro_monitor.records.messages import (
    OWN,
    WORKERS,
    DescribeJob,
    Ended,
    Job,
    MeasureJob,
    PrepareJob,
    decode_job,
    encode,
    is_verdict,
)
from virnucpro_monitor.runner import worker
from virnucpro_monitor.runner.cgroup import JobGroup
from virnucpro_monitor.runner.confinement import Territory, close_descriptors
from virnucpro_monitor.runner.containment import (
    Contained,
    Inside,
    adopt_orphans,
    die_with_parent,
    fork_contained,
)
from virnucpro_monitor.runner.isolating import (
    begin_trial,
    give_up,
    territory_of,
    trial_pids,
    wait_for_trial,
)
from virnucpro_monitor.runner.orders import First, receive
from virnucpro_monitor.runner.own_card import on_own_card
from virnucpro_monitor.runner.packages import look_aside
from virnucpro_monitor.runner.preloading import (
    holds_gpu,
    map_checkpoints,
    preload,
)
from virnucpro_monitor.runner.shared_environment import PACKAGE_ROOT, enter, load_for, shares_loaded
from virnucpro_monitor.runner.standby import has_come
from virnucpro_monitor.runner.supervisor import (
    Ending,
    Limits,
    end_children,
    limit_own_memory,
    supervise,
)
from virnucpro_monitor.scratch import scratch_folder, sweep

TEND_S = 0.5
_MODULE = "virnucpro_monitor.runner.server"
_SCRATCH_PREFIX = "vnpm-job-"


def main() -> None:
    control = socket.socket(fileno=os.dup(0))
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    forking = "--spawn" not in sys.argv
    first = First(control)
    if forking:
        gc.disable()  # of what is imported, nothing goes away again
        take_known = look_aside()
        first.hear()
        preload()
        take_known()
        gc.freeze()  # what each job would go through again, and copy by that
        gc.enable()
        forking = not holds_gpu()
    adopt_orphans()
    supervisors: set[int] = set()
    while True:
        if not first.has_come(TEND_S):
            _tend(supervisors)
            continue
        order = first.take() or receive(control)
        _tend(supervisors)
        if order is None:
            break
        job, connection, go_fd = order.job, order.connection, order.go_fd
        if job is not None and (go_fd is None or forking):
            if forking and isinstance(job, MeasureJob):
                if job.warm:
                    map_checkpoints(job)
                load_for(job)
            if not isinstance(job, DescribeJob):
                begin_trial(job)
            if isinstance(job, MeasureJob):
                wait_for_trial(job)
            pid = os.fork()
            if pid == 0:
                control.close()
                _supervise(job, connection, forking, go_fd)
            supervisors.add(pid)
        connection.close()
        if go_fd is not None:
            os.close(go_fd)
    end_children(but=supervisors)
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
        end_children(but=supervisors | trial_pids())


def _supervise(job: Job, connection: socket.socket, forking: bool, go_fd: int | None) -> NoReturn:
    """Run one job to its end, in a process of its own that adopts what the job leaves behind."""
    status = 1
    try:
        die_with_parent()
        adopt_orphans()
        _serve(on_own_card(job), connection, forking, go_fd)
        status = 0
    except BrokenPipeError:
        pass  # the caller has gone
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def _serve(job: Job, connection: socket.socket, forking: bool, go_fd: int | None) -> None:
    def send(line: bytes) -> bool:
        connection.sendall(WORKERS + line + b"\n")
        return is_verdict(line)

    group = None if isinstance(job, PrepareJob) else JobGroup.make()
    try:
        with _scratch_of(job) as scratch:
            ending = _run(job, scratch, connection, forking, send, go_fd, group)
    finally:
        if group is not None:
            group.remove()
    if go_fd is not None and not has_come(go_fd):
        return
    ended = Ended(cause=ending.cause, code=ending.code, log=ending.output, detail=ending.detail)
    connection.sendall(OWN + encode(ended) + b"\n")


def _run(
    job: Job,
    scratch: Path | None,
    connection: socket.socket,
    forking: bool,
    send: Callable[[bytes], bool],
    go_fd: int | None,
    group: JobGroup | None,
) -> Ending:
    limits = Limits(job.timeout_s, job.memory_limit_gib)
    result_read, result_write = os.pipe()
    output_read, output_write = os.pipe()
    pipes = _Pipes(result_write, output_write)
    # CUDA does not start in a process namespace that has no /proc of its own (seen: error 304).
    namespace = not job.request.device.startswith("cuda")
    judge: Contained | None = None
    if isinstance(job, MeasureJob):
        # The judge comes first: what is forked later may come to lie in a namespace.
        judges, theirs = socket.socketpair()
        memory = _shared_of(job)
        judge_or_inside = fork_contained(namespace=False)
        if isinstance(judge_or_inside, Inside):
            theirs.close()
            held = go_fd is not None
            _judge(job, pipes, judges, connection, forking, held=held, memory=memory)
        judge = judge_or_inside
        judges.close()
        territory = territory_of(job, scratch)
        child = fork_contained(
            namespace=namespace,
            territory=territory if job.confine else None,
            network=job.network or not job.confine,
        )
        if isinstance(child, Inside):
            _join(group)
            _be_target(job, pipes, theirs, territory, child, scratch, forking, go_fd, memory)
        theirs.close()
    elif isinstance(job, DescribeJob):
        territory = territory_of(job, scratch)
        child = fork_contained(
            namespace=namespace,
            territory=territory if job.confine else None,
            network=not job.confine,
        )
        if isinstance(child, Inside):
            _join(group)
            _describe(job, pipes, territory, child, forking)
    else:
        child = fork_contained(namespace=namespace)
        if isinstance(child, Inside):
            _judge(job, pipes, None, connection, forking)
    pipes.close()
    return supervise(
        child,
        result_read,
        output_read,
        limits,
        send,
        cancel_fd=connection.fileno(),
        judge=judge,
        go_fd=go_fd,
        group=group,
    )


def _shared_of(job: MeasureJob) -> mmap.mmap | None:
    """Memory for rows on their way between two cards' processes; on a CPU it would gain nothing."""
    from virnucpro_monitor.runner.channel import shared_memory

    return shared_memory() if job.request.device.startswith("cuda") else None


def _join(group: JobGroup | None) -> None:
    if group is not None:
        group.join()


@dataclass(frozen=True, slots=True)
class _Pipes:
    """Write ends of a job's pipes."""

    result: int
    output: int

    def take_output(self) -> None:
        """In a child: let the standard streams be the output's."""
        os.dup2(self.output, 1)
        os.dup2(self.output, 2)
        os.close(self.output)

    def close(self) -> None:
        os.close(self.result)
        os.close(self.output)


@contextmanager
def _scratch_of(job: Job) -> Iterator[Path | None]:
    """A folder that a target may write; None where nothing can be written, or none is needed."""
    if isinstance(job, PrepareJob):
        yield None
        return
    with ExitStack() as stack:
        folder: Path | None = None
        for parent in (Path(job.cache_folder, "scratch"), Path(tempfile.gettempdir())):
            try:
                sweep(parent, _SCRATCH_PREFIX)
                made = stack.enter_context(scratch_folder(parent, _SCRATCH_PREFIX))
                made.mkdir()
                folder = made
                break
            except OSError:
                continue  # a full or read-only disk, which is told where it matters
        yield folder


def _judge(
    job: Job,
    pipes: _Pipes,
    channel: socket.socket | None,
    connection: socket.socket,
    forking: bool,
    *,
    held: bool = False,
    memory: mmap.mmap | None = None,
) -> NoReturn:
    """Be the process that does the job, or judges what a target's process embeds."""
    connection.close()
    pipes.take_output()
    if not forking:
        _become("--job", job, [pipes.result, -1 if channel is None else channel.fileno()])

    def work() -> int:
        if channel is None and not job.request.device.startswith("cuda"):
            limit_own_memory(Limits(job.timeout_s, job.memory_limit_gib))
        return worker.run_job(job, pipes.result, channel, held=held, shared=memory)

    _end_after(work)


def _be_target(
    job: MeasureJob,
    pipes: _Pipes,
    channel: socket.socket,
    territory: Territory,
    inside: Inside,
    scratch: Path | None,
    forking: bool,
    go_fd: int | None,
    memory: mmap.mmap | None,
) -> NoReturn:
    """Be the process that runs the target."""
    pipes.take_output()
    close_descriptors(but={channel.fileno()} | ({go_fd} if go_fd is not None else set()))
    confined = give_up(job, territory, inside)
    shared = job.python is None or shares_loaded(Path(job.python))
    if go_fd is not None and (not shared or confined.user):
        os._exit(0)  # another interpreter, or files that come later: it cannot stand by
    if not (forking and shared):
        told = json.dumps([to_json(confined), None if scratch is None else str(scratch)])
        _become("--target", job, [channel.fileno(), told], job.python)
    if job.python is not None:
        enter(Path(job.python))
    _end_after(lambda: _serve_target(job, channel, confined, scratch, go_fd, memory))


def _describe(
    job: DescribeJob, pipes: _Pipes, territory: Territory, inside: Inside, forking: bool
) -> NoReturn:
    """Be another interpreter, which says what it is and holds nothing but the pipe for that."""
    pipes.take_output()
    close_descriptors(but={pipes.result})
    give_up(job, territory, inside)
    if territory.writable:
        os.environ["TMPDIR"] = str(territory.writable[0])
    if forking and shares_loaded(Path(job.python)):
        enter(Path(job.python))
        _end_after(lambda: worker.run_job(job, pipes.result))
    _become("--job", job, [pipes.result, -1], job.python)


def _serve_target(
    job: MeasureJob,
    channel: socket.socket,
    confined: Confined,
    scratch: Path | None,
    go_fd: int | None = None,
    memory: mmap.mmap | None = None,
) -> int:
    from virnucpro_monitor.runner.channel import Channel
    from virnucpro_monitor.runner.target_process import serve

    if not job.request.device.startswith("cuda"):
        limit_own_memory(Limits(job.timeout_s, job.memory_limit_gib))
    worker.settle_in()
    serve(job, Channel(channel, memory, writes=True), confined, scratch, go_fd)
    return 0


def _end_after(work: Callable[[], int]) -> NoReturn:
    status = 1
    try:
        status = work()
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


def _become(
    role: str, job: Job, arguments: Sequence[int | str], python: str | None = None
) -> NoReturn:
    """Become a fresh interpreter that reads its job from standard input.

    Args:
        arguments: descriptors stay open.
        python: another interpreter than our own, which gets this package by `PYTHONPATH`.
    """
    leave_own_bytecode()
    os.dup2(_write_job(job), 0)
    for one in arguments:
        if isinstance(one, int) and one >= 0:
            os.set_inheritable(one, True)
    if python is not None:
        os.environ["PYTHONPATH"] = PACKAGE_ROOT
    command = [python or sys.executable, "-P", "-m", _MODULE, role, *map(str, arguments)]
    os.execv(command[0], command)


def _run_spawned(role: str, arguments: Sequence[str]) -> NoReturn:
    job = decode_job(sys.stdin.buffer.read())
    number = int(arguments[-2 if role == "--target" else -1])
    channel = None if number < 0 else socket.socket(fileno=number)
    if role == "--target":
        assert isinstance(job, MeasureJob)
        assert channel is not None
        told, scratch = json.loads(arguments[-1])
        folder = None if scratch is None else Path(scratch)
        _end_after(lambda: _serve_target(job, channel, from_json(Confined, told), folder))
    _end_after(lambda: worker.run_job(job, int(arguments[0]), channel))


if __name__ == "__main__":
    if len(sys.argv) > 1 and sys.argv[1] in ("--job", "--target"):
        _run_spawned(sys.argv[1], sys.argv[2:])
    else:
        main()
        sys.stdout.flush()
        os._exit(0)  # else the caller waits while torch is taken apart
