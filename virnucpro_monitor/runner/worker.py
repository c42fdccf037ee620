"""One job in its own process: prepare the yardstick, or load one commit and judge it.

A job answers with messages on a pipe of its own, so that what the target prints is never mixed in.
"""

import errno
import faulthandler
import os
import re
import sys
import time
import traceback
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypedDict

from virnucpro_monitor.errors import DeviceError, MonitorError, TargetError, WeightsError
from virnucpro_monitor.records import Failure, Verdict
from virnucpro_monitor.records.messages import (
    Advanced,
    Failed,
    Job,
    Judged,
    MeasureJob,
    PrepareJob,
    Ready,
    Refused,
    Said,
    encode,
)

PROGRESS_INTERVAL_S = 0.2
MAX_TRACEBACK_CHARACTERS = 20_000
MAX_MESSAGE_CHARACTERS = 1_000

# What CUDA says of a card that has gone, is broken, or is kept by others.
_LOST_CARD = re.compile(
    r"no CUDA-capable device is detected|devices? (is|are) busy or unavailable|uncorrectable ECC"
    r"|invalid device ordinal|CUDA driver initialization failed|No CUDA GPUs are available"
)

Emit = Callable[[Said], None]


def run_job(job: Job, result_fd: int) -> None:
    """Do a job and send its events; every exception becomes an event."""
    faulthandler.enable(all_threads=False)  # a segmentation fault leaves its stack in the output
    sys.dont_write_bytecode = True
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]

    def emit(event: Said) -> None:
        data = encode(event) + b"\n"
        while data:
            data = data[os.write(result_fd, data) :]

    if isinstance(job, PrepareJob):
        _prepare(job, emit)
    else:
        _measure(job, emit)


def _prepare(job: PrepareJob, emit: Emit) -> None:
    """Resolve the weights, compute missing oracles, and describe the environment."""
    from virnucpro_monitor.runner.environment import capture_environment
    from virnucpro_monitor.runner.packages import installed_packages
    from virnucpro_monitor.runner.warm import make_torch_home

    try:
        request = job.request
        check_device(request.device)
        weights, _ = _yardstick(job, emit)
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


def check_device(device: str) -> None:
    """Raise `DeviceError` unless `device` ("cpu" or "cuda:N") is there."""
    import torch

    kind, _, index = device.partition(":")
    if kind == "cpu" and not index:
        return
    if kind == "cuda" and "," in index:
        raise DeviceError(f"This runs on one device, not on {device}: name one as cuda:N.")
    if kind != "cuda" or (index and not index.isdigit()):
        raise DeviceError(f"{device!r} is not a device: use cpu or cuda:N.")
    if not torch.cuda.is_available():
        raise DeviceError(f"There is no CUDA here for --device {device}: use --device cpu.")
    if int(index or 0) >= torch.cuda.device_count():
        raise DeviceError(
            f"There is no {device}: this machine has {torch.cuda.device_count()} CUDA devices."
        )


