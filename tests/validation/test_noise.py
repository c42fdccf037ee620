"""Limits below the noise of healthy runs are refused, with the numbers."""

from dataclasses import replace

import pytest

from tests.protocols import with_content, without_own_noise
from tests.validation.test_gates import sequence
from virnucpro_monitor.errors import ProtocolError
from virnucpro_monitor.records import NoiseDocument, Outcome, Protocol, SequenceStatus
from virnucpro_monitor.validation.noise import (
    healthy_noise,
    judge_within_noise,
    refuse_tighter_than_noise,
    worst_of,
)
from virnucpro_monitor.validation.protocol import limit_names, load_protocol
from virnucpro_monitor.validation.validate import validate_subject


def with_limit(name: str, value: float, dtype: str = "float32") -> Protocol:
    def change(content: dict) -> None:
        content["version"] = "mine"
        content["limits"][dtype][name] = value

    return with_content(without_own_noise(), change)


def worst(name: str) -> float:
    return healthy_noise(load_protocol(), "float32")[name]


def test_a_limit_tighter_than_the_noise_is_refused_with_the_numbers() -> None:
    protocol = load_protocol()
    quiet = NoiseDocument(packed_repeat=0.0, unpacked_repeat=0.0, reordered=0.0)
    refuse_tighter_than_noise(protocol, "float32", quiet)
    with pytest.raises(ProtocolError, match=r"reordered in float32.*5\.0e-01"):
        refuse_tighter_than_noise(protocol, "float32", replace(quiet, reordered=0.5))
    with pytest.raises(ProtocolError, match="unpacked repeat"):
        refuse_tighter_than_noise(protocol, "float32", replace(quiet, unpacked_repeat=1e-9))


def test_a_limit_below_what_healthy_runs_have_is_refused_with_the_numbers() -> None:
    within = sequence(gain=1.0 + 0.5 * worst("gain"))
    with pytest.raises(ProtocolError, match=r"Protocol mine is tighter than the noise") as caught:
        judge_within_noise([within], {}, with_limit("gain", 1e-12), limits_name="float32")
    text = str(caught.value)
    assert "its gain gate allows 1.0e-12 in float32" in text
    assert f"{0.5 * worst('gain'):.1e}" in text
    assert f"up to {worst('gain'):.1e}: raise that limit." in text


def test_beyond_the_noise_a_tighter_limit_fails_the_run() -> None:
    beyond = sequence(gain=1.0 + 1.5 * worst("gain"))
    tighter = with_limit("gain", 1.1 * worst("gain"))
    verdict = judge_within_noise([beyond], {}, tighter, limits_name="float32")
    assert verdict.outcome is Outcome.FAILED
    assert [gate.name for gate in verdict.gates if gate.passed is False] == ["gain"]
    released = judge_within_noise([beyond], {}, without_own_noise(), limits_name="float32")
    assert released.outcome is Outcome.PASSED


def test_a_tight_limit_that_the_run_keeps_is_taken() -> None:
    verdict = judge_within_noise([sequence()], {}, with_limit("gain", 1e-12), limits_name="float32")
    assert verdict.outcome is Outcome.PASSED


def test_a_missing_value_is_no_noise() -> None:
    ruined = sequence(1, gain=None, similarity=None, status=SequenceStatus.NOT_FINITE)
    mine = with_limit("gain", 2 * worst("gain"))
    verdict = judge_within_noise([sequence(0), ruined], {}, mine, limits_name="float32")
    assert verdict.outcome is Outcome.FAILED


def test_a_floor_below_the_noise_is_refused_by_the_oracle_gate() -> None:
    off = sequence(packed_relative_l2=3e-6, unpacked_relative_l2=1e-6)
    with pytest.raises(ProtocolError, match=r"its oracle gate allows 1\.0e-12"):
        judge_within_noise([off], {}, with_limit("floor", 1e-12), limits_name="float32")


def test_validating_a_healthy_model_under_too_tight_a_protocol_is_refused(
    subject, benchmark_set, oracle, protocol
) -> None:
    def tighten(content: dict) -> None:
        content["limits"][f"float32, {subject.model_name}"]["ceiling"] = 1e-9

    with pytest.raises(ProtocolError, match=r"its ceiling gate allows 1\.0e-09 in float32"):
        validate_subject(
            subject,
            benchmark_set,
            oracle=oracle,
            protocol=with_content(protocol, tighten),
            probes=False,
        )


def test_limits_that_measure_one_thing_share_the_worst_value() -> None:
    first = {"worst": dict.fromkeys(limit_names("1"), 1.0) | {"ceiling": 5.0, "order": 7.0}}
    second = {"worst": dict.fromkeys(limit_names("1"), 2.0)}
    found = worst_of([first, second])
    assert (found["ceiling"], found["baseline"]) == (5.0, 5.0)
    assert (found["position"], found["order"], found["mask"]) == (7.0, 7.0, 7.0)
    assert found["gain"] == 2.0
