import math
import random
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from virnucpro_monitor.analysis.change_points import (
    ChangeKind,
    ChangePoints,
    _segment,
    find_changes,
    noise_scale,
)
from virnucpro_monitor.analysis.series import log10_error


def find_change_points(errors: list[float | None], **options: float) -> ChangePoints:
    """Changes of level of errors, which are looked for in decades."""
    return find_changes([None if e is None else log10_error(e) for e in errors], **options)


def noisy(level: float, number: int, *, seed: int = 0, sigma: float = 0.05) -> list[float | None]:
    """`number` errors around 10**level."""
    generator = random.Random(seed)
    return [10 ** generator.gauss(level, sigma) for _ in range(number)]


def test_a_short_history_is_said_to_be_short() -> None:
    found = find_change_points([1e-5] * 9)
    assert (found.enough_history, found.num_values, found.points) == (False, 9, ())
    assert find_change_points([1e-5] * 9 + [None] * 50).num_values == 9
    assert find_change_points([]).enough_history is False


@pytest.mark.parametrize("number", [10, 30, 100, 1000])
def test_clean_noise_has_no_change(number: int) -> None:
    for seed in range(20):
        assert find_change_points(noisy(-5, number, seed=seed)).points == ()


def test_a_constant_series_has_no_change() -> None:
    assert find_change_points([1e-6] * 40).points == ()
    assert find_change_points([0.0] * 40).points == ()


@pytest.mark.parametrize("number", [10, 50, 300])
@pytest.mark.parametrize("decades", [0.5, 1.0, -1.0, 4.0])
def test_a_step_is_found_where_it_is(number: int, decades: float) -> None:
    errors = noisy(-5, number) + noisy(-5 + decades, number, seed=1)
    (point,) = find_change_points(errors).points
    assert point.kind is ChangeKind.STEP
    assert abs(point.place - number) <= 1
    assert point.decades == pytest.approx(decades, abs=0.1)


@pytest.mark.parametrize("number", range(5, 32))
def test_a_step_in_the_middle_of_a_short_history_is_one_step(number: int) -> None:
    """As many values on either side: there is no level between the two."""
    for decades in (2.0, 0.5, -1.0):
        (point,) = find_changes([-5.0] * number + [-5.0 + decades] * number).points
        assert (point.place, point.kind) == (number, ChangeKind.STEP)
        assert (point.before, point.after) == (-5.0, -5.0 + decades)


def test_a_jump_in_the_last_run_is_found() -> None:
    (point,) = find_change_points([*noisy(-5, 40), 1e-4]).points
    assert (point.place, point.kind, point.num_after) == (40, ChangeKind.STEP, 1)


@pytest.mark.parametrize("number", [40, 200, 1000])
@pytest.mark.parametrize("length", [1, 2, 3, 5, 10])
@pytest.mark.parametrize("decades", [4.0, -1.0])
def test_a_burst_that_was_mended_is_found(number: int, length: int, decades: float) -> None:
    half = number // 2
    errors = noisy(-5, half) + noisy(-5 + decades, length, seed=1) + noisy(-5, half, seed=2)
    (point,) = find_change_points(errors).points
    assert point.kind is ChangeKind.BURST
    assert (point.place, point.end, point.num_after) == (half, half + length, length)
    assert point.decades == pytest.approx(decades, abs=0.15)


def test_a_long_stretch_off_the_level_is_a_step_there_and_a_step_back() -> None:
    errors = noisy(-5, 50) + noisy(-4, 30, seed=1) + noisy(-5, 50, seed=2)
    points = find_change_points(errors).points
    assert [(point.place, point.kind) for point in points] == [
        (50, ChangeKind.STEP),
        (80, ChangeKind.STEP),
    ]


@pytest.mark.parametrize("seed", range(5))
def test_a_slow_drift_is_one_drift_and_no_stairs(seed: int) -> None:
    """A hundredth of a decade each commit, a fifth of the noise."""
    generator = random.Random(seed)
    levels = [-5.0] * 80 + [-5 + 0.01 * n for n in range(60)] + [-4.4] * 80
    (point,) = find_change_points([10 ** generator.gauss(one, 0.05) for one in levels]).points
    assert point.kind is ChangeKind.DRIFT
    assert 60 <= point.place <= 100
    assert 120 <= point.end <= 160
    assert point.decades == pytest.approx(0.6, abs=0.1)


