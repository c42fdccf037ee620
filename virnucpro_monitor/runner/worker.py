"""One job in its own process: prepare the yardstick, or judge what a target's process embeds.

A job answers with messages on a pipe of its own, which no target's process ever holds.
"""

import faulthandler
import mmap
import os
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypedDict

from virnucpro_monitor.bytecode import leave_own_bytecode
from virnucpro_monitor.errors import CardMemoryError, MonitorError, WeightsError
from virnucpro_monitor.heap import keep_freed_memory
from virnucpro_monitor.records import OWN_ORACLE, Failure, Verdict, to_json
from virnucpro_monitor.records.messages import (
    Advanced,
    Described,
    DescribeJob,
    Failed,
    Job,
    Judged,
    MeasureJob,
    MessageError,
    NearingEnd,
    PrepareJob,
    Ready,
    Refused,
    Said,
    encode,
)
from virnucpro_monitor.runner.supervisor import TARGET_GONE
from virnucpro_monitor.scratch import scratch_folder

PROGRESS_INTERVAL_S = 0.2
CALLED_S = 0.15  # from a word on to where a commit is checked out and its processes are called
_ROOM = 3  # times what a commit needs: for its own model, the next one, and this one

Emit = Callable[[Said], None]


def settle_in() -> None:
    """What every process of a job does first."""
    faulthandler.enable(all_threads=False)  # a segmentation fault leaves its stack in the output
    leave_own_bytecode()
    keep_freed_memory()
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]


def run_job(
    job: Job,
    result_fd: int,
    connection: socket.socket | None = None,
    *,
    held: bool = False,
    shared: mmap.mmap | None = None,
) -> int:
    """Do a job and send its events; every exception becomes an event.

    Args:
        connection: to the target's process, of a job that measures one.
        held: that process waits for its commit, and the run begins when it has come.
        shared: memory that it has as well.

    Returns:
        This process's exit status.
    """
    settle_in()

    def emit(event: Said) -> None:
        data = encode(event) + b"\n"
        while data:
            data = data[os.write(result_fd, data) :]

    if isinstance(job, PrepareJob):
        _prepare(job, emit)
        return 0
    if isinstance(job, DescribeJob):
        _describe(job, emit)
        return 0
    assert connection is not None
    try:
        return _measure(job, connection, emit, held=held, shared=shared)
    finally:
        with suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)  # the target's process ends beside this one


def _prepare(job: PrepareJob, emit: Emit) -> None:
    """Resolve the weights, compute missing oracles, and describe the environment."""
    from virnucpro_monitor.models.devices import checked_device
    from virnucpro_monitor.runner.environment import capture_environment
    from virnucpro_monitor.runner.failures import describe_failure
    from virnucpro_monitor.runner.packages import installed_packages
    from virnucpro_monitor.runner.warm import make_torch_home

    request = job.request
    try:
        checked_device(request.device)
        weights, _ = _yardstick(job, job.oracle, emit)
        home = make_torch_home(
            Path(job.cache_folder),
            request.model,
            Path(weights.path),
            Path(weights.regression_path),
            weights.digest,
        )
        emit(
            Ready(
                weights_digest=weights.digest,
                checkpoint=str(weights.path),
                regression=str(weights.regression_path),
                torch_home=str(home),
                environment=capture_environment(request.device, job.num_threads),
                installed=installed_packages(),
            )
        )
    except MonitorError as error:
        emit(Refused(error=type(error).__name__, message=str(error)))
    except RuntimeError as error:
        on_gpu = request.device.startswith("cuda")
        if not on_gpu or describe_failure(error, Path(job.cache_folder)).kind != "out_of_memory":
            raise
        message = f"{request.device} has no memory left to compute the oracle on: free some there, "
        message += "or name another card."
        emit(Refused(error=CardMemoryError.__name__, message=message))


def _describe(job: DescribeJob, emit: Emit) -> None:
    from virnucpro_monitor.runner.environment import capture_environment
    from virnucpro_monitor.runner.packages import installed_packages

    environment = capture_environment(job.request.device, job.num_threads)
    emit(Described(environment=environment, installed=installed_packages()))


