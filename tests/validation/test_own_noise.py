"""Limits by a run's own noise: the lower of the protocol's and a multiple of that noise."""

from typing import Any

import pytest

from tests.benchmarks.freeze_protocol import freeze_factors
from tests.protocols import with_content
from virnucpro_monitor.records import ProbeDocument, SequenceResult, SequenceStatus
from virnucpro_monitor.validation.gates import judge_gates
from virnucpro_monitor.validation.own_noise import own_limits, own_noise
from virnucpro_monitor.validation.protocol import load_protocol

LIMITS = {"gain": 1e-2, "residue": 1e-3, "ceiling": 5e-2, "baseline": 5e-2, "probes": 1e-1}
RULE: dict[str, Any] = {
    "own_noise": {
        "least": 0.25,
        "factors": {
            "half": {"gain": 0.5, "residue": 20.0, "ceiling": 4.0, "probes": 3.0},
            "float32": {"gain": 3.0, "residue": 1000.0, "ceiling": 30.0, "probes": 20.0},
        },
    }
}


def sequence(unpacked: float | None, **changes: Any) -> SequenceResult:
    values: dict[str, Any] = {
        "index": 0,
        "sequence_id": "s",
        "length": 40,
        "status": SequenceStatus.OK,
        "unpacked_relative_l2": unpacked,
        **changes,
    }
    return SequenceResult(**values)


def probes(unpacked: float | None) -> dict[str, ProbeDocument]:
    return {"probes": ProbeDocument(value=0.5, sides=(0.5, unpacked))}


def test_calm_weights_have_lower_limits() -> None:
    found = own_limits(
        LIMITS, [sequence(1e-3), sequence(2e-3)], probes(4e-3), RULE, "bfloat16, esm2_t6_8M_UR50D"
    )
    assert found == {
        "gain": pytest.approx(1e-3),  # half of the worst of all sequences
        "residue": pytest.approx(8e-5),  # 20 x its square
        "ceiling": pytest.approx(8e-3),
        "baseline": 5e-2,  # the noise itself
        "probes": pytest.approx(1.2e-2),
    }


def test_a_wrong_unpacked_side_loosens_nothing() -> None:
    assert own_limits(LIMITS, [sequence(0.9)], probes(0.9), RULE, "float16 on cpu") == LIMITS


@pytest.mark.parametrize("unpacked", [None, 0.0, 1e-8])
def test_what_shows_no_noise_of_its_dtype_tells_nothing(unpacked: float | None) -> None:
    for known in ([sequence(unpacked)], [] if unpacked is None else [sequence(0.0)]):
        assert own_limits(LIMITS, known, probes(unpacked), RULE, "float32") == LIMITS
    assert own_limits(LIMITS, [sequence(1e-3), sequence(None)], {}, RULE, "float16") == LIMITS


def test_each_part_of_a_run_tells_of_itself() -> None:
    # 2 ** -24 / 4 is the least in float32.
    noise = own_noise([sequence(2e-8)], probes(1e-8), "float32, esm2_t6_8M_UR50D", least=0.25)
    assert noise.keys() == {"gain", "residue", "floor", "ceiling"}
    assert noise["residue"] == pytest.approx(4e-16)
    noise = own_noise([sequence(1e-8)], probes(2e-8), "float32", least=0.25)
    assert noise.keys() == {"probes", "position", "order", "mask"}


def test_gates_are_judged_by_the_lower_limit() -> None:
    def with_rule(content: dict[str, Any]) -> None:
        factors = {"gain": 0.5, "residue": 20.0, "floor": 1.0, "ceiling": 4.0}
        content["own_noise"] = {"least": 0.25, "factors": {"half": factors}}

    def without_rule(content: dict[str, Any]) -> None:
        del content["own_noise"]

    name = "bfloat16, esm2_t6_8M_UR50D"
    one = sequence(2e-3, packed_relative_l2=1.5e-2, gain=1.0, similarity=1.0)
    for protocol, limit in (
        (with_content(load_protocol("2"), with_rule), 8e-3),
        (
            with_content(load_protocol("2"), without_rule),
            load_protocol("2").content["limits"][name]["ceiling"],
        ),
    ):
        gates = {g.name: g for g in judge_gates([one], {}, protocol, limits_name=name)}
        assert gates["ceiling"].limit == pytest.approx(limit)
        assert gates["ceiling"].passed is (limit > 1.5e-2)


def test_factors_are_three_times_the_largest_multiple() -> None:
    records = [
        {"dtype": "float16", "multiples": {"gain": 0.05, "position": 0.8, "mask": 0.1}},
        {"dtype": "bfloat16", "multiples": {"gain": 0.1, "position": 0.5}},
        # An older one knows the worst values alone.
        {
            "dtype": "float32",
            "worst": {"gain": 2e-6, "residue": 9e-10, "floor": 1e-5, "ceiling": 2e-5,
                      "baseline": 1e-6},
        },
    ]  # fmt: skip
    found = freeze_factors(records)
    assert found["half"] == {
        "gain": 0.3, "residue": 0.0, "floor": 0.0, "ceiling": 0.0, "probes": 0.0,
        "position": 2.4, "order": 2.4, "mask": 2.4,
    }  # fmt: skip
    assert found["float32"]["gain"] == pytest.approx(6.0)
    assert found["float32"]["residue"] == pytest.approx(2700.0)
    assert found["float32"]["ceiling"] == pytest.approx(60.0)
