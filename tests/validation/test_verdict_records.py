"""The verdict's parts, each as a whole: figures, sides, the sentence and what it quotes."""

from dataclasses import replace
from typing import Any

import pytest

from tests.protocols import without_own_noise
from tests.store.builders import make_gate
from tests.validation.test_gate_records import BOTH, PACKED, UNPACKED, far, judged, limits_of
from tests.validation.test_gates import SEED, lost, sequence
from virnucpro_monitor.records import (
    Culprit,
    Figures,
    GateResult,
    Outcome,
    PacksDocument,
    SequenceResult,
)
from virnucpro_monitor.validation.verdict import (
    compare_sides,
    find_culprit,
    judge,
    make_figures,
    make_reason,
    most_telling,
)

NONE = Culprit.NONE


def failing(name: str, culprit: Culprit | None = None, **changes: Any) -> GateResult:
    values = {"limit": 0.5, "culprit": culprit, "detail": f"{name.capitalize()} is off."}
    return replace(make_gate(name, False, 1.0, **values), **changes)


def test_figures_are_rolled_up_from_the_sequences() -> None:
    similarities = (1.0, 0.999, 0.995, 0.9)
    results = [
        sequence(i, similarity=one, packed_relative_l2=i / 8, unpacked_relative_l2=i / 16)
        for i, one in enumerate(similarities)
    ]
    packs = PacksDocument(num_tokens=48, packed_s=1.5, unpacked_s=2.5)
    assert make_figures(results, packs, [failing("seed")], SEED) == Figures(
        num_sequences=4,
        num_tokens=48,
        num_strict=1,  # 0.999 itself is not above strict
        num_failed=1,  # 0.995 itself is not below lenient
        strict_pass_rate=0.25,
        min_similarity=0.9,
        p01_similarity=pytest.approx(0.9 + 0.03 * 0.095),
        median_similarity=pytest.approx(0.997),
        max_similarity=1.0,
        worst_sequence="s3",
        seed_passed=False,
        max_packed_relative_l2=0.375,
        max_unpacked_relative_l2=0.1875,
        unpacked_s=2.5,
        packed_s=1.5,
    )


def test_no_number_stands_for_a_missing_one() -> None:
    results = [sequence(0, similarity=0.5), lost(1), lost(2)]
    figures = make_figures(results, PacksDocument(), [], SEED)
    assert figures.min_similarity is None
    assert figures.worst_sequence == "s1"
    assert figures.max_similarity == 0.5
    assert (figures.p01_similarity, figures.median_similarity) == (None, None)
    assert (figures.num_strict, figures.num_failed) == (0, 3)
    assert (figures.max_packed_relative_l2, figures.max_unpacked_relative_l2) == (None, 1e-6)
    figures = make_figures([], PacksDocument(), [], SEED)
    assert (figures.num_sequences, figures.strict_pass_rate) == (0, 0.0)
    assert (figures.min_similarity, figures.max_similarity, figures.worst_sequence) == (
        None, None, None,
    )  # fmt: skip
    assert (figures.p01_similarity, figures.max_packed_relative_l2) == (None, None)


def test_the_seed_s_own_result_is_the_seed_gate_s() -> None:
    def seed_passed(*gates: GateResult) -> bool:
        return make_figures([sequence(0)], PacksDocument(), gates, SEED).seed_passed

    held = failing("seed", passed=True)
    assert seed_passed(failing("leak"), held)
    assert not seed_passed(failing("leak", passed=True), failing("seed"))
    assert not seed_passed(failing("seed", passed=None))
    assert not seed_passed(failing("leak", passed=True))


