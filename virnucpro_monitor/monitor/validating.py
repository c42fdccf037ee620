"""Judge this package's own packed ESM-2 at once, without a database."""

from collections.abc import Callable

from virnucpro_monitor.models.weights import Weights, resolve_weights
from virnucpro_monitor.records import BenchmarkSet, Verdict
from virnucpro_monitor.settings import Settings
from virnucpro_monitor.validation.builtin import BuiltinSubject, load_builtin
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


def _prepare(
    settings: Settings, benchmark: BenchmarkSet, token_budget: int, on_progress: OnProgress
) -> tuple[BuiltinSubject, Oracle, Weights]:
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