def _yardstick(job: PrepareJob | MeasureJob, oracle: str, emit: Emit) -> tuple[Any, list[Any]]:
    """The weights, and the oracle of each of the job's benchmark sets."""
    from virnucpro_monitor.models.weights import resolve_weights
    from virnucpro_monitor.runner.oracles import open_oracle

    request, cache = job.request, Path(job.cache_folder)
    weights = resolve_weights(request.model, request.weights, cache_folder=cache)
    oracles = [
        open_oracle(
            oracle,
            request.model,
            weights,
            benchmark,
            cache_folder=cache,
            device=request.device if request.device.startswith("cuda") else "cpu",
            on_progress=_progress(emit, index),
        )
        for index, benchmark in enumerate(job.benchmarks)
    ]
    return weights, oracles


def _measure(
    job: MeasureJob,
    connection: socket.socket,
    emit: Emit,
    *,
    held: bool,
    shared: mmap.mmap | None,
) -> int:
    """Judge what the target's process, at the other end of the connection, embeds."""
    from virnucpro_monitor.runner.adapter_names import parse_adapter
    from virnucpro_monitor.runner.channel import Channel, ChannelClosedError
    from virnucpro_monitor.runner.endings import garbage_text
    from virnucpro_monitor.runner.failures import describe_failure, is_ours
    from virnucpro_monitor.runner.remote import FROM_TARGET, RemoteSubject
    from virnucpro_monitor.runner.reuse import read_ahead

    clock = _Clock()
    index = job.first
    channel = Channel(connection, shared)
    subject = RemoteSubject(channel)
    try:
        with subject:
            _warm_up(job, channel)
            # By the adapter's name, which is ours: a target's code cannot choose what judges it.
            named = parse_adapter(job.adapter).oracle
            weights, oracles = _yardstick(job, named, emit)
            _load_ahead(job, oracles)
            subject.meet()
            met = time.monotonic()
            if held:
                clock.restart()
                weights, oracles = _yardstick(job, named, emit)  # as they are now, from the cache
            _check_unchanged(job, weights)
            for benchmark in job.benchmarks[job.first : job.first + 1]:
                read_ahead(benchmark, job.reuse)
            subject.wait()
            loading_s = CALLED_S + time.monotonic() - met  # as the next commit's, or longer
            if job.first < len(job.benchmarks):  # the next ones may get ready beside it
                _progress(emit, job.first)(0, len(job.benchmarks[job.first].sequences))
            for index in range(job.first, len(job.benchmarks)):
                verdict = _judge(job, subject, index, oracles[index], emit, loading_s)
                _check_unchanged(job)
                emit(
                    Judged(
                        benchmark=index,
                        backend=subject.backend,
                        verdict=verdict,
                        packages=subject.packages(),
                        **clock.restart(),
                    )
                )
    except BaseException as error:
        changed = _changed(job)  # under the processes that map it: they may fail in any way
        if changed is None and isinstance(error, ChannelClosedError):
            return TARGET_GONE
        if changed is not None:
            failure, ours = describe_failure(changed, Path(job.checkout)), True
        elif isinstance(error, MessageError):
            failure, ours = Failure(kind="garbage", message=garbage_text(str(error))), False
        elif isinstance(error, FROM_TARGET):
            failure, ours = error.failure, error.ours
        else:
            failure, ours = describe_failure(error, Path(job.checkout)), is_ours(error)
        packages: tuple[str, ...] = ()
        with suppress(ChannelClosedError, MessageError, *FROM_TARGET):
            packages = subject.packages()
        emit(
            Failed(
                benchmark=index, failure=failure, ours=ours, packages=packages, **clock.restart()
            )
        )
    return 0


def _check_unchanged(job: MeasureJob, weights: Any = None) -> None:
    """Raise a `WeightsError` where the weights are no longer those that the run began with.

    Args:
        weights: as they have been found; None to look now, which takes no time while the file's
            size and time stay the same.
    """
    from virnucpro_monitor.models.weights import resolve_weights

    request = job.request
    if weights is None:
        cache = Path(job.cache_folder)
        weights = resolve_weights(request.model, request.weights, cache_folder=cache)
    if weights.digest != job.weights_digest:
        name = Path(weights.path).name
        raise WeightsError(f"The weights file {name} has changed since this run began.")


def _changed(job: MeasureJob) -> WeightsError | None:
    try:
        _check_unchanged(job)
    except WeightsError as error:
        return error
    return None


