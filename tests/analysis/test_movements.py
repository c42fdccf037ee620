"""Figures that moved below the gates, and speed with its noise band."""

import random
from collections.abc import Sequence

import pytest

from tests.analysis.histories import environment, figures, run
from virnucpro_monitor.analysis.change_points import ChangeKind
from virnucpro_monitor.analysis.movements import (
    Figure,
    figure_value,
    find_movements,
    follow_figure,
)
from virnucpro_monitor.analysis.regressions import find_regressions
from virnucpro_monitor.records import Run
from virnucpro_monitor.report.sentences import movement_sentence, regressions_sentence


def speeds(seconds: Sequence[float], **changes: object) -> list[Run]:
    """One passed run for each packed time; 300 tokens, the unpacked side takes one second."""
    return [
        run(place, figures=figures(packed_s=s, unpacked_s=1.0), duration_s=10.0, **changes)
        for place, s in enumerate(seconds)
    ]


def noisy(level: float, number: int, seed: int = 0, sigma: float = 0.01) -> list[float]:
    generator = random.Random(seed)
    return [level * 10 ** generator.gauss(0.0, sigma) for _ in range(number)]


def test_each_figure_in_its_own_unit() -> None:
    one = run(
        0,
        figures=figures(
            1 - 1e-6,
            p01_similarity=1 - 1e-7,
            median_similarity=1 - 1e-8,
            max_packed_relative_l2=2e-3,
            max_unpacked_relative_l2=1e-3,
            packed_s=0.5,
            unpacked_s=2.0,
        ),
    )
    expected = {
        Figure.WORST: 1e-6,
        Figure.P01: 1e-7,
        Figure.MEDIAN: 1e-8,
        Figure.PACKED: 2e-3,
        Figure.UNPACKED: 1e-3,
        Figure.GAIN: 0.0,  # of the builder's gate
        Figure.THROUGHPUT: 600.0,
        Figure.SPEEDUP: 4.0,
        Figure.DURATION: 2.5,
    }
    assert {figure: figure_value(one, figure) for figure in Figure} == pytest.approx(
        expected, rel=1e-6, abs=1e-15
    )


def test_what_was_not_measured_has_no_value_rather_than_zero() -> None:
    for letter in "ENpf":
        assert all(figure_value(run(0, letter), figure) is None for figure in Figure)
    failed = run(0, "F")  # its time holds the trace
    assert figure_value(failed, Figure.DURATION) is None
    assert figure_value(failed, Figure.THROUGHPUT) == 600.0
    assert figure_value(run(0, figures=figures(packed_s=0.0)), Figure.THROUGHPUT) is None
    looked_up = figures(packed_s=1.5, unpacked_s=0.0003)  # no pass was made, older runs say
    assert figure_value(run(0, figures=looked_up), Figure.SPEEDUP) is None


@pytest.mark.parametrize(("number", "has_band"), [(1, False), (3, False), (40, True)])
def test_a_short_history_and_one_of_equal_values_have_no_movement(
    number: int, has_band: bool
) -> None:
    runs = [run(place) for place in range(number)]  # each with the same figures
    assert find_movements(runs) == ()
    (band, *_) = follow_figure(runs, Figure.WORST).bands or (None,)
    assert (band is not None) is has_band
    assert band is None or band.low < 1e-6 < band.high


def test_a_slow_down_is_found_where_it_is_with_its_band() -> None:
    runs = speeds(noisy(0.10, 30) + noisy(0.25, 20, seed=1))
    history = follow_figure(runs, Figure.THROUGHPUT)
    (movement,) = history.movements
    assert (movement.run, movement.kind, movement.is_worse) == (runs[30], ChangeKind.STEP, True)
    assert movement.before == pytest.approx(3000, rel=0.05)
    assert movement.after == pytest.approx(1200, rel=0.05)
    (band,) = history.bands
    assert band.start == 30
    assert band.low < 1200 < band.high
    assert band.high / band.low < 1.4
    assert sum(band.low <= value <= band.high for value in history.values[30:] if value) >= 19
    sentence = movement_sentence(movement)
    assert sentence.startswith("Tokens per second fell from ")
    assert sentence.endswith("at 0000000000 (2026-01-31): worse.")


