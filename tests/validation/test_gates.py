"""Gates: pure functions of stored measures."""

from dataclasses import replace

import pytest

from virnucpro_monitor.records import (
    Culprit,
    GateResult,
    PacksDocument,
    SequenceResult,
    SequenceStatus,
    Thresholds,
)
from virnucpro_monitor.validation import gates
from virnucpro_monitor.validation.protocol import load_protocol

SEED = Thresholds(0.999, 0.995, 0.01)


def sequence(index: int = 0, **changes: object) -> SequenceResult:
    healthy = SequenceResult(
        index=index,
        sequence_id=f"s{index}",
        length=10,
        similarity=1.0,
        packed_similarity=1.0,
        unpacked_similarity=1.0,
        relative_l2=1e-7,
        packed_relative_l2=1e-6,
        unpacked_relative_l2=1e-6,
        gain=1.0,
        worst_residue_similarity=1.0,
        p01_residue_similarity=1.0,
        worst_residue=3,
        max_abs_difference=1e-6,
        pack=0,
        slot=index,
        offset=0,
    )
    return replace(healthy, **changes)  # type: ignore[arg-type]


def lost(index: int = 0) -> SequenceResult:
    return SequenceResult(
        index=index, sequence_id=f"s{index}", length=10, status=SequenceStatus.LOST
    )


@pytest.mark.parametrize(
    ("count", "not_strict", "passed"),
    [
        (3, 0, True),
        (3, 1, False),
        (99, 1, False),
        (100, 1, True),
        (100, 2, False),
        (200, 2, True),
        (200, 3, False),
    ],
)
def test_seed_allows_floor_of_the_fraction(count: int, not_strict: int, passed: bool) -> None:
    results = [sequence(i, similarity=0.997 if i < not_strict else 1.0) for i in range(count)]
    assert gates.seed_gate(results, SEED).passed is passed


def test_seed_boundaries_are_exclusive_above_and_inclusive_below() -> None:
    assert not gates.seed_gate([sequence(similarity=0.999)], SEED).passed
    assert gates.seed_gate([sequence(similarity=0.9990001)], SEED).passed
    many = [sequence(i) for i in range(99)]
    assert gates.seed_gate([sequence(99, similarity=0.995), *many], SEED).passed
    assert not gates.seed_gate([sequence(99, similarity=0.9949999), *many], SEED).passed


@pytest.mark.parametrize("similarities", [[0.998] * 3, [0.9, 1.0, 1.0], [1.0] * 3])
def test_seed_value_and_limit_tell_the_result(similarities: list[float]) -> None:
    gate = gates.seed_gate([sequence(i, similarity=s) for i, s in enumerate(similarities)], SEED)
    assert gate.value is not None
    assert gate.limit is not None
    assert gate.passed is (gate.value > gate.limit)


def test_seed_never_skips_a_missing_similarity() -> None:
    results = [lost(0), *(sequence(i) for i in range(1, 300))]
    gate = gates.seed_gate(results, SEED)
    assert gate.passed is False
    assert gate.value is None
    assert gate.culprit is Culprit.PACKED


def test_seed_fails_where_there_is_nothing() -> None:
    assert gates.seed_gate([], SEED).passed is False


def test_seed_names_the_side_that_is_further_from_the_oracle() -> None:
    off = {"packed_relative_l2": 1.5e-2, "unpacked_relative_l2": 4.9e-2}
    gate = gates.seed_gate([sequence(similarity=0.9985, **off)], SEED)
    assert gate.culprit is Culprit.UNPACKED


def test_oracle_rule_is_per_sequence() -> None:
    good = sequence(0, packed_relative_l2=2e-3, unpacked_relative_l2=1e-3)
    bad = sequence(1, packed_relative_l2=2.2e-3, unpacked_relative_l2=1e-3)
    assert gates.oracle_gate([good], 2.0, 1e-4).passed
    gate = gates.oracle_gate([good, bad], 2.0, 1e-4)
    assert not gate.passed
    assert gate.culprit is Culprit.PACKED
    assert gate.value == pytest.approx(2e-4)
    assert "s1" in gate.detail


def test_a_missing_baseline_is_not_blamed_on_packed() -> None:
    gate = gates.oracle_gate([sequence(unpacked_relative_l2=None)], 2.0, 1e-4)
    assert gate.passed is False
    assert gate.culprit is Culprit.UNPACKED


def judged(results: list[SequenceResult], **documents: object) -> dict[str, GateResult]:
    found = gates.judge_gates(results, documents, load_protocol(), limits_name="float32")
    return {gate.name: gate for gate in found}