def test_heavy_tails_are_no_alarm() -> None:
    generator = random.Random(3)

    def student() -> float:
        spread = sum(generator.gauss(0, 1) ** 2 for _ in range(3)) / 3
        return 0.05 * generator.gauss(0, 1) / math.sqrt(spread)

    alarms = sum(
        len(find_change_points([10 ** (-5 + student()) for _ in range(300)]).points)
        for _ in range(10)
    )
    assert alarms <= 3  # of 3,000 commits: a run 16 times as far off as is usual is news


def test_long_series_are_cut_in_blocks_without_a_seam() -> None:
    errors = noisy(-5, 5000)
    for place in (300, 1020, 2500):  # the second lies where two blocks meet
        errors[place:] = [None if e is None else e * 3 for e in errors[place:]]
    points = find_change_points(errors).points
    assert [point.kind for point in points] == [ChangeKind.STEP] * 3
    for point, place in zip(points, (300, 1020, 2500), strict=True):
        assert abs(point.place - place) <= 1


def test_a_change_below_the_least_effect_is_not_reported() -> None:
    errors = noisy(-5, 200, sigma=0.01) + noisy(-4.85, 200, seed=1, sigma=0.01)
    assert find_change_points(errors).points == ()
    assert len(find_change_points(errors, min_effect_decades=0.1).points) == 1


def test_gaps_are_left_out_and_places_are_those_of_the_given_series() -> None:
    errors: list[float | None] = []
    for error in noisy(-5, 20) + noisy(-3, 20, seed=1):
        errors += [error, None]
    (point,) = find_change_points(errors).points
    assert point.place == 40


def test_zero_is_at_the_floor_and_not_infinitely_far() -> None:
    (point,) = find_change_points([0.0] * 20 + [1e-6] * 20).points
    assert (point.place, point.before) == (20, pytest.approx(-12.0))


def test_a_value_that_is_not_finite_never_reaches_the_detector() -> None:
    for value in (math.nan, math.inf, -math.inf):
        with pytest.raises(ValueError, match="not finite"):
            find_changes([0.0] * 20 + [value])


def test_the_noise_scale_ignores_steps() -> None:
    values = [random.Random(place).gauss(0, 0.1) + (5 if place > 50 else 0) for place in range(100)]
    assert noise_scale(values) == pytest.approx(0.1, rel=0.4)


def plain_segments(values: list[float], penalty: float) -> float:
    """Least cost over all segmentations, by dynamic programming."""

    def cost(start: int, end: int) -> float:
        part = values[start:end]
        mean = sum(part) / len(part)
        return sum((value - mean) ** 2 for value in part)

    best = [-penalty]
    for end in range(1, len(values) + 1):
        best.append(min(best[start] + cost(start, end) + penalty for start in range(end)))
    return best[-1]


@given(st.lists(st.integers(-40, 0).map(lambda n: n / 4), min_size=10, max_size=30))
def test_the_segmentation_is_optimal(values: list[float]) -> None:
    """Its cost is that of the plain dynamic programme; the bounds may differ where costs tie."""
    sigma, factor = 0.3, 8.0
    penalty = factor * math.log(len(values)) * sigma**2
    bounds = _segment(values, factor, sigma)
    cost = -penalty
    for start, end in pairwise(bounds):
        part = values[start:end]
        mean = sum(part) / len(part)
        cost += sum((value - mean) ** 2 for value in part) + penalty
    assert cost == pytest.approx(plain_segments(values, penalty), abs=1e-6)


def test_two_levels_of_equal_length_are_one_step() -> None:
    # No value lies near the running median, which is the middle of the two.
    for length in (5, 6):
        found = find_changes([0.0] * length + [1.0] * length)
        assert [(one.kind, one.place) for one in found.points] == [(ChangeKind.STEP, length)]
