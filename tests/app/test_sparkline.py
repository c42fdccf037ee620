"""The small chart on a card."""

import base64
import re

import pytest

from app.marks import MARKS
from app.sparkline import HEIGHT, WIDTH, sparkline
from virnucpro_monitor.records import Outcome, RunMark


def mark(
    outcome: Outcome, similarity: float | None = None, inherited: Outcome | None = None
) -> RunMark:
    return RunMark(
        target="t",
        benchmark="seed",
        benchmark_version=1,
        configuration="c",
        commit="abc",
        position=0,
        outcome=outcome,
        inherited_outcome=inherited,
        min_similarity=similarity,
    )


def drawing(*marks: RunMark, strict_error: float | None = 1e-3) -> str:
    code = sparkline(marks, strict_error).code
    return base64.b64decode(re.findall(r"base64,([^\"]+)", code)[0]).decode()


def heights(svg: str) -> list[float]:
    return [height for line in lines(svg) for height in line]


def lines(svg: str) -> list[list[float]]:
    """Heights along each line that is drawn without a break."""
    return [
        [float(point.split(",")[1]) for point in line.split()]
        for line in re.findall(r'points="([^"]*)"', svg)
    ]


def test_worse_runs_lie_higher_and_broken_ones_beyond_the_threshold() -> None:
    svg = drawing(
        mark(Outcome.PASSED, 0.9999999),
        mark(Outcome.PASSED, 0.99999),
        mark(Outcome.FAILED, 0.9),
    )
    good, fair, bad = heights(svg)
    limit = float(re.findall(r'class="limit".* y1="([\d.]+)"', svg)[0])
    assert 0 < bad < limit < fair < good < HEIGHT


def test_what_is_not_finite_lies_above_every_error_and_zero_below() -> None:
    svg = drawing(mark(Outcome.FAILED, None), mark(Outcome.FAILED, -0.5), mark(Outcome.PASSED, 1.0))
    lost, wrong, exact = heights(svg)
    assert 0 < lost < wrong < exact < HEIGHT


def test_each_outcome_has_its_own_shape_and_only_measured_ones_are_joined() -> None:
    marks = [
        mark(Outcome.PASSED, 1.0),
        mark(Outcome.ERROR),
        mark(Outcome.NOT_RUN),
        mark(Outcome.SKIPPED, inherited=Outcome.FAILED),
        mark(Outcome.FAILED, 0.5),
    ]
    svg = drawing(*marks)
    assert len(heights(svg)) == 2
    shapes = [
        re.sub(r"[\d.]+", "", re.findall(rf"<[^>]*{MARKS[outcome].colour}[^>]*/>", svg)[0])
        for outcome in Outcome
    ]
    assert len(set(shapes)) == len(Outcome)
    code = sparkline(marks, 1e-3).code
    assert 'alt="Worst error of the last 5 runs, 3 of them bad"' in code


@pytest.mark.parametrize("gap", [Outcome.ERROR, Outcome.NOT_RUN])
def test_the_line_breaks_where_nothing_was_measured(gap: Outcome) -> None:
    good = mark(Outcome.PASSED, 0.9999)
    skipped = mark(Outcome.SKIPPED, inherited=Outcome.PASSED)
    found = lines(drawing(good, good, mark(gap), mark(gap), good, skipped, good, good))
    assert [len(line) for line in found] == [2, 3]


@pytest.mark.parametrize("number", [1, 2, 40])
def test_the_newest_run_lies_at_the_right(number: int) -> None:
    svg = drawing(*[mark(Outcome.PASSED, 0.9999)] * number, strict_error=None)
    xs = [float(x) for x in re.findall(r'cx="([\d.]+)"', svg)]
    assert len(xs) == number
    assert xs == sorted(xs)
    assert xs[-1] == WIDTH - 7


def test_nothing_measured_is_an_empty_line() -> None:
    assert heights(drawing(mark(Outcome.ERROR), strict_error=None)) == []