def _warm_up(job: MeasureJob, channel: Any) -> None:
    """While the target loads: what this process will need of the device."""
    import torch

    torch.set_num_threads(job.num_threads)
    if job.request.device.startswith("cuda"):
        with suppress(RuntimeError):  # the target meets the same, and says so
            torch.zeros(1, device=job.request.device)
            channel.pin(job.request.device)


def _load_ahead(job: MeasureJob, oracles: list[Any]) -> threading.Thread | None:
    """Load what comparing takes, and what explains a failure, where the card has room to spare.

    That passes before a commit is named, or else while its process loads and embeds. On a CPU the
    model is the file's own memory.

    Returns:
        Who does; None where nobody needs to.
    """
    if not job.request.device.startswith("cuda"):
        return None
    import torch

    from virnucpro_monitor.models.weights import model_shape
    from virnucpro_monitor.runner.capacity import needed_gpu_bytes
    from virnucpro_monitor.validation.comparing import compare_ahead
    from virnucpro_monitor.validation.exact_model import load_ahead

    device = torch.device(job.request.device)

    def load() -> None:
        with suppress(Exception):  # met again where it is needed, and told then
            free_bytes, _ = torch.cuda.mem_get_info(device)
            width = model_shape(job.request.model).embed_dim
            compare_ahead(device, getattr(torch, job.request.dtype), width)
            if free_bytes >= _ROOM * needed_gpu_bytes(Path(job.checkpoint)):
                for oracle in oracles[job.first : job.first + 1]:  # of one model, whatever the set
                    load_ahead(oracle, device)

    thread = threading.Thread(target=load, daemon=True)
    thread.start()
    return thread


class _Times(TypedDict):
    started_at: datetime
    duration_s: float


class _Clock:
    """When the current run began, and how long it took."""

    def __init__(self) -> None:
        self._started_at, self._start = datetime.now(UTC), time.monotonic()

    def restart(self) -> _Times:
        taken: _Times = {
            "started_at": self._started_at,
            "duration_s": time.monotonic() - self._start,
        }
        self._started_at, self._start = datetime.now(UTC), time.monotonic()
        return taken


def _judge(
    job: MeasureJob, subject: Any, index: int, oracle: Any, emit: Emit, loading_s: float
) -> Verdict:
    from virnucpro_monitor.models.families import FAMILIES
    from virnucpro_monitor.runner.adapter_names import SHIPPED, parse_adapter
    from virnucpro_monitor.runner.reuse import reuse_unpacked
    from virnucpro_monitor.validation.other_oracles import own_oracle
    from virnucpro_monitor.validation.probe_texts import fresh_texts
    from virnucpro_monitor.validation.validate import validate_subject

    benchmark = job.benchmarks[index]
    fresh = fresh_texts(job.protocol)
    named = parse_adapter(job.adapter)
    # Only an adapter of somebody's own may tell another: a family has limits and probes of its own.
    family = FAMILIES[named.family].facts if named.name in SHIPPED else subject.family

    def nearing_end() -> None:
        # A commit that begins before this one has left what it computed would compute it as well.
        if index == len(job.benchmarks) - 1 and getattr(judged, "reuses", True):
            emit(NearingEnd(benchmark=index))

    with ExitStack() as stack:
        if named.oracle == OWN_ORACLE:
            parent = Path(job.cache_folder) / "oracle"
            folder = stack.enter_context(scratch_folder(parent, ".own-"))
            folder.mkdir()
            oracle = own_oracle(subject, benchmark, folder, _progress(emit, index))
        judged = stack.enter_context(reuse_unpacked(subject, benchmark, job.reuse, fresh=fresh))
        verdict = validate_subject(
            judged,
            benchmark,
            oracle=oracle,
            protocol=job.protocol,
            weights_digest=job.weights_digest,
            on_progress=_progress(emit, index),
            probes=job.probes,
            keep_embeddings=job.keep_embeddings,
            family=family,
            on_nearing_end=nearing_end,
            loading_s=loading_s,
        )
    isolation = to_json(subject.confined)
    return replace(verdict, documents={**verdict.documents, "isolation": isolation})


def _progress(emit: Emit, benchmark: int) -> Callable[[int, int], None]:
    last = 0.0

    def report(done: int, total: int) -> None:
        nonlocal last
        now = time.monotonic()
        if done == total or now - last >= PROGRESS_INTERVAL_S:
            last = now
            emit(Advanced(benchmark=benchmark, done=done, total=total))

    return report