def test_a_speed_up_is_better() -> None:
    (movement,) = follow_figure(speeds(noisy(0.2, 20) + noisy(0.1, 20)), Figure.SPEEDUP).movements
    assert movement.is_worse is False
    assert movement.after / movement.before == pytest.approx(2.0, rel=0.1)


def test_other_hardware_is_no_slow_down() -> None:
    slow = environment(host="node2")
    runs = speeds(noisy(0.1, 20)) + [
        run(20 + n, figures=figures(packed_s=s), environment=slow)
        for n, s in enumerate(noisy(0.3, 20))
    ]
    history = follow_figure(runs, Figure.THROUGHPUT)
    assert history.movements == ()
    assert [band.start for band in history.bands] == [0, 20]
    # The same card after an upgrade of torch is like hardware.
    upgraded = environment(torch="2.14.0")
    runs = [*runs[:20], *speeds(noisy(0.3, 20), environment=upgraded)]
    assert len(follow_figure(runs, Figure.THROUGHPUT).movements) == 1


def test_errors_and_skipped_runs_are_neither_joined_nor_zero() -> None:
    runs = speeds(noisy(0.1, 40))
    for place in (5, 15, 16, 17, 30):
        runs[place] = run(place, "E")
    runs[20] = run(20, "p", figures=figures(packed_s=9.0))
    history = follow_figure(runs, Figure.THROUGHPUT)
    assert history.movements == ()
    assert [place for place, value in enumerate(history.values) if value is None] == [
        5, 15, 16, 17, 20, 30,
    ]  # fmt: skip


def errors(levels: Sequence[float]) -> list[Run]:
    return [run(place, similarity=1 - error) for place, error in enumerate(levels)]


def test_a_step_below_the_gates_is_a_movement_and_no_incident() -> None:
    runs = errors(noisy(1e-7, 30, sigma=0.03) + noisy(1e-5, 15, seed=1, sigma=0.03))
    found = find_movements(runs)
    assert {movement.figure for movement in found} == {Figure.WORST, Figure.P01, Figure.MEDIAN}
    assert all(movement.run == runs[30] and movement.is_worse for movement in found)


def test_accuracy_under_another_protocol_is_no_movement() -> None:
    runs = errors(noisy(1e-7, 15, sigma=0.03))
    other = [
        run(15 + n, similarity=1 - e, protocol_digest="aa" * 32)
        for n, e in enumerate(noisy(1e-5, 15, sigma=0.03))
    ]
    assert find_movements([*runs, *other]) == ()


def test_a_short_or_constant_history_says_nothing() -> None:
    assert find_movements(errors([1e-7, 1e-3, 1e-7])) == ()
    assert find_movements(errors([1e-7] * 50)) == ()
    assert find_movements([]) == ()
    assert follow_figure(errors([1e-7] * 9), Figure.WORST).bands == ()


def test_regressions_tell_what_moved_in_their_range() -> None:
    runs = speeds(noisy(0.10, 30) + noisy(0.25, 20, seed=1))
    found = find_regressions(runs, [], since=runs[20].commit)
    assert {one.movement.figure for one in found.moved} == {Figure.THROUGHPUT, Figure.SPEEDUP}
    assert "2 figures moved below the gates, 2 for the worse" in regressions_sentence(found)
    assert find_regressions(runs, [], since=runs[40].commit).moved == ()
    assert find_regressions(runs, [], until=runs[29].commit).moved == ()


def test_regressions_tell_where_a_side_left_the_truth() -> None:
    runs = [
        run(n, figures=figures(max_packed_relative_l2=d, max_unpacked_relative_l2=1e-3))
        for n, d in enumerate([1.63e-3, 2.06e-3, 1.63e-3])
    ]
    found = find_regressions(runs, [], since=runs[0].commit, until=runs[1].commit)
    assert [(one.after, one.base, one.head) for one in found.accuracy] == [
        (runs[1], 1.63e-3, 2.06e-3)
    ]
