"""Judge this package's own packed ESM-2 at once, without a database."""

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from virnucpro_monitor.models.devices import checked_device
from virnucpro_monitor.models.weights import Weights, load_checkpoint, resolve_weights
from virnucpro_monitor.records import BenchmarkSet, Protocol, Verdict
from virnucpro_monitor.runner.visible import count_by_bus
from virnucpro_monitor.settings import Settings
from virnucpro_monitor.validation.builtin import BuiltinSubject, load_builtin
from virnucpro_monitor.validation.calibration import calibrate
from virnucpro_monitor.validation.kill_matrix import FaultResult, SelftestReport
from virnucpro_monitor.validation.oracle import Oracle, prepare_oracle
from virnucpro_monitor.validation.protocol import (
    check_calibrated_for,
    limits_for,
    limits_key,
    load_protocol,
)
from virnucpro_monitor.validation.selftest import Bench, OnRow, run_selftest
from virnucpro_monitor.validation.selftest_material import SELFTEST_TOKEN_BUDGET, selftest_benchmark
from virnucpro_monitor.validation.selftest_pool import forked, on_a_card
from virnucpro_monitor.validation.validate import validate_subject

OnProgress = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and how much there is."""


def _ignore(what: str, done: int, total: int) -> None:
    return None


def validate_builtin(
    settings: Settings, benchmark: BenchmarkSet, on_progress: OnProgress = _ignore
) -> Verdict:
    """Validate the built-in model on one benchmark set; nothing is stored.

    Raises:
        MonitorError: protocol, weights, device or backend cannot be used.
    """
    protocol = load_protocol(settings.protocol or None)
    limits_for(protocol, limits_key(settings.dtype, settings.device))
    subject, oracle, weights = _prepare(settings, benchmark, settings.token_budget, on_progress)
    _check_calibrated(protocol, settings, weights)
    return validate_subject(
        subject,
        benchmark,
        oracle=oracle,
        protocol=protocol,
        weights_digest=weights.digest,
        on_progress=lambda done, total: on_progress("sequences", done, total),
    )


def selftest_builtin(
    settings: Settings,
    *,
    num_healthy_runs: int,
    workers: int = 1,
    on_progress: OnProgress = _ignore,
    on_row: OnRow | None = None,
) -> SelftestReport:
    """Inject every known fault into the built-in model.

    Args:
        settings: its token budget does not count: the self-test has one of its own.
        workers: processes that judge at once.
        on_row: called with (rows made, all rows, the one made last).

    Raises:
        MonitorError: weights, device or backend cannot be used.
    """
    on_cpu = settings.device.startswith("cpu")
    subject, benchmark, oracle, protocol = _of_selftest(settings, on_progress)
    judges = None
    if not on_cpu:
        judges = on_a_card(partial(make_bench, settings, num_healthy_runs), workers)
    elif workers > 1:
        torch.set_num_threads(1)  # threads would not survive the fork
        judges = forked(workers)

    def tell(done: int, total: int, row: FaultResult) -> None:
        on_progress(row.name, done, total)
        if on_row:
            on_row(done, total, row)

    return run_selftest(
        subject,
        benchmark,
        oracle,
        protocol,
        num_healthy_runs=num_healthy_runs,
        judges=judges,
        on_row=tell,
    )


def make_bench(settings: Settings, num_healthy_runs: int) -> Bench:
    """The self-test's bench once more, in another process."""
    return Bench(*_of_selftest(settings, _ignore), num_healthy_runs=num_healthy_runs)


def _of_selftest(
    settings: Settings, on_progress: OnProgress
) -> tuple[BuiltinSubject, BenchmarkSet, Oracle, Protocol]:
    benchmark = selftest_benchmark()
    protocol = load_protocol(settings.protocol or None)
    subject, oracle, weights = _prepare(settings, benchmark, SELFTEST_TOKEN_BUDGET, on_progress)
    _check_calibrated(protocol, settings, weights)
    return subject, benchmark, oracle, protocol


def _check_calibrated(protocol: Protocol, settings: Settings, weights: Weights) -> None:
    check_calibrated_for(protocol, settings.model, settings.dtype, settings.device, weights.digest)


def calibrate_builtin(
    settings: Settings, path: Path, *, num_runs: int, on_progress: OnProgress = _ignore
) -> Protocol:
    """Freeze limits for the settings' model, weights, dtype and device, and write them to `path`.

    Raises:
        MonitorError: protocol, weights, device or backend cannot be used, or the file is another
            calibration's.
    """
    base = load_protocol(settings.protocol or None)
    benchmark = selftest_benchmark()
    subject, oracle, weights = _prepare(settings, benchmark, settings.token_budget, on_progress)
    reference = None
    if settings.dtype == "float32":
        reference = load_checkpoint(settings.model, weights.path)[0].to(settings.device)
    return calibrate(
        subject,
        benchmark,
        oracle,
        base,
        path,
        num_runs=num_runs,
        reference=reference,
        on_progress=lambda done, total: on_progress("healthy runs", done, total),
    )


def _prepare(
    settings: Settings, benchmark: BenchmarkSet, token_budget: int, on_progress: OnProgress
) -> tuple[BuiltinSubject, Oracle, Weights]:
    count_by_bus(os.environ)  # as `run` does: CUDA may start in this process
    checked_device(settings.device)  # before weights are fetched for it
    weights = resolve_weights(settings.model, settings.weights, cache_folder=settings.cache_folder)
    subject = load_builtin(
        settings.model,
        weights=weights.path,
        device=settings.device,
        dtype=settings.dtype,
        backend=settings.backend,
        token_budget=token_budget,
    )
    oracle = prepare_oracle(
        settings.model,
        weights,
        benchmark,
        cache_folder=settings.cache_folder,
        device=settings.device,
        on_progress=lambda done, total: on_progress("FP32 oracle", done, total),
    )
    return subject, oracle, weights