def test_a_broken_baseline_does_not_excuse_a_broken_packed_path() -> None:
    found = judged([sequence(packed_relative_l2=0.3, unpacked_relative_l2=0.2, similarity=0.95)])
    assert found["oracle"].passed
    assert found["ceiling"].passed is False
    assert found["ceiling"].culprit is Culprit.PACKED
    assert found["baseline"].passed is False
    assert found["baseline"].culprit is Culprit.UNPACKED


def test_a_lost_sequence_fails_every_packed_gate_and_not_the_baseline() -> None:
    found = judged([sequence(0), lost(1)])
    failing = {name for name, gate in found.items() if gate.passed is False}
    assert failing == {"coverage", "seed", "gain", "residue", "oracle", "ceiling"}


def test_unknown_ids_fail_coverage() -> None:
    gate = judged([sequence()], packs={"unknown_ids": ["stranger"]})["coverage"]
    assert gate.passed is False
    assert "stranger" in gate.detail


def test_one_ruined_residue_of_400_fails_though_the_pooled_cosine_passes() -> None:
    found = judged(
        [sequence(length=400, similarity=0.99999, worst_residue_similarity=0.3, worst_residue=41)],
        packs={"residue_errors": {"s0": [0.9, 1e-6]}},
    )
    assert found["seed"].passed
    assert found["residue"].passed is False
    assert found["residue"].culprit is Culprit.PACKED
    assert "residue 42 of 400" in found["residue"].detail


def test_a_gain_error_fails_though_the_cosine_is_one() -> None:
    found = judged([sequence(gain=1.01)])
    assert found["seed"].passed
    assert found["gain"].passed is False


def test_an_oracle_that_gives_no_distance_fails_its_gates() -> None:
    """A named oracle is asked for, whatever it gave: what is missing is no pass."""
    bare = sequence(packed_relative_l2=None, unpacked_relative_l2=None)
    found = judged([bare], oracle={"kind": "file:x.npz", "digest": "d"})
    assert [found[name].passed for name in ("oracle", "ceiling", "baseline")] == [False] * 3


def test_without_an_oracle_its_gates_are_left_out() -> None:
    bare = sequence(packed_relative_l2=None, unpacked_relative_l2=None)
    assert {"oracle", "ceiling", "baseline"}.isdisjoint(judged([bare]))


def test_probes_are_judged_exactly_or_by_limit_or_not_at_all() -> None:
    probes = {
        "leak": {"value": 1e-30, "unit": "max abs", "detail": "moved"},
        "position": {"value": 0.0, "detail": "still"},
        "order": {"value": None, "detail": ""},
        "embedding": {"value": 0.5, "sides": [1e-9, 0.5], "detail": "off"},
        "mask": {"value": None, "not_judged": "no mask"},
    }
    found = judged([sequence()], probes=probes)
    assert found["leak"].passed is False
    assert found["position"].passed is True
    assert found["order"].passed is False
    assert found["embedding"].culprit is Culprit.UNPACKED
    assert found["mask"].passed is None
    assert found["mask"].detail == "no mask"


def test_over_limit_is_the_ratio_on_the_error_scale() -> None:
    gate = gates.seed_gate([sequence(similarity=0.98)], SEED)
    assert gates.over_limit(gate) == pytest.approx(0.02 / (1 - (gate.limit or 0)))
    assert gates.over_limit(gates.coverage_gate([sequence()], PacksDocument())) is None


def test_a_sequence_not_finite_on_one_side_blames_that_side() -> None:
    ruined = sequence(
        1,
        status=SequenceStatus.NOT_FINITE,
        similarity=None,
        gain=None,
        relative_l2=None,
        worst_residue_similarity=None,
        packed_relative_l2=None,
    )
    found = judged([sequence(0), ruined])
    for name in ("seed", "gain", "residue"):
        assert found[name].passed is False
        assert found[name].culprit is Culprit.PACKED
    assert found["residue"].detail.startswith(
        "Difference of the worst residue, packed against unpacked (1 - cosine): unknown for 1 of 2 "
        "sequences (s1)"
    )
    assert "at residue" not in found["residue"].detail


def test_what_is_allowed_stands_beside_what_was_found() -> None:
    probes = {
        "leak": {"value": 0.0, "unit": "max abs", "detail": "It changes by 0."},
        "order": {"value": 1e-6, "unit": "relative L2", "detail": "It changes by 1.0e-06."},
    }
    found = judged([sequence(0)], probes=probes)
    assert found["leak"].detail == "It changes by 0; it must be exactly 0."
    limit = load_protocol().content["limits"]["float32"]["order"]
    assert found["order"].detail == f"It changes by 1.0e-06; up to {limit:.1e} is allowed."


def test_the_value_shown_is_the_one_that_decided() -> None:
    unknown = replace(sequence(1), gain=None)
    gate = judged([sequence(0), unknown])["gain"]
    assert gate.passed is False
    assert gate.value is None
    assert "unknown for 1 of 2 sequences" in gate.detail
