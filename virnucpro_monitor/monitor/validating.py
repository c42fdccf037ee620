"""Judge this package's own packed ESM-2 at once, without a database."""

from collections.abc import Callable
from pathlib import Path

from virnucpro_monitor.models.weights import Weights, load_checkpoint, resolve_weights
from virnucpro_monitor.records import BenchmarkSet, Protocol, Verdict
from virnucpro_monitor.runner.worker import check_device
from virnucpro_monitor.settings import Settings
from virnucpro_monitor.validation.builtin import BuiltinSubject, load_builtin
from virnucpro_monitor.validation.calibration import calibrate
from virnucpro_monitor.validation.oracle import Oracle, prepare_oracle
from virnucpro_monitor.validation.protocol import limits_for, limits_key, load_protocol
from virnucpro_monitor.validation.selftest import (
    SelftestReport,
    run_selftest,
)
from virnucpro_monitor.validation.selftest_material import SELFTEST_TOKEN_BUDGET, selftest_benchmark
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
    return validate_subject(
        subject,
        benchmark,
        oracle=oracle,
        protocol=protocol,
        weights_digest=weights.digest,
        on_progress=lambda done, total: on_progress("sequences", done, total),
    )


def selftest_builtin(
    settings: Settings, *, num_healthy_runs: int, on_progress: OnProgress = _ignore
) -> SelftestReport:
    """Inject every known fault into the built-in model.

    Args:
        settings: its token budget does not count: the self-test has one of its own.

    Raises:
        MonitorError: weights, device or backend cannot be used.
    """
    benchmark = selftest_benchmark()
    subject, oracle, _ = _prepare(settings, benchmark, SELFTEST_TOKEN_BUDGET, on_progress)
    return run_selftest(
        subject,
        benchmark,
        oracle,
        load_protocol(settings.protocol or None),
        num_healthy_runs=num_healthy_runs,
        on_progress=lambda done, total, name: on_progress(name, done, total),
    )


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
    check_device(settings.device)  # before weights are fetched for it
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