# seed, gain and residue infer their side, oracle and leak know it.
@pytest.mark.parametrize(
    ("gates", "spoilt", "culprit"),
    [
        ([], False, NONE),
        ([], True, NONE),
        ([failing("gain")], False, PACKED),
        ([failing("gain", UNPACKED)], False, UNPACKED),
        ([failing("gain", UNPACKED)], True, PACKED),
        ([failing("gain", UNPACKED), failing("oracle", PACKED)], False, PACKED),
        ([failing("gain", UNPACKED), failing("oracle")], False, UNPACKED),
        ([failing("baseline", UNPACKED), failing("leak", PACKED)], False, BOTH),
        ([failing("gain", PACKED), failing("residue", UNPACKED)], False, BOTH),
    ],
)
def test_one_culprit(gates: list[GateResult], spoilt: bool, culprit: Culprit) -> None:
    assert find_culprit(gates, spoilt=spoilt) is culprit


@pytest.mark.parametrize(
    ("results", "packed", "unpacked", "culprit"),
    [
        ([sequence(0)], "passed", "passed", NONE),
        ([far(0, 0.5, 1e-6)], "failed", "passed", PACKED),
        ([far(0, 1e-6, 0.5)], "passed", "failed", UNPACKED),
        ([far(0, 0.5, 0.5)], "failed", "failed", BOTH),
    ],
)
def test_each_side_has_an_outcome(results, packed, unpacked, culprit) -> None:
    documents = {"packs": {"num_tokens": 12}}
    verdict = judge(results, documents, without_own_noise(), limits_name="float32")
    assert (verdict.packed_outcome, verdict.unpacked_outcome) == (packed, unpacked)
    assert verdict.culprit is culprit
    assert verdict.outcome is (Outcome.PASSED if culprit is NONE else Outcome.FAILED)
    assert (verdict.sequences, verdict.documents) == (tuple(results), documents)
    assert {gate.name: gate for gate in verdict.gates} == judged(results)
    assert verdict.figures == make_figures(
        results, PacksDocument(num_tokens=12), verdict.gates, SEED
    )
    assert verdict.reason == make_reason(results, verdict.gates, culprit, documents)


def test_a_packed_side_that_spoils_the_other_is_the_culprit_of_all() -> None:
    probes = {"state": {"value": 1.0, "unit": "sequences", "spoils_unpacked": True}}
    results = [far(0, 1e-6, 0.5)]
    verdict = judge(results, {"probes": probes}, limits_of(), limits_name="float32")
    assert verdict.culprit is PACKED
    assert (verdict.packed_outcome, verdict.unpacked_outcome) == ("failed", "passed")
    probes["state"]["spoils_unpacked"] = False
    verdict = judge(results, {"probes": probes}, limits_of(), limits_name="float32")
    assert verdict.culprit is BOTH


def apart(index: int, relative_l2: float | None, packed: float, unpacked: float) -> SequenceResult:
    return replace(far(index, packed, unpacked), relative_l2=relative_l2)


@pytest.mark.parametrize(
    ("results", "culprit", "text"),
    [
        ([apart(0, 0.5, 0.5, 0.125)], PACKED, "unpacked is 4.0 x closer to FP32 than packed"),
        ([apart(0, 0.5, 0.125, 0.5)], UNPACKED, "packed is 4.0 x closer to FP32 than unpacked"),
        ([apart(0, 0.5, 0.5, 0.0)], PACKED, "unpacked equals FP32 exactly"),
        ([apart(0, 0.5, 0.0, 0.5)], UNPACKED, "packed equals FP32 exactly"),
        ([apart(0, 0.5, 99.75, 1.0)], PACKED, "unpacked is 99.8 x closer to FP32 than packed"),
        ([apart(0, 0.5, 100.0, 1.0)], PACKED, "unpacked is 100 x closer to FP32 than packed"),
        ([apart(0, 0.5, 12345.0, 1.0)], PACKED, "unpacked is 12,345 x closer to FP32 than packed"),
        ([apart(0, 0.5, 0.5, 0.5)], BOTH, "neither is clearly closer to FP32"),
        ([apart(0, 0.5, 0.5, 0.125)], BOTH, "unpacked is 4.0 x closer to FP32 than packed"),
        # What would not bear out the culprit is not said.
        ([apart(0, 0.5, 0.5, 0.125)], UNPACKED, ""),
        ([apart(0, 0.5, 0.5, 0.5)], PACKED, ""),
        ([apart(0, 0.5, 0.5, 0.125)], NONE, ""),
        # It is read off where the sides differ most, of those whose distances are known.
        (
            [apart(0, 0.25, 0.125, 0.5), apart(1, 0.5, 0.5, 0.125), apart(2, None, 0.125, 0.5)],
            PACKED,
            "unpacked is 4.0 x closer to FP32 than packed",
        ),
        (
            [far(0, None, 0.5), far(1, 0.5, None), apart(2, 1e-9, 0.5, 0.125)],
            PACKED,
            "unpacked is 4.0 x closer to FP32 than packed",
        ),
        ([far(0, None, 0.5), far(1, 0.5, None)], PACKED, ""),
        ([], PACKED, ""),
    ],
)
def test_how_much_closer_a_side_is(results, culprit, text) -> None:
    assert compare_sides(results, culprit) == text


