"""Limits for one's own weights: frozen from healthy runs, resumable, and taken by --protocol."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from virnucpro_monitor.errors import ProtocolError
from virnucpro_monitor.records import Outcome
from virnucpro_monitor.validation import calibration
from virnucpro_monitor.validation.calibration import calibrate
from virnucpro_monitor.validation.evidence import round_up
from virnucpro_monitor.validation.protocol import check_calibrated_for, load_protocol
from virnucpro_monitor.validation.validate import validate_subject


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch):
    """Real healthy runs, one for each part; the seeds that were asked for."""
    seeds: list[int] = []
    original = calibration.collect_evidence

    def collect(*arguments, num_runs: int, seed: int, **named):
        seeds.append(seed)
        record = original(*arguments, num_runs=1, seed=seed, **named)
        return {**record, "num_runs": num_runs}

    monkeypatch.setattr(calibration, "collect_evidence", collect)
    monkeypatch.setattr(calibration, "RUNS_OF_A_PART", 100)
    return seeds


def test_limits_are_frozen_from_the_runs_and_hold(
    subject, benchmark_set, oracle, protocol, tmp_path: Path, measured
) -> None:
    path = tmp_path / "own.json"
    found = calibrate(subject, benchmark_set, oracle, protocol, path)
    assert measured == [0, 1]
    assert load_protocol(str(path)).digest == found.digest
    of = ("float32", subject.model_name)
    runs = [r for r in found.content["evidence"]["runs"] if (r["dtype"], r["model"]) == of]
    assert sum(record["num_runs"] for record in runs) == 200
    worst = max(record["worst"]["gain"] for record in runs)
    own = ", ".join(of)
    assert found.content["limits"][own]["gain"] == round_up(3 * worst)
    others = {name: limits for name, limits in protocol.content["limits"].items() if name != own}
    assert {name: found.content["limits"][name] for name in others} == others
    assert found.content["thresholds"] == protocol.content["thresholds"]
    verdict = validate_subject(subject, benchmark_set, oracle=oracle, protocol=found)
    assert verdict.outcome is Outcome.PASSED, verdict.reason
    assert not path.with_name("own.json.evidence").exists()
    check_calibrated_for(found, subject.model_name, "float32", "cpu", oracle.weights_digest)
    # The limits of another dtype are the base's, whatever the weights.
    check_calibrated_for(found, subject.model_name, "bfloat16", "cpu", "0" * 64)
    with pytest.raises(ProtocolError, match=r"calibrated for other weights of .* not 00000000"):
        check_calibrated_for(found, subject.model_name, "float32", "cpu", "0" * 64)


def test_a_calibration_that_was_stopped_goes_on(
    subject, benchmark_set, oracle, protocol, tmp_path: Path, measured
) -> None:
    path = tmp_path / "own.json"

    def stop(done: int, total: int) -> None:
        if done == 100:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        calibrate(subject, benchmark_set, oracle, protocol, path, on_progress=stop)
    assert not path.exists()
    calibrate(subject, benchmark_set, oracle, protocol, path)
    assert measured == [0, 1]
    assert path.is_file()


def test_evidence_of_another_set_up_is_refused(
    subject, benchmark_set, oracle, protocol, tmp_path: Path
) -> None:
    path = tmp_path / "own.json"
    kept = tmp_path / "own.json.evidence"
    kept.write_text(json.dumps({"setup": {"model": "another"}, "parts": []}))
    with pytest.raises(ProtocolError, match="another set-up"):
        calibrate(subject, benchmark_set, oracle, protocol, path)
    kept.write_text("{")
    with pytest.raises(ProtocolError, match="cannot be read"):
        calibrate(subject, benchmark_set, oracle, protocol, path)


def test_too_few_runs_and_a_wrong_name_are_refused(
    subject, benchmark_set, oracle, protocol, tmp_path: Path
) -> None:
    with pytest.raises(ProtocolError, match="at least 200"):
        calibrate(subject, benchmark_set, oracle, protocol, tmp_path / "a.json", num_runs=10)
    with pytest.raises(ProtocolError, match=r"end in \.json"):
        calibrate(subject, benchmark_set, oracle, protocol, tmp_path / "a.txt")


def test_limits_that_nothing_would_guard_are_not_carried_over(
    subject, benchmark_set, oracle, protocol, tmp_path: Path, measured
) -> None:
    path = tmp_path / "second.json"
    other = {"model": subject.model_name, "dtype": "bfloat16", "device": "cuda"}
    content = {**protocol.content, "calibrated": {**other, "weights_digest": "e" * 64}}
    before = replace(protocol, version="own", content=content)
    with pytest.raises(ProtocolError, match=r"own was calibrated for .* in bfloat16 on cuda, and"):
        calibrate(subject, benchmark_set, oracle, before, path)
    assert measured == []
    # The same set-up, of weights that have changed: its limits are replaced, and so is their guard.
    here = {**other, "dtype": "float32", "device": "cpu", "weights_digest": "e" * 64}
    before = replace(before, content={**content, "calibrated": here})
    found = calibrate(subject, benchmark_set, oracle, before, path)
    assert found.content["calibrated"]["weights_digest"] == oracle.weights_digest
