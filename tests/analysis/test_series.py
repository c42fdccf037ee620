import pytest

from tests.analysis.histories import configuration, gate, history, run
from virnucpro_monitor.analysis.series import (
    ERROR_FLOOR,
    error_of,
    lacks_values,
    log10_error,
    series_key,
    split_series,
    worst_error,
)


def test_an_error_is_never_negative_and_unknown_stays_unknown() -> None:
    assert error_of(1.0) == 0.0
    assert error_of(1.0 + 2e-16) == 0.0
    assert error_of(0.75) == 0.25
    assert error_of(None) is None


def test_the_log_of_zero_is_the_floor() -> None:
    assert log10_error(0.0) == pytest.approx(-12.0)
    assert log10_error(ERROR_FLOOR / 10) == log10_error(0.0)
    assert log10_error(1e-3) == pytest.approx(-3.0)


def test_runs_are_split_by_target_benchmark_version_and_configuration() -> None:
    runs = [
        run(0),
        run(0, target="other"),
        run(0, benchmark_version=2),
        run(0, configuration=configuration(dtype="float16")),
        run(1),
    ]
    series = split_series(runs)
    assert [len(members) for members in series.values()] == [2, 1, 1, 1]
    assert series[series_key(runs[0])] == [runs[0], runs[4]]


def test_a_run_that_never_loaded_joins_the_series_with_its_configuration() -> None:
    loose = run(1, "E", configuration=configuration(backend="auto"))
    runs = [run(0), loose, run(2)]
    assert list(split_series(runs).values()) == [runs]


def test_a_run_that_never_loaded_gives_way_to_a_later_run_of_its_commit() -> None:
    loose = run(1, "E", configuration=configuration(backend="auto"))
    runs = [run(0), run(1), loose]
    assert list(split_series(runs).values()) == [runs[:2]]


def test_runs_that_never_loaded_stay_alone_where_nothing_else_fits() -> None:
    loose = run(0, "E", configuration=configuration(backend="auto"))
    other = run(0, configuration=configuration(dtype="float16"))
    assert list(split_series([loose, other]).values()) == [[loose], [other]]


def test_a_backend_named_auto_by_a_measured_run_is_a_series_of_its_own() -> None:
    measured = run(1, configuration=configuration(backend="auto"))
    assert len(split_series([run(0), measured])) == 2


def test_the_worst_error_comes_from_the_figures() -> None:
    assert worst_error(run(0, "F", similarity=0.75)) == 0.25
    assert worst_error(run(0, "E")) is None


def test_lost_sequences_are_seen_whatever_the_others_are() -> None:
    lost = run(0, "F", gates=(gate("coverage", passed=False),), similarity=0.99999)
    assert lacks_values(lost)
    assert not any(lacks_values(other) for other in history("PFENpf"))