def _yardstick(job: Job, emit: Emit) -> tuple[Any, list[Any]]:
    """The weights, and the oracle of each of the job's benchmark sets."""
    from virnucpro_monitor.models.weights import resolve_weights
    from virnucpro_monitor.validation.oracle import prepare_oracle

    request, cache = job.request, Path(job.cache_folder)
    weights = resolve_weights(request.model, request.weights, cache_folder=cache)
    oracles = [
        prepare_oracle(
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


def _measure(job: MeasureJob, emit: Emit) -> None:
    from virnucpro_monitor.runner.packages import imported_packages

    clock = _Clock()
    checkout = Path(job.checkout)
    index = job.first
    try:
        weights, oracles = _yardstick(job, emit)
        if weights.digest != job.weights_digest:
            raise WeightsError(
                f"The weights file {Path(weights.path).name} has changed since this run began."
            )
        subject = _load(job, weights, checkout)
        for index in range(job.first, len(job.benchmarks)):
            verdict = _judge(job, subject, index, oracles[index], emit)
            emit(
                Judged(
                    benchmark=index,
                    backend=subject.backend,
                    verdict=verdict,
                    packages=imported_packages(),
                    **clock.restart(),
                )
            )
    except BaseException as error:
        failure = describe_failure(error, checkout)
        emit(
            Failed(
                benchmark=index,
                failure=failure,
                ours=is_ours(error),
                packages=imported_packages(),
                **clock.restart(),
            )
        )


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


def _load(job: MeasureJob, weights: Any, checkout: Path) -> Any:
    import torch

    from virnucpro_monitor.runner.adapters import LoadRequest
    from virnucpro_monitor.runner.loading import load_subject
    from virnucpro_monitor.runner.warm import install_loader

    torch.set_num_threads(job.num_threads)
    request = job.request
    checkpoint, regression = Path(weights.path), Path(weights.regression_path)
    if job.warm:
        install_loader(request.model, checkpoint, regression)
    os.chdir(checkout)
    return load_subject(
        job.adapter,
        LoadRequest(
            checkout=checkout,
            package=job.package,
            model_name=request.model,
            weights=request.weights,
            checkpoint=checkpoint,
            regression=regression,
            torch_home=Path(job.torch_home),
            device=request.device,
            dtype=getattr(torch, request.dtype),
            backend=request.backend,
            token_budget=request.token_budget,
        ),
        job.adapter_path,
    )


def _judge(job: MeasureJob, subject: Any, index: int, oracle: Any, emit: Emit) -> Verdict:
    from virnucpro_monitor.runner.reuse import reuse_unpacked
    from virnucpro_monitor.validation.probe_texts import fresh_texts
    from virnucpro_monitor.validation.validate import validate_subject

    benchmark = job.benchmarks[index]
    fresh = fresh_texts(job.protocol)
    with reuse_unpacked(subject, benchmark, job.reuse, fresh=fresh) as judged:
        return validate_subject(
            judged,
            benchmark,
            oracle=oracle,
            protocol=job.protocol,
            weights_digest=job.weights_digest,
            on_progress=_progress(emit, index),
            probes=job.probes,
        )


def _progress(emit: Emit, benchmark: int) -> Callable[[int, int], None]:
    last = 0.0

    def report(done: int, total: int) -> None:
        nonlocal last
        now = time.monotonic()
        if done == total or now - last >= PROGRESS_INTERVAL_S:
            last = now
            emit(Advanced(benchmark=benchmark, done=done, total=total))

    return report


def describe_failure(error: BaseException, checkout: Path) -> Failure:
    """Turn an exception into a `Failure` that reads the same wherever the checkout lay."""
    text = "".join(traceback.format_exception(error))
    message = str(error) if isinstance(error, MonitorError) else _one_line(error)
    place = f"{checkout}{os.sep}"
    return Failure(
        kind=_kind_of(error),
        message=message.replace(place, "")[:MAX_MESSAGE_CHARACTERS],
        traceback=text.replace(place, "")[-MAX_TRACEBACK_CHARACTERS:],
    )


def is_ours(error: BaseException) -> bool:
    """Whether the monitor or its machine failed, not the target: disk, weights, device, settings.

    Such a run is tried again by the next start. The machine's part may lie under a target's own
    exception.
    """
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        if isinstance(seen, RuntimeError) and _LOST_CARD.search(str(seen)):
            return True
        seen = seen.__cause__ or seen.__context__
    return isinstance(error, MonitorError) and not isinstance(error, TargetError)


def _one_line(error: BaseException) -> str:
    first = (str(error).strip().splitlines() or [""])[0]
    return f"{type(error).__name__}: {first}" if first else type(error).__name__


def _kind_of(error: BaseException) -> str:
    import torch

    from virnucpro_monitor.runner.adapters import TargetImportError

    text = str(error)
    if is_ours(error):
        return "weights" if isinstance(error, WeightsError) else "machine"
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "can't allocate memory" in text:
        return "out_of_memory"
    if isinstance(error, (TargetImportError, ImportError, SyntaxError)):
        return "import"
    if isinstance(error, TargetError):
        return "interface"
    return "exception"
