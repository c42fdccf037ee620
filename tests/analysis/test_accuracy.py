"""Each side's distance to FP32, beside the agreement of the two."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from tests.analysis.histories import environment, figures, run, sequences
from virnucpro_monitor.analysis.accuracy import (
    Movement,
    compare_accuracy,
    find_accuracy_moves,
    find_movement,
)
from virnucpro_monitor.analysis.comparison import Mark, compare_runs
from virnucpro_monitor.analysis.incidents import derive_incidents
from virnucpro_monitor.analysis.regressions import find_regressions
from virnucpro_monitor.records import SequenceResult
from virnucpro_monitor.report.sentences import comparison_sentence, regressions_sentence


def measured(
    similarity: float, packed: float | None, unpacked: float | None, ids: str = "ab"
) -> list[SequenceResult]:
    return [
        replace(one, packed_relative_l2=packed, unpacked_relative_l2=unpacked)
        for one in sequences(dict.fromkeys(ids, similarity))
    ]


@pytest.mark.parametrize(
    ("base", "head", "expected"),
    [
        (1.63e-3, 2.06e-3, Movement.FURTHER),
        (2.06e-3, 1.63e-3, Movement.CLOSER),
        (1.63e-3, 1.70e-3, Movement.SAME),
        (1e-8, 9e-7, Movement.SAME),  # both below FP32's own rounding
        (0.0, 1e-3, Movement.FURTHER),
        (None, 1e-3, Movement.UNKNOWN),
        (1e-3, None, Movement.UNKNOWN),
    ],
)
def test_movements(base: float | None, head: float | None, expected: Movement) -> None:
    assert find_movement(base, head) is expected


def test_closer_to_each_other_but_further_from_the_truth_is_not_better() -> None:
    """VirNucPro's d4b6197 against 3a8594a: the sides agree more, and packed is less accurate."""
    base = measured(1 - 2e-6, 1.63e-3, 1.2e-3)
    head = measured(1 - 5e-7, 2.06e-3, 1.2e-3)
    there = compare_runs(run(0), base, run(1), head)
    assert [change.mark for change in there.sequences] == [Mark.CLOSER_BUT_FURTHER] * 2
    packed, unpacked = there.accuracy
    assert (packed.base, packed.head, packed.num_further) == (1.63e-3, 2.06e-3, 2)
    assert (packed.movement, unpacked.movement) == (Movement.FURTHER, Movement.SAME)
    sentence = comparison_sentence(there)
    assert "0 better, 2 closer to each other but further from FP32" in sentence
    assert "packed is further from FP32 (worst relative L2 1.6e-3 → 2.1e-3)" in sentence
    back = compare_runs(run(0), head, run(1), base)
    assert [change.mark for change in back.sequences] == [Mark.WORSE] * 2
    assert "packed is closer to FP32" in comparison_sentence(back)


def test_closer_to_each_other_and_to_the_truth_is_better() -> None:
    base, head = measured(1 - 2e-6, 2e-3, 1e-3), measured(1 - 5e-7, 1e-3, 1e-3)
    there = compare_runs(run(0), base, run(1), head)
    assert [change.mark for change in there.sequences] == [Mark.BETTER] * 2


def test_without_an_oracle_agreement_is_all_there_is() -> None:
    base, head = measured(1 - 2e-6, None, None), measured(1 - 5e-7, None, None)
    there = compare_runs(run(0), base, run(1), head)
    assert [change.mark for change in there.sequences] == [Mark.BETTER] * 2
    assert [one.movement for one in there.accuracy] == [Movement.UNKNOWN] * 2
    assert "Accuracy" not in comparison_sentence(there)


def test_the_worst_distance_is_over_all_sequences_or_not_known() -> None:
    base = measured(1.0, 1e-3, 1e-3)
    lost = [base[0], replace(base[1], packed_relative_l2=None)]
    packed, unpacked = compare_accuracy(list(zip(base, lost, strict=True)))
    assert (packed.base, packed.head, packed.movement) == (1e-3, None, Movement.UNKNOWN)
    assert unpacked.movement is Movement.SAME
    assert [one.movement for one in compare_accuracy([])] == [Movement.UNKNOWN] * 2


def moves(distances: Sequence[float], **changes: object) -> list[tuple[str, int, str]]:
    runs = [
        run(
            place,
            figures=figures(max_packed_relative_l2=packed, max_unpacked_relative_l2=1e-3),
            **(changes if place == 1 else {}),
        )
        for place, packed in enumerate(distances)
    ]
    return [
        (one.side.value, one.after.commit.position or 0, one.movement.name)
        for one in find_accuracy_moves(runs)
    ]


def test_moves_along_a_series() -> None:
    assert moves([1.63e-3, 2.06e-3, 2.05e-3, 1.63e-3]) == [
        ("packed", 1, "FURTHER"),
        ("packed", 3, "CLOSER"),
    ]
    # Another environment, protocol or benchmark content is another yardstick.
    assert moves([1e-3, 2e-3], environment=environment(torch="2.14.0")) == []
    assert moves([1e-3, 2e-3], protocol_digest="aa" * 32) == []
    assert moves([1e-3, 2e-3], benchmark_digest="aa" * 32) == []


def test_the_head_line_counts_what_moved_to_or_from_fp32() -> None:
    runs = [
        run(place, figures=figures(max_packed_relative_l2=packed, max_unpacked_relative_l2=1e-3))
        for place, packed in enumerate([1.63e-3, 2.06e-3, 2.05e-3, 1.63e-3])
    ]
    found = find_regressions(runs, [])
    assert len(found.accuracy) == 2
    assert "2 figures moved below the gates, 1 for the worse" in regressions_sentence(found)


def test_what_an_incident_tells_of_is_not_told_as_a_move_below_the_gates() -> None:
    runs = [
        run(
            place,
            letter,
            figures=figures(max_packed_relative_l2=packed, max_unpacked_relative_l2=1e-3),
        )
        for place, (letter, packed) in enumerate(
            [("P", 1e-3), ("F", 0.5), ("P", 1e-3), ("P", 2e-3)]
        )
    ]
    incidents = derive_incidents(runs, now=datetime(2026, 6, 1, tzinfo=UTC))
    found = find_regressions(runs, incidents)
    assert [one.after.commit.position for one in found.accuracy] == [3]
    assert [one.after.commit.position for one in find_regressions(runs, []).accuracy] == [1, 2, 3]
