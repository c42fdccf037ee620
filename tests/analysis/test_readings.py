"""What is read off a run for charts, causes and comparisons, each reading as a whole."""

import math
from dataclasses import replace

import numpy as np
import pytest

from tests.store.builders import make_figures, make_gate, make_report, make_run
from virnucpro_monitor.analysis.causes import read_levels
from virnucpro_monitor.analysis.differences import find_differences
from virnucpro_monitor.analysis.moved import SideMoved, compare_embeddings, moved_sentence
from virnucpro_monitor.analysis.movements import Figure, figure_value
from virnucpro_monitor.analysis.trends import make_trend
from virnucpro_monitor.records import Culprit, Outcome, PooledEmbeddings, Run

BAD = (0.99, 1.0, 1.0)


def failed(culprit: Culprit, **changes: object) -> Run:
    gates = (
        make_gate("seed", False, 0.75, unit="cosine"),
        make_gate("gain", False, 0.01),
        make_gate("leak", False, None),
        make_gate("mask", True, 5.0),
    )
    run = make_report(0, BAD, outcome=Outcome.FAILED, culprit=culprit, gates=gates).run
    assert run.figures is not None
    figures = replace(run.figures, max_packed_relative_l2=0.1, max_unpacked_relative_l2=1e-3)
    return replace(run, figures=replace(figures, **changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("culprit", "distances"),
    [
        (Culprit.PACKED, {"packed distance": -1.0}),
        (Culprit.UNPACKED, {"unpacked distance": -3.0}),
        (Culprit.BOTH, {"packed distance": -1.0, "unpacked distance": -3.0}),
    ],
)
def test_how_wrong_a_run_is_by_gate_and_by_the_sides_at_fault(
    culprit: Culprit, distances: dict[str, float]
) -> None:
    expected = {"seed": math.log10(0.25), "gain": -2.0, "error": -2.0, **distances}
    assert read_levels(failed(culprit)) == pytest.approx(expected)
    # No number is worse than none, and zero has no logarithm.
    without = failed(culprit, min_similarity=None, max_packed_relative_l2=0.0)
    found = read_levels(without)
    assert found["error"] == 30.0
    assert "packed distance" not in found


def test_who_lets_a_gate_inform_is_a_difference() -> None:
    word = "policy of lab since 2026-11-02: known"
    base = replace(make_run(1), gates=(make_gate("mask"), make_gate("leak")))
    head = replace(
        make_run(2),
        gates=tuple(make_gate(name, informs=word) for name in ("mask", "leak")),
    )
    (one,) = find_differences(base, head)
    assert (one.kind, one.name, one.base) == ("protocol", "policy", None)
    assert one.head == f"mask by {word}; leak by {word}"
    assert str(one) == f"policy: none → mask by {word}; leak by {word}"
    assert find_differences(head, head) == ()


def test_a_trend_says_where_zero_stands_and_which_runs_lack_values() -> None:
    runs = [
        make_report(0, (0.99, 0.999, 1.0)).run,
        make_report(1, (None, 1.0, 1.0), outcome=Outcome.FAILED).run,
        replace(make_report(2, BAD).run, outcome=Outcome.ERROR, figures=None),
    ]
    assert runs[1].figures is not None
    runs[1] = replace(runs[1], figures=replace(runs[1].figures, min_similarity=None))
    trend = make_trend(runs)
    assert [point.lacks_values for point in trend.points] == [False, True, False]
    assert trend.zero_place == 1e-4  # below 1e-3, the least error that is not 0
    assert make_trend([]).zero_place == 1e-7


@pytest.mark.parametrize("value", [math.nan, math.inf, -1.0])
def test_what_is_no_size_is_not_followed(value: float) -> None:
    figures = replace(make_figures((1.0, 1.0, 1.0)), max_packed_relative_l2=value)
    run = replace(make_run(1), figures=figures)
    assert figure_value(run, Figure.PACKED) is None
    kept = replace(run, figures=replace(figures, max_packed_relative_l2=0.25))
    assert figure_value(kept, Figure.PACKED) == 0.25


def test_embeddings_that_were_nothing_have_moved_by_no_number() -> None:
    nothing = np.zeros((2, 4), dtype=np.float32)
    after = nothing.copy()
    after[1] = 1.0
    base = PooledEmbeddings(packed=nothing, unpacked=nothing)
    head = PooledEmbeddings(packed=after, unpacked=nothing)
    packed, unpacked = compare_embeddings(base, ["a", "b"], head, ["a", "b"], [])
    assert (packed.num_compared, packed.num_not_finite, packed.worst) == (1, 1, 0.0)
    assert (unpacked.num_compared, unpacked.num_not_finite, unpacked.worst) == (2, 0, 0.0)


def test_a_side_that_moved_within_the_noise_is_told_so() -> None:
    side = SideMoved(side="packed", num_compared=3, num_identical=1, num_not_finite=2,
                     worst=1e-7, noise=1e-6, most=())  # fmt: skip
    assert moved_sentence(side) == (
        "packed: 1 of 3 embeddings are bit-identical, the furthest moved by 1.0e-07 (relative L2), "
        "within the noise of 1.0e-06; 2 more have none that is finite"
    )
