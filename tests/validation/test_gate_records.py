"""Every gate in each of its situations, as the whole record that is stored and shown."""

from dataclasses import replace
from typing import Any

import pytest

from tests.protocols import with_content
from tests.validation.test_gates import SEED, lost, sequence
from virnucpro_monitor.records import (
    Culprit,
    GateResult,
    NotFinite,
    PacksDocument,
    ProbeDocument,
    Protocol,
    SequenceResult,
    SequenceStatus,
)
from virnucpro_monitor.validation import gates
from virnucpro_monitor.validation.protocol import load_protocol

PACKED, UNPACKED, BOTH = Culprit.PACKED, Culprit.UNPACKED, Culprit.BOTH
FACTOR, FLOOR = 2.0, 1e-4


def ruined(index: int, **changes: Any) -> SequenceResult:
    """Neither side has a finite embedding, where nothing else is said."""
    nothing = dict.fromkeys(
        ("similarity", "relative_l2", "packed_relative_l2", "unpacked_relative_l2", "gain",
         "worst_residue_similarity", "worst_residue")
    )  # fmt: skip
    return sequence(index, **(nothing | {"status": SequenceStatus.NOT_FINITE} | changes))


def record(name: str, passed: bool | None, value: float | None, limit: float, unit: str,
           culprit: Culprit | None, detail: str) -> GateResult:  # fmt: skip
    return GateResult(
        name=name, passed=passed, value=value, limit=limit, unit=unit, culprit=culprit,
        detail=detail,
    )  # fmt: skip


