import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.analysis.histories import (
    configuration,
    environment,
    gate,
    run,
    sequences,
)
from virnucpro_monitor.analysis.comparison import (
    MARK_MEANINGS,
    Comparison,
    Mark,
    Noise,
    Thresholds,
    compare_runs,
)
from virnucpro_monitor.records import Outcome, SequenceResult


def compare(base: dict[str, float | None], head: dict[str, float | None]) -> Comparison:
    return compare_runs(run(0), sequences(base), run(1), sequences(head))


def marks(comparison: Comparison) -> dict[str, str]:
    return {change.sequence_id: change.mark.value for change in comparison.sequences}


def test_each_mark_has_its_meaning() -> None:
    assert set(MARK_MEANINGS) == set(Mark)
    comparison = compare(
        {
            "breaks": 1 - 1e-6,
            "slips": 0.9999,
            "vanishes": 0.9999,
            "mended": 0.99,
            "worse": 1 - 1e-6,
            "better": 1 - 1e-4,
            "noisy": 1 - 1.0e-6,
            "equal": 1 - 1e-6,
        },
        {
            "breaks": 0.99,
            "slips": 0.997,
            "vanishes": None,
            "mended": 0.99999,
            "worse": 1 - 1e-4,
            "better": 1 - 1e-6,
            "noisy": 1 - 1.2e-6,
            "equal": 1 - 1e-6,
        },
    )
    assert marks(comparison) == {
        "breaks": "!",
        "slips": "!",
        "vanishes": "!",
        "mended": "*",
        "worse": "+",
        "better": "-",
        "noisy": "~",
        "equal": " ",
    }


def test_a_change_that_a_percentage_would_not_see_is_seen() -> None:
    comparison = compare({"a": 1 - 1e-6}, {"a": 1 - 1e-4})
    assert comparison.sequences[0].mark is Mark.WORSE
    assert comparison.sequences[0].decades == pytest.approx(2.0, abs=1e-6)


def test_failing_before_and_after_is_told_by_size() -> None:
    comparison = compare(
        {"lower": 0.9, "higher": 0.5, "half mended": 0.9, "came back": None, "gone": None},
        {"lower": 0.5, "higher": 0.9, "half mended": 0.997, "came back": 0.9, "gone": None},
    )
    assert marks(comparison) == {
        "lower": "+",
        "higher": "-",
        "half mended": "*",
        "came back": "-",
        "gone": " ",
    }


def test_the_strict_threshold_itself_is_not_above_strict() -> None:
    comparison = compare({"a": 0.9991}, {"a": 0.999})
    assert comparison.sequences[0].mark is Mark.NEWLY_FAILING
    assert comparison.head.num_strict == 0
    assert comparison.head.num_failed == 0


def test_only_common_sequences_are_counted() -> None:
    comparison = compare({"a": 0.5, "b": 0.9999}, {"b": 0.9999, "c": 0.5, "d": 0.5})
    assert (comparison.num_common, comparison.num_all) == (1, 4)
    assert comparison.only_in_base == ("a",)
    assert comparison.only_in_head == ("c", "d")
    assert (comparison.base.num_strict, comparison.head.num_strict) == (1, 1)
    assert (comparison.base.num_sequences, comparison.head.num_sequences) == (2, 3)
    assert comparison.head.worst_error == pytest.approx(1e-4)
    assert comparison.counts()[Mark.NOT_COMPARABLE] == 3


