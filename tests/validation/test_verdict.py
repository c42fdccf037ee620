"""The verdict: outcome, culprit and one sentence."""

import pytest

from tests.protocols import with_content
from tests.validation.test_gates import lost, sequence
from virnucpro_monitor.errors import ProtocolError
from virnucpro_monitor.records import (
    Culprit,
    Outcome,
)
from virnucpro_monitor.validation.protocol import load_protocol
from virnucpro_monitor.validation.verdict import judge, percentile


def verdict_of(*results, limits_name="float32", **documents):
    return judge(results, documents, load_protocol(), limits_name=limits_name)


def test_a_healthy_run_passes_and_says_so() -> None:
    verdict = verdict_of(sequence(0), sequence(1))
    assert verdict.outcome is Outcome.PASSED
    assert verdict.culprit is Culprit.NONE
    assert verdict.reason.startswith("Packed equals unpacked")
    assert verdict.figures.seed_passed
    assert verdict.figures.strict_pass_rate == 1.0


def test_a_bad_half_precision_baseline_is_named_as_the_wrong_side() -> None:
    off = sequence(
        similarity=0.9988,
        packed_relative_l2=1.5e-3,
        unpacked_relative_l2=4.95e-3,
        relative_l2=4.9e-2,
    )
    limits = {"baseline": 1.0, "ceiling": 1.0, "floor": 1.0}

    def loosen(content: dict) -> None:
        content["limits"]["float16"].update(limits)

    verdict = judge([off], {}, with_content(load_protocol(), loosen), limits_name="float16")
    assert verdict.outcome is Outcome.FAILED
    assert verdict.culprit is Culprit.UNPACKED
    assert "Unpacked is the wrong side: packed is 3.3 x closer to FP32 than unpacked" in (
        verdict.reason
    )
    assert "0.9988" in verdict.reason


def test_both_sides_can_be_wrong() -> None:
    verdict = verdict_of(
        sequence(packed_relative_l2=0.3, unpacked_relative_l2=0.25, similarity=0.9)
    )
    assert verdict.culprit is Culprit.BOTH


def test_two_sides_as_near_to_fp32_as_healthy_ones_are_not_both_called_wrong() -> None:
    """They differ, which fails; but each alone holds its limit, so none is shown to be wrong."""
    verdict = verdict_of(
        sequence(packed_relative_l2=1e-6, unpacked_relative_l2=1.1e-6, similarity=0.9)
    )
    failed = {gate.name for gate in verdict.gates if gate.fails}
    assert "seed" in failed
    assert not failed & {"baseline", "ceiling"}
    assert verdict.reason.startswith(
        "Packed and unpacked differ: neither is clearly closer to FP32, so the wrong side is not "
        "known;"
    )


def test_where_each_side_fails_gates_of_its_own_they_are_told_by_side() -> None:
    """VirNucPro in float16: packed forgets <mask>, and `.half()` rounds fair-esm's frequencies."""
    probes = {
        "embedding": {"value": 0.7, "unit": "relative L2", "sides": [0.7, 0.0]},
        "probes": {"value": 0.5, "unit": "relative L2", "culprit": "unpacked"},
    }
    verdict = verdict_of(sequence(), probes=probes)
    assert verdict.culprit is Culprit.BOTH
    assert verdict.reason.startswith(
        "Both sides are wrong: packed fails embedding and unpacked fails probes;"
    )


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        ("none", "since there is no oracle for this model"),
        ("self-fp64", "since the oracle is unpacked itself in FP64"),
    ],
)
def test_no_side_is_told_to_be_wrong_by_what_only_compares_them(kind: str, why: str) -> None:
    off = sequence(
        similarity=0.9,
        packed_relative_l2=None if kind == "none" else 0.5,
        unpacked_relative_l2=None if kind == "none" else 1e-9,
    )
    oracle = {"kind": kind, "digest": ""}
    told = f"Packed does not give what unpacked gives, which counts as right, {why}; "
    assert verdict_of(off, oracle=oracle).reason.startswith(told)
    leak = {"leak": {"value": 1e-6, "unit": "max abs", "detail": "It moves."}}
    alone = verdict_of(off, oracle=oracle, probes=leak)
    assert alone.reason.startswith("Packed is the wrong side")


def test_a_passing_seed_rule_does_not_save_a_run_with_a_leak() -> None:
    probes = {"leak": {"value": 1e-6, "unit": "max abs", "detail": "It moves."}}
    verdict = verdict_of(sequence(), probes=probes)
    assert verdict.figures.seed_passed
    assert verdict.outcome is Outcome.FAILED
    assert verdict.culprit is Culprit.PACKED
    assert "failed gate: leak." in verdict.reason


def test_the_trace_speaks_in_the_reason() -> None:
    finding = "departs at the embedding: factor 1.136, looks like a missing 0.88 rescale"
    verdict = verdict_of(
        sequence(packed_relative_l2=0.1, similarity=0.99), trace={"finding": finding}
    )
    assert finding in verdict.reason


def test_figures_count_a_lost_sequence_as_failed() -> None:
    figures = verdict_of(sequence(0), lost(1)).figures
    assert (figures.num_strict, figures.num_failed) == (1, 1)
    assert figures.strict_pass_rate == 0.5
    assert figures.worst_sequence == "s1"
    assert figures.min_similarity is None


def test_a_dtype_without_limits_is_refused() -> None:
    with pytest.raises(ProtocolError, match="no limits for float64"):
        judge([sequence()], {}, load_protocol(), limits_name="float64")


def test_percentile_interpolates_linearly() -> None:
    assert percentile([4.0, 1.0, 3.0, 2.0], 0.5) == 2.5
    assert percentile([1.0], 0.01) == 1.0
    assert percentile([], 0.5) is None