COVERAGE = [
    ([sequence(0), sequence(1)], (), True, 0.0, None, "All 2 sequences came back once."),
    ([sequence(0)], (), True, 0.0, None, "The one sequence came back once."),
    (
        [lost(0), sequence(1), lost(2), lost(3), lost(4)], (), False, 4.0, PACKED,
        "The packed path returned ids wrongly: 4 lost (s0, s2, s3 and 1 more).",
    ),
    (
        [replace(lost(0), status=SequenceStatus.DOUBLED), lost(1)], ("x", "y"), False, 4.0, PACKED,
        "The packed path returned ids wrongly: 1 lost (s1), 1 doubled (s0), 2 unknown (x, y).",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("results", "unknown", "passed", "value", "culprit", "detail"), COVERAGE)
def test_coverage(results, unknown, passed, value, culprit, detail) -> None:
    gate = gates.coverage_gate(results, PacksDocument(unknown_ids=unknown))
    assert gate == record("coverage", passed, value, 0.0, "sequences", culprit, detail)


ON_PACKED = "Values are NaN, infinite or all zero on the packed side in 1 of 2 sequences (s1)."
ON_UNPACKED = ON_PACKED.replace("packed", "unpacked")
ON_BOTH = ON_PACKED.replace("the packed side", "both sides")
FINITE = [
    # What the packs say comes first; else what the sequence itself lacks tells the side.
    ([sequence(0), sequence(1)], (), (), True, 0.0, None, "Every value is finite."),
    ([sequence(0), ruined(1)], ("s1",), (), False, 1.0, PACKED, ON_PACKED),
    ([sequence(0), ruined(1)], (), ("s1",), False, 1.0, UNPACKED, ON_UNPACKED),
    ([sequence(0), ruined(1)], ("s1",), ("s1",), False, 1.0, BOTH, ON_BOTH),
    ([sequence(0), ruined(1, unpacked_relative_l2=1e-6)], (), (), False, 1.0, PACKED, ON_PACKED),
    ([sequence(0), ruined(1, packed_relative_l2=1e-6)], (), (), False, 1.0, UNPACKED, ON_UNPACKED),
    ([sequence(0), ruined(1)], (), (), False, 1.0, PACKED, ON_PACKED),
]


@pytest.mark.parametrize(
    ("results", "packed", "unpacked", "passed", "value", "culprit", "detail"), FINITE
)
def test_finite(results, packed, unpacked, passed, value, culprit, detail) -> None:
    packs = PacksDocument(not_finite=NotFinite(packed=packed, unpacked=unpacked))
    gate = gates.finite_gate(results, packs)
    assert gate == record("finite", passed, value, 0.0, "sequences", culprit, detail)


def test_tokens() -> None:
    assert gates.tokens_gate(PacksDocument()) == record(
        "tokens", True, 0.0, 0.0, "sequences", None, "Each pack holds the sequences' own tokens."
    )
    assert gates.tokens_gate(PacksDocument(other_tokens=("a", "b", "c"))) == record(
        "tokens", False, 3.0, 0.0, "sequences", PACKED,
        "The pack holds other tokens than the sequence's own: a, b, c.",
    )  # fmt: skip


def many(*lowest: float | None) -> list[SequenceResult]:
    """200 sequences, of which 2 may lie below strict; the first have these similarities."""
    first = [sequence(i, similarity=value) for i, value in enumerate(lowest)]
    return [*first, *(sequence(i) for i in range(len(first), 200))]


OFF = {"packed_relative_l2": 3e-2, "unpacked_relative_l2": 1e-3}
SEEDS = [
    (
        [sequence(0), sequence(1, similarity=0.9995)], True, 0.9995, 0.999, None,
        "All 2 sequences are more similar than 0.999; the lowest is s1 with 0.9995.",
    ),
    (
        [sequence(0), sequence(1, similarity=1 - 2**-30)], True, 1 - 2**-30, 0.999, None,
        "All 2 sequences are more similar than 0.999; the lowest is s1 with 1 - 9.3e-10.",
    ),
    (
        [sequence(0, similarity=1.0)], True, 1.0, 0.999, None,
        "The one sequence is more similar than 0.999; the lowest is s0 with exactly 1.",
    ),
    (
        [sequence(0, similarity=0.9995)], True, 0.9995, 0.999, None,
        "The one sequence is more similar than 0.999; the lowest is s0 with 0.9995.",
    ),
    (
        [sequence(0, similarity=0.998, **OFF), sequence(1)], False, 0.998, 0.999, PACKED,
        "1 of 2 sequences is not more similar than 0.999, where none may be; the lowest is s0 "
        "with 0.9980.",
    ),
    (
        many(0.998, 0.996), True, 0.996, 0.995, None,
        "2 of 200 sequences are not more similar than 0.999, where 2 may be; the lowest is s1 with "
        "0.9960.",
    ),
    (  # the one that may not lie below strict decides, the lowest is told
        many(0.998, 0.996, 0.9985), False, 0.9985, 0.999, BOTH,
        "3 of 200 sequences are not more similar than 0.999, where 2 may be; the lowest is s1 with "
        "0.9960.",
    ),
    (
        many(0.998, 0.99), False, 0.99, 0.995, BOTH,
        "2 of 200 sequences are not more similar than 0.999, where 2 may be; the lowest is s1 with "
        "0.9900.",
    ),
    (
        [sequence(0, similarity=0.9), replace(lost(1), status=SequenceStatus.DOUBLED)], False, None,
        0.995, PACKED,
        "2 of 2 sequences are not more similar than 0.999, where none may be; the lowest is s1 "
        "with no similarity.",
    ),
    (
        [], False, None, 0.999, None,
        "0 of 0 sequences are not more similar than 0.999, where none may be.",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("results", "passed", "value", "limit", "culprit", "detail"), SEEDS)
def test_seed(results, passed, value, limit, culprit, detail) -> None:
    gate = gates.seed_gate(results, SEED)
    assert gate == record("seed", passed, value, limit, "cosine", culprit, detail)


def limits_of(**changes: float) -> Protocol:
    """The released protocol with other limits for float32, which no run's own noise lowers."""

    def change(content: dict[str, Any]) -> None:
        content["limits"]["float32"].update(changes)
        del content["own_noise"]

    return with_content(load_protocol(), change)


def judged(results: list[SequenceResult], **limits: float) -> dict[str, GateResult]:
    found = gates.judge_gates(results, {}, limits_of(**limits), limits_name="float32")
    return {gate.name: gate for gate in found}


GAIN = "Difference in norm between packed and unpacked (norm ratio - 1):"
GAINS = [
    (
        [sequence(0, gain=1 + 2**-11), sequence(1, gain=1 - 2**-10)], True, 2**-10, None,
        f"{GAIN} at most 9.8e-04 (s1); up to 0.001 is allowed.",
    ),
    ([sequence(0, gain=1 + 2**-10)], True, 2**-10, None,
     f"{GAIN} at most 9.8e-04 (s0); up to 0.001 is allowed."),
    (
        [sequence(0, gain=1.25), sequence(1, gain=0.5, **OFF), sequence(2)], False, 0.5, PACKED,
        f"{GAIN} above 0.001 in 2 of 3 sequences, most in s1 with 0.5.",
    ),
    (  # a number that fails the gate comes before what is missing
        [lost(0), sequence(1, gain=0.5, packed_relative_l2=1e-3, unpacked_relative_l2=1e-2)],
        False, 0.5, UNPACKED, f"{GAIN} above 0.001 in 1 of 2 sequences, most in s1 with 0.5.",
    ),
    (
        [sequence(0), lost(1), lost(2), lost(3), lost(4)], False, None, PACKED,
        f"{GAIN} unknown for 4 of 5 sequences (s1, s2, s3 and 1 more), which are lost, not finite, "
        "or of another number of residues.",
    ),
    ([], False, None, None, "There is nothing to judge."),
]  # fmt: skip


@pytest.mark.parametrize(("results", "passed", "value", "culprit", "detail"), GAINS)
def test_gain(results, passed, value, culprit, detail) -> None:
    gate = judged(results, gain=1e-3)["gain"]
    assert gate == record("gain", passed, value, 1e-3, "norm ratio - 1", culprit, detail)


def test_a_value_at_its_limit_is_allowed() -> None:
    at = [sequence(0, gain=1.25)]
    assert judged(at, gain=0.25)["gain"].passed is True
    assert judged(at, gain=0.2499)["gain"].passed is False


RESIDUE = "Difference of the worst residue, packed against unpacked (1 - cosine):"
RESIDUES = [
    (sequence(0, worst_residue_similarity=0.75), {}, True, None,
     f"{RESIDUE} at most 0.25 (s0); up to 0.25 is allowed."),
    (  # what the oracle says of that residue comes before what it says of the sequence
        sequence(0, length=40, worst_residue_similarity=0.5, worst_residue=0, **OFF),
        {"s0": (1e-6, 0.5)}, False, UNPACKED,
        f"{RESIDUE} above 0.25 in 1 of 1 sequences, most in s0 with 0.5, at residue 1 of 40.",
    ),
    (
        sequence(0, length=40, worst_residue_similarity=0.5, worst_residue=39, **OFF),
        {"other": (1e-6, 0.5)}, False, PACKED,
        f"{RESIDUE} above 0.25 in 1 of 1 sequences, most in s0 with 0.5, at residue 40 of 40.",
    ),
    (
        sequence(0, worst_residue_similarity=0.5, worst_residue=None, **OFF), {}, False, PACKED,
        f"{RESIDUE} above 0.25 in 1 of 1 sequences, most in s0 with 0.5.",
    ),
    (
        lost(0), {"s0": (1e-6, 0.5)}, False, PACKED,
        f"{RESIDUE} unknown for 1 of 1 sequences (s0), which are lost, not finite, or of another "
        "number of residues.",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("result", "errors", "passed", "culprit", "detail"), RESIDUES)
def test_residue(result, errors, passed, culprit, detail) -> None:
    gate = gates.residue_gate([result], PacksDocument(residue_errors=errors), 0.25)
    worst = result.worst_residue_similarity
    value = None if worst is None else 1.0 - worst
    assert gate == record("residue", passed, value, 0.25, "1 - cosine", culprit, detail)


def test_the_worst_residue_of_all_sequences_is_told_though_others_are_missing() -> None:
    results = [lost(0), sequence(1, worst_residue_similarity=0.5, worst_residue=4, **OFF)]
    gate = gates.residue_gate(results, PacksDocument(residue_errors={"s1": (0.5, 0.4)}), 0.25)
    assert gate == record(
        "residue", False, 0.5, 0.25, "1 - cosine", BOTH,
        f"{RESIDUE} above 0.25 in 1 of 2 sequences, most in s1 with 0.5, at residue 5 of 10.",
    )  # fmt: skip
    within = [lost(0), sequence(1, worst_residue_similarity=0.9)]
    gate = gates.residue_gate(within, PacksDocument(residue_errors={"s1": (0.5, 0.4)}), 0.25)
    assert (gate.value, gate.culprit) == (None, PACKED)


def far(index: int, packed: float | None, unpacked: float | None) -> SequenceResult:
    return sequence(index, packed_relative_l2=packed, unpacked_relative_l2=unpacked)


ORACLE = "Packed's distance to FP32 beyond twice unpacked's (relative L2):"
ORACLES = [
    (
        [far(0, 0.5, 0.25), far(1, 1e-6, 1e-6)], True, 0.0, None,
        f"{ORACLE} at most 0 (s0); up to 1.0e-04 is allowed.",
    ),
    ([far(0, 0.25, 0.5)], True, -0.75, None, f"{ORACLE} at most 0 (s0); up to 1.0e-04 is allowed."),
    (
        [far(0, 0.5, 0.125), far(1, 0.75, 0.125), far(2, 0.5, 0.5)], False, 0.5, PACKED,
        "Packed is further from FP32 than 2 x unpacked + 1.0e-04 in 2 of 3 sequences, most in s1: "
        "packed 0.75, unpacked 0.125 (relative L2).",
    ),
    (
        [far(0, 0.5, 0.125), far(1, 0.5, None)], False, 0.25, PACKED,
        "Packed is further from FP32 than 2 x unpacked + 1.0e-04 in 1 of 2 sequences, most in s0: "
        "packed 0.5, unpacked 0.125 (relative L2).",
    ),
    (
        [far(0, None, 0.125), far(1, 0.125, 0.125)], False, None, PACKED,
        f"{ORACLE} unknown for 1 of 2 sequences (s0), which are lost, not finite, or of another "
        "number of residues.",
    ),
    (
        [far(0, 0.125, None), far(1, 0.125, 0.125)], False, None, UNPACKED,
        f"{ORACLE} unknown for 1 of 2 sequences (s0), which are lost, not finite, or of another "
        "number of residues.",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("results", "passed", "value", "culprit", "detail"), ORACLES)
def test_oracle(results, passed, value, culprit, detail) -> None:
    gate = gates.oracle_gate(results, FACTOR, FLOOR)
    assert gate == record("oracle", passed, value, FLOOR, "relative L2", culprit, detail)


def test_an_excess_at_the_floor_is_allowed() -> None:
    at = [far(0, 0.75, 0.25)]
    assert gates.oracle_gate(at, 2.0, 0.25).passed is True
    assert gates.oracle_gate(at, 2.0, 0.2499).passed is False


def test_either_side_s_distance_has_a_limit_of_its_own() -> None:
    found = judged([far(0, 0.25, 0.5), far(1, 0.125, 0.25)], ceiling=0.25, baseline=0.375)
    assert found["ceiling"] == record(
        "ceiling", True, 0.25, 0.25, "relative L2", None,
        "Packed's distance to FP32 (relative L2): at most 0.25 (s0); up to 0.25 is allowed.",
    )  # fmt: skip
    assert found["baseline"] == record(
        "baseline", False, 0.5, 0.375, "relative L2", UNPACKED,
        "Unpacked's distance to FP32 (relative L2): above 0.375 in 1 of 2 sequences, most in s0 "
        "with 0.5.",
    )  # fmt: skip
    found = judged([far(0, 0.5, 0.25)], ceiling=0.25, baseline=0.25)
    assert (found["ceiling"].passed, found["ceiling"].culprit) == (False, PACKED)
    assert (found["baseline"].passed, found["baseline"].culprit) == (True, None)


def test_a_lost_sequence_says_nothing_of_the_baseline_and_a_ruined_one_does() -> None:
    found = judged([far(0, 1e-6, 1e-6), lost(1)])
    assert found["ceiling"].culprit is PACKED
    assert (found["baseline"].passed, found["baseline"].culprit) == (True, None)
    found = judged([replace(lost(0), unpacked_relative_l2=1e-6)])
    assert found["baseline"] == record(
        "baseline", True, None, found["baseline"].limit or 0.0, "relative L2", None,
        "There is nothing to judge.",
    )  # fmt: skip
    found = judged([far(0, 1e-6, 1e-6), ruined(1, packed_relative_l2=1e-6)])
    assert (found["ceiling"].passed, found["baseline"].passed) == (True, False)
    assert found["baseline"].culprit is UNPACKED


def test_gates_come_in_one_order_and_by_the_protocol_s_own_limits() -> None:
    content = limits_of().content
    own = content["limits"]["float32"]
    found = judged([sequence(0)])
    assert list(found) == [
        "coverage", "finite", "tokens", "seed", "gain", "residue", "oracle", "ceiling", "baseline",
    ]  # fmt: skip
    assert {name: gate.limit for name, gate in found.items()} == {
        "coverage": 0.0, "finite": 0.0, "tokens": 0.0, "seed": content["thresholds"]["strict"],
        "gain": own["gain"], "residue": own["residue"], "oracle": own["floor"],
        "ceiling": own["ceiling"], "baseline": own["baseline"],
    }  # fmt: skip
    assert all(gate.passed for gate in found.values())


@pytest.mark.parametrize(
    ("packed", "unpacked", "known"), [(None, None, False), (1.0, None, True), (None, 1.0, True)]
)
def test_one_side_s_distance_is_enough_to_know_of_an_oracle(packed, unpacked, known) -> None:
    bare = far(1, None, None)
    assert gates.has_oracle([bare, far(0, packed, unpacked)]) is known


@pytest.mark.parametrize(
    ("packed", "unpacked", "side"),
    [
        (None, 1.0, None), (1.0, None, None), (2.0, 1.0, BOTH), (1.0, 2.0, BOTH), (0.0, 0.0, BOTH),
        (2.0001, 1.0, PACKED), (1.0, 2.0001, UNPACKED),
    ],
)  # fmt: skip
def test_a_side_is_wrong_where_it_is_twice_as_far(packed, unpacked, side) -> None:
    assert gates.wrong_side(packed, unpacked) is side


@pytest.mark.parametrize(
    ("status", "packed", "unpacked", "side"),
    [
        (SequenceStatus.LOST, 1e-6, 1.0, PACKED),
        (SequenceStatus.DOUBLED, 1e-6, 1.0, PACKED),
        (SequenceStatus.OK, 1e-6, 1.0, UNPACKED),
        (SequenceStatus.OK, None, 1.0, PACKED),
        (SequenceStatus.OK, 1.0, None, UNPACKED),
        (SequenceStatus.OK, None, None, None),
    ],
)
def test_the_side_that_a_sequence_accuses(status, packed, unpacked, side) -> None:
    result = replace(far(0, packed, unpacked), status=status, similarity=0.5)
    assert gates.seed_gate([result], SEED).culprit is side


PROBE_LIMITS = {"position": 1e-4, "embedding": 0.25, "mask": 0.25, "order": 1e-4, "probes": 0.25}


def probed(name: str, **found: Any) -> GateResult:
    (gate,) = gates.probe_gates({name: ProbeDocument(**found)}, PROBE_LIMITS)
    return gate


def test_a_probe_with_a_limit() -> None:
    assert probed("position", value=1e-4, detail="It moves by 1e-4.") == record(
        "position", True, 1e-4, 1e-4, "relative L2", None,
        "It moves by 1e-4; up to 1.0e-04 is allowed.",
    )  # fmt: skip
    assert probed("position", value=2e-4, detail="It moves") == record(
        "position", False, 2e-4, 1e-4, "relative L2", PACKED,
        "It moves; up to 1.0e-04 is allowed.",
    )  # fmt: skip


def test_a_probe_that_must_be_exact_and_one_that_counts() -> None:
    assert probed("leak", value=0.0, unit="max abs", detail="Still.", covers="3 packs") == record(
        "leak", True, 0.0, 0.0, "max abs", None, "Still; it must be exactly 0 (asked of 3 packs).",
    )  # fmt: skip
    for unit in ("sequences", "tensors"):
        assert probed("state", value=1.0, unit=unit, detail="One differs.") == record(
            "state", False, 1.0, 0.0, unit, PACKED, "One differs; none may be.",
        )  # fmt: skip


def test_a_probe_that_is_not_finite_or_could_not_run() -> None:
    assert probed("order", value=None, detail="Lost in words.") == record(
        "order", False, None, 1e-4, "relative L2", PACKED,
        "The order probe gave values that are not finite.",
    )  # fmt: skip
    assert probed("mask", not_judged="It has no mask.", covers="3 shares") == record(
        "mask", None, None, 0.25, "relative L2", None, "It has no mask.",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("sides", "known", "culprit"),
    [
        ((0.5, 0.25), None, PACKED), ((0.25, 0.5), None, UNPACKED), ((0.5, 0.5), None, BOTH),
        ((None, 0.1), None, PACKED), ((0.1, None), None, UNPACKED), ((None, None), None, BOTH),
        ((0.5, 0.25), UNPACKED, PACKED),  # what was measured of each side comes first
        ((0.25, 0.25), UNPACKED, UNPACKED), (None, UNPACKED, UNPACKED), (None, None, PACKED),
    ],
)  # fmt: skip
def test_the_side_that_a_probe_accuses(sides, known, culprit) -> None:
    gate = probed("probes", value=0.5, sides=sides, culprit=known, detail="Off.")
    assert (gate.passed, gate.culprit) == (False, culprit)
    assert probed("probes", value=0.25, sides=sides, culprit=known).culprit is None


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"), (1e-3, "0.001"), (9.99e-4, "1.0e-03"), (0.12345, "0.123"), (-0.5, "-0.5"),
        (9999.0, "1e+04"), (1e4, "1.0e+04"), (123456.0, "1.2e+05"), (-1e-5, "-1.0e-05"),
        (5000.0, "5e+03"), (999.0, "999"),
    ],
)  # fmt: skip
def test_numbers_are_short(value: float, text: str) -> None:
    assert gates.number_text(value) == text


def test_how_far_over_its_limit_a_gate_is() -> None:
    def over(value: float | None, limit: float | None, unit: str) -> float | None:
        return gates.over_limit(replace(probed("order"), value=value, limit=limit, unit=unit))

    assert over(0.5, 0.25, "relative L2") == 2.0
    assert over(-0.5, 0.25, "relative L2") == 0.0
    assert over(0.5, 0.75, "cosine") == 2.0
    assert over(0.5, 0.0, "max abs") is None
    assert over(None, 0.25, "relative L2") is None


def test_a_probe_without_a_limit_in_an_older_protocol_is_not_judged() -> None:
    probes = {
        "probes": ProbeDocument(value=0.5, detail="Apart by 0.5."),
        "leak": ProbeDocument(value=0.0),
    }
    unknown, leak = gates.probe_gates(probes, {})
    assert (unknown.passed, unknown.value, unknown.limit, unknown.culprit) == (
        None,
        0.5,
        None,
        None,
    )
    assert unknown.detail == "Not judged: the protocol has no limit for it."
    assert (leak.passed, leak.limit) == (True, 0.0)