def test_one_id_with_another_length_is_another_sequence() -> None:
    comparison = compare_runs(
        run(0), sequences({"a": 0.5}, length=100), run(1), sequences({"a": 0.9999}, length=101)
    )
    assert comparison.sequences[0].mark is Mark.NOT_COMPARABLE


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"protocol_digest": "aa" * 32}, "protocols"),
        ({"benchmark_version": 2}, "benchmark sets or versions"),
        ({"benchmark_digest": "aa" * 32}, "benchmark sets or versions"),
        ({"configuration": configuration(weights_digest="bb" * 32)}, "weights"),
        ({"configuration": configuration(dtype="bfloat16")}, "dtypes"),
        ({"configuration": configuration(model="esm2_t12_35M_UR50D")}, "models"),
        ({"target": "other"}, "targets"),
    ],
)
def test_what_is_not_comparable_is_said(changes: dict[str, object], word: str) -> None:
    comparison = compare_runs(
        run(0), sequences({"a": 0.9}), run(1, **changes), sequences({"a": 0.9})
    )
    assert not comparison.comparable
    assert word in comparison.reasons[0]
    assert comparison.differences[0].prevents_comparison
    assert comparison.num_common == 1  # still set side by side


def test_another_environment_and_backend_are_named_but_can_be_compared() -> None:
    head = run(
        1, environment=environment(torch="2.14.0"), configuration=configuration(backend="auto")
    )
    comparison = compare_runs(run(0), sequences({"a": 0.9999}), head, sequences({"a": 0.9999}))
    assert comparison.comparable
    assert {str(difference) for difference in comparison.differences} == {
        "torch: 2.13.0 → 2.14.0",
        "backend: sdpa → auto",
    }


def test_a_run_without_measures_cannot_be_compared() -> None:
    comparison = compare_runs(run(0), sequences({"a": 0.9999}), run(1, "E"), [])
    assert not comparison.comparable
    assert comparison.reasons == ("The head run holds no measures (error: A reason for error.).",)
    assert comparison.verdict == "unknown"
    assert comparison.only_in_base == ("a",)


@pytest.mark.parametrize(
    ("letters", "verdict"),
    [
        ("PF", "broke"),
        ("FP", "fixed"),
        ("PP", "still passing"),
        ("FF", "still failing"),
        ("Pf", "broke"),
        ("EP", "unknown"),
        ("PN", "unknown"),
    ],
)
def test_the_verdict_change(letters: str, verdict: str) -> None:
    base, head = (run(place, letter) for place, letter in enumerate(letters))
    assert compare_runs(base, [], head, []).verdict == verdict


def test_an_inherited_run_stands_on_the_measurement_it_inherits() -> None:
    measured = run(0, "F")
    results = sequences({"a": 0.5})
    comparison = compare_runs(measured, results, run(1, "f"), results, head_measured=measured)
    assert comparison.is_same_measurement
    assert comparison.head.inherited
    assert not comparison.base.inherited
    assert comparison.head.outcome is Outcome.FAILED
    assert marks(comparison) == {"a": " "}
    assert not compare({"a": 0.5}, {"a": 0.5}).is_same_measurement


def test_gates_are_compared_by_pass_and_fail() -> None:
    base = run(0, gates=(gate("seed"), gate("gain", False), gate("leak"), gate("old")))
    head = run(1, gates=(gate("seed", False), gate("gain"), gate("leak", None), gate("new")))
    changes = compare_runs(base, [], head, []).gates
    assert [(change.name, change.mark.value) for change in changes] == [
        ("seed", "!"),
        ("gain", "*"),
        ("leak", "x"),
        ("new", "x"),
        ("old", "x"),
    ]


@pytest.mark.parametrize(
    ("before", "after", "mark"),
    [(0.1, 0.5, "+"), (0.5, 0.1, "-"), (0.1, 0.11, "~"), (0.1, 0.1, " "), (0.1, None, "~")],
)
def test_gates_that_fail_on_both_sides_are_told_apart_by_their_distance(
    before: float, after: float | None, mark: str
) -> None:
    base, head = (
        run(0, gates=(gate("seed", False, before),)),
        run(1, gates=(gate("seed", False, after),)),
    )
    (change,) = compare_runs(base, [], head, []).gates
    assert change.mark.value == mark


def test_a_gate_that_holds_on_both_sides_is_never_marked_by_size() -> None:
    base, head = (
        run(0, gates=(gate("seed", True, 1e-9),)),
        run(1, gates=(gate("seed", True, 1e-4),)),
    )
    (change,) = compare_runs(base, [], head, []).gates
    assert change.mark.value == "~"