def test_what_is_quoted_is_what_everybody_understands_first() -> None:
    leak, baseline, oracle = failing("leak"), failing("baseline"), failing("oracle")
    assert most_telling([oracle, baseline, leak]) is leak
    assert most_telling([oracle, baseline]) is baseline
    near, far_over = failing("oracle"), failing("ceiling", value=5.0)
    assert most_telling([near, far_over]) is far_over
    unknown = failing("position", value=None)
    assert most_telling([near, unknown]) is unknown  # not finite: no excess is larger


def test_the_sentence_of_a_run_that_passed_is_the_seed_s() -> None:
    gates = [
        failing("leak", passed=True),
        failing("mask", passed=None),
        failing("seed", passed=True, detail="All 3 are similar; the lowest is a."),
    ]
    assert make_reason([sequence(0)], gates, NONE, {}) == (
        "Packed equals unpacked: all 3 are similar; the lowest is a; all gates but mask, not "
        "judged, hold."
    )
    said = make_reason([sequence(0)], gates[1:], NONE, {"packs": {}})
    assert said.endswith("all gates that need no probes but mask, not judged, hold.")


CLOSER = "unpacked is 4.0 x closer to FP32 than packed"
LOOKS = {"probes": {"embedding": {"looks_like": "a missing 0.88 rescale"}}}


@pytest.mark.parametrize(
    ("names", "culprit", "documents", "sentence"),
    [
        (["leak"], PACKED, {}, f"Packed is the wrong side: {CLOSER}; leak is off; failed gate: "
         "leak."),
        (["leak"], UNPACKED, {}, "Unpacked is the wrong side; leak is off; failed gate: leak."),
        (["leak"], NONE, {}, "Something is wrong; leak is off; failed gate: leak."),
        (["oracle", "leak"], BOTH, {}, f"Both sides are wrong: {CLOSER}; leak is off; failed "
         "gates: oracle, leak."),
        (["leak"], UNPACKED, {"trace": {"finding": "departs at layer 3"}},
         "Unpacked is the wrong side; departs at layer 3; leak is off; failed gate: leak."),
        (["embedding"], UNPACKED, LOOKS, "Unpacked is the wrong side; the embedding looks like a "
         "missing 0.88 rescale; embedding is off; failed gate: embedding."),
        # The trace saw more than the embedding alone; an embedding that holds says nothing.
        (["embedding"], UNPACKED, {**LOOKS, "trace": {"finding": "departs at layer 3"}},
         "Unpacked is the wrong side; departs at layer 3; embedding is off; failed gate: "
         "embedding."),
        (["leak"], UNPACKED, LOOKS, "Unpacked is the wrong side; leak is off; failed gate: leak."),
        (["embedding"], UNPACKED, {"probes": {"embedding": {"looks_like": None}}},
         "Unpacked is the wrong side; embedding is off; failed gate: embedding."),
    ],
)  # fmt: skip
def test_the_sentence_of_a_run_that_failed(names, culprit, documents, sentence) -> None:
    gates = [failing("seed", passed=True), *map(failing, names), failing("mask", passed=None)]
    results = [apart(0, 0.5, 0.5, 0.125)]
    assert make_reason(results, gates, culprit, documents) == sentence
