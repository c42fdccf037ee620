"""What a verdict adds to its sentence: policies, oracles, limits of a family, cut sequences."""

from dataclasses import replace
from typing import Any

import pytest

from tests.store.builders import make_gate
from tests.validation.test_gate_records import far, limits_of
from tests.validation.test_gates import sequence
from virnucpro_monitor.records import Culprit, GateResult, Json, ProbeDocument, to_json
from virnucpro_monitor.validation.gates import judge_gates
from virnucpro_monitor.validation.verdict import judge, make_reason

WORD = "policy of lab since 2026-11-02: known"
SEED = make_gate("seed", True, detail="All 3 are similar; the lowest is a.")
SIMILAR = "all 3 are similar; the lowest is a"


def informing(name: str, passed: bool | None) -> GateResult:
    return make_gate(name, passed, informs=WORD, detail=f"{name.capitalize()} is off.")


def test_what_a_policy_lets_through_is_told_gate_by_gate() -> None:
    held, unknown, off = (
        informing(name, passed)
        for name, passed in (("mask", True), ("order", None), ("leak", False))
    )
    fine = "".join(
        f"; gate {name} informs by {WORD} ({found})"
        for name, found in (("mask", "it holds"), ("order", "it is not judged"))
    )
    assert make_reason([sequence(0)], [SEED, held, unknown], Culprit.NONE, {}) == (
        f"Packed equals unpacked: {SIMILAR}; all gates hold{fine}."
    )
    assert make_reason([sequence(0)], [SEED, held, off], Culprit.NONE, {}) == (
        f"Passed; gate mask informs by {WORD} (it holds); gate leak informs by {WORD} (leak is "
        f"off); {SIMILAR}; all other gates hold."
    )
    failed = make_gate("gain", False, detail="Gain is off.")
    assert make_reason([], [SEED, failed, held, off], Culprit.UNPACKED, {}) == (
        "Unpacked is the wrong side; gain is off; failed gate: gain; gate mask informs by "
        f"{WORD} (it holds); gate leak informs by {WORD} (leak is off)."
    )


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        ("fair-esm FP32", f"Packed equals unpacked: {SIMILAR}; all gates hold."),
        ("file:a.npz", f"Packed equals unpacked: {SIMILAR}; all gates hold against file:a.npz."),
        ("self-fp64", f"Packed equals unpacked: {SIMILAR}; all gates hold against self-fp64, which "
         "has any fault that both sides share."),
        ("none", "Packed equals unpacked, correctness unknown, since there is no oracle for this "
         f"model: {SIMILAR}; all gates that could be judged hold."),
    ],
)  # fmt: skip
def test_a_pass_says_what_it_was_held_against(kind: str, sentence: str) -> None:
    documents = {"oracle": {"kind": kind}}
    assert make_reason([sequence(0)], [SEED], Culprit.NONE, documents) == sentence


def test_a_gate_that_is_not_judged_is_not_said_to_hold() -> None:
    gates = [SEED, make_gate("embedding", None), make_gate("mask", None)]
    assert make_reason([sequence(0)], gates, Culprit.NONE, {}) == (
        f"Packed equals unpacked: {SIMILAR}; all gates but embedding, mask, not judged, hold."
    )


def test_where_nothing_is_judged_against_an_oracle_each_gate_says_so() -> None:
    documents = {"oracle": {"kind": "none"}}
    found = judge_gates([sequence(0)], documents, limits_of(), limits_name="float32")
    assert [gate for gate in found if gate.name in ("oracle", "ceiling", "baseline")] == [
        GateResult(
            name=name, passed=None, value=None, limit=None, unit="relative L2",
            detail="Not judged: there is no oracle for this model.",
        )
        for name in ("oracle", "ceiling", "baseline")
    ]  # fmt: skip


def test_another_oracle_is_named_in_each_sentence() -> None:
    def words(kind: str) -> tuple[str, str]:
        documents = {"oracle": {"kind": kind}}
        verdict = judge([far(0, 0.5, 1e-6)], documents, limits_of(), limits_name="float32")
        ceiling = next(gate for gate in verdict.gates if gate.name == "ceiling")
        return ceiling.detail, verdict.reason

    detail, reason = words("fair-esm FP32")
    assert detail.startswith("Packed's distance to FP32 (relative L2): above ")
    assert reason.startswith("Packed is the wrong side: unpacked is 500,000 x closer to FP32 than")
    for text, other in zip((detail, reason), words("file:a.npz"), strict=True):
        assert other == text.replace("FP32", "the oracle")
        assert "FP32" not in other


def test_a_family_is_judged_by_limits_of_its_own() -> None:
    def gain(**document: Any) -> GateResult:
        found = judge_gates(
            [sequence(0, gain=1 + 2**-9)], document, limits_of(gain=2**-10), limits_name="float32"
        )
        return next(gate for gate in found if gate.name == "gain")

    assert (gain().limit, gain().passed) == (2**-10, False)
    wider = gain(limits={"family": "prott5", "factor": 4.0})
    assert (wider.limit, wider.passed) == (2**-8, True)
    assert wider.detail.endswith(
        "up to 0.00391 is allowed. Provisional for prott5, 4 x ESM-2's by this run's own noise."
    )


def test_what_a_probe_counts_is_not_told_with_a_limit_where_it_holds() -> None:
    probe = {"value": 0.0, "unit": "sequences", "detail": "None differs."}
    found = judge_gates(
        [sequence(0)], {"probes": {"state": probe}}, limits_of(), limits_name="float32"
    )
    assert found[-1] == GateResult(
        name="state", passed=True, value=0.0, limit=0.0, unit="sequences", detail="None differs."
    )


def test_cut_sequences_are_counted_and_the_first_is_named() -> None:
    cut = [sequence(0), sequence(1, truncated=True, length=1022),
           sequence(2, truncated=True, length=510)]  # fmt: skip
    assert make_reason(cut, [SEED], Culprit.NONE, {}) == (
        f"Packed equals unpacked: {SIMILAR}; all gates hold; 2 of 3 sequences were cut to their "
        "first 1,022 residues (s1)."
    )


def test_where_both_are_wrong_each_has_its_own_gates() -> None:
    failing = [
        make_gate(name, False, culprit=side, detail=f"{name.capitalize()} is off.")
        for name, side in (
            ("leak", Culprit.PACKED), ("baseline", Culprit.UNPACKED), ("position", Culprit.PACKED),
            ("gain", Culprit.BOTH),
        )
    ]  # fmt: skip
    reason = make_reason([far(0, 0.5, 0.25)], [SEED, *failing], Culprit.BOTH, {})
    assert reason.startswith(
        "Both sides are wrong: packed fails leak, position and unpacked fails baseline; "
    )


def test_a_finding_after_changed_weights_says_whose_pass_changed_them() -> None:
    traced: dict[str, Json] = {"trace": {"finding": "it departs at layer 3"}}
    weights = make_gate("weights", False, culprit=Culprit.PACKED, detail="Weights changed.")

    def finding(gate: GateResult) -> str:
        return make_reason([], [SEED, gate], Culprit.PACKED, traced).split("; ")[1]

    assert finding(weights) == (
        "since a pass of packed changed the weights that both use, it departs at layer 3"
    )
    assert finding(replace(weights, culprit=Culprit.BOTH)) == "it departs at layer 3"
    traced["probes"] = {"state": to_json(ProbeDocument(value=0.1, spoils_unpacked=True))}
    assert finding(make_gate("state", False, culprit=Culprit.PACKED, detail="It moved.")) == (
        "since a pass of packed changed what unpacked gives, it departs at layer 3"
    )