def test_a_measured_noise_floor_hides_what_lies_below_it() -> None:
    base, head = sequences({"a": 1 - 1e-9}), sequences({"a": 1 - 1e-7})
    assert compare_runs(run(0), base, run(1), head).sequences[0].mark is Mark.WORSE
    noisy = compare_runs(run(0), base, run(1), head, noise=Noise(floor=1e-6))
    assert noisy.sequences[0].mark is Mark.WITHIN_NOISE


def test_the_noise_floor_comes_from_what_reordering_a_pack_moves() -> None:
    documents = [None, {"reordered": None}, {"reordered": 2e-3, "packed_repeat": 0.0}]
    assert Noise.of_documents(documents).floor == pytest.approx(2e-6)
    assert Noise.of_documents([{"reordered": 0.0}]) == Noise()
    assert Noise.of_documents([]) == Noise()


def test_thresholds_come_from_the_protocol() -> None:
    content = {"thresholds": {"strict": 0.9999, "lenient": 0.999}}
    assert Thresholds.of_protocol(content) == Thresholds(strict=0.9999, lenient=0.999)
    assert Thresholds.of_protocol({}) == Thresholds()


# Property tests against a plain twin that decides by the words of the meanings alone.

similarity = st.one_of(
    st.none(),
    st.floats(0.0, 1.0),
    st.floats(0.99, 1.0),
    st.floats(-12.0, -1.0).map(lambda exponent: 1 - 10**exponent),
)
results = st.dictionaries(st.sampled_from([f"s{n}" for n in range(8)]), similarity).map(sequences)


def plain_mark(base: float | None, head: float | None) -> str:
    kept_before = [base is not None and base > 0.999, base is not None and base >= 0.995]
    kept_after = [head is not None and head > 0.999, head is not None and head >= 0.995]
    if kept_before != kept_after:
        return "*" if sum(kept_after) > sum(kept_before) else "!"
    if base is None or head is None:
        return " " if base == head else "+" if head is None else "-"
    ratio = max(1 - head, 1e-12) / max(1 - base, 1e-12)
    if abs(math.log10(ratio)) < 0.3:
        return " " if head == base else "~"
    return "+" if ratio > 1 else "-"


@given(results, results)
def test_marks_equal_the_plain_twin(base: list[SequenceResult], head: list[SequenceResult]) -> None:
    comparison = compare_runs(run(0), base, run(1), head)
    before = {result.sequence_id: result.similarity for result in base}
    after = {result.sequence_id: result.similarity for result in head}
    assert marks(comparison) == {
        name: plain_mark(before[name], after[name]) for name in after if name in before
    }
    assert set(comparison.only_in_base) == before.keys() - after.keys()
    assert set(comparison.only_in_head) == after.keys() - before.keys()
    assert sum(comparison.counts().values()) == comparison.num_all


@given(results, results, st.randoms())
def test_order_does_not_matter(
    base: list[SequenceResult], head: list[SequenceResult], random: object
) -> None:
    shuffled = list(base)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    one = compare_runs(run(0), base, run(1), head)
    other = compare_runs(run(0), shuffled, run(1), head)
    assert one.sequences == other.sequences
    assert one.counts() == other.counts()


@given(results, results)
def test_swapping_the_sides_swaps_worse_and_better(
    base: list[SequenceResult], head: list[SequenceResult]
) -> None:
    there = compare_runs(run(0), base, run(1), head)
    back = compare_runs(run(1), head, run(0), base)
    grown = {c.sequence_id for c in there.sequences if c.mark in (Mark.WORSE, Mark.NEWLY_FAILING)}
    shrunk = {c.sequence_id for c in back.sequences if c.mark in (Mark.BETTER, Mark.NEWLY_FIXED)}
    assert grown == shrunk


@given(results)
def test_a_run_equals_itself(base: list[SequenceResult]) -> None:
    comparison = compare_runs(run(0), base, run(0), base)
    assert set(marks(comparison).values()) <= {" "}
    assert comparison.is_same_measurement
