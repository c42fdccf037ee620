import json
from datetime import UTC, datetime

import pytest

from virnucpro_monitor.records import (
    Commit,
    Configuration,
    Culprit,
    GateResult,
    Outcome,
    Run,
    SequenceResult,
    SequenceStatus,
    content_digest,
    from_json,
    to_json,
)

CONFIGURATION = Configuration(
    model="esm2_t6_8M_UR50D",
    weights="synthetic",
    weights_digest="ab" * 32,
    dtype="float32",
    device="cpu",
    backend="sdpa",
    token_budget=4096,
)


def make_run(**changes: object) -> Run:
    values = {
        "target": "sample",
        "commit": Commit(
            hash="c" * 40,
            parents=("b" * 40,),
            subject="<b>Fix</b> \u202e it",
            authored_at=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
        ),
        "benchmark": "seed",
        "benchmark_version": 1,
        "benchmark_digest": "d" * 64,
        "configuration": CONFIGURATION,
        "environment": None,
        "protocol_version": "1",
        "protocol_digest": "e" * 64,
        "outcome": Outcome.FAILED,
        "culprit": Culprit.PACKED,
        "gates": (GateResult(name="leak", passed=None, value=None, limit=0.0, unit="absolute"),),
        "started_at": datetime(2026, 1, 2, tzinfo=UTC),
        "duration_s": 1.5,
    }
    return Run(**(values | changes))


def test_a_run_survives_json() -> None:
    run = make_run()
    assert from_json(Run, json.loads(json.dumps(to_json(run)))) == run


def test_a_similarity_keeps_every_bit() -> None:
    result = SequenceResult(
        index=0,
        sequence_id="a",
        length=3,
        status=SequenceStatus.OK,
        similarity=1 - 2**-53,
    )
    assert from_json(SequenceResult, json.loads(json.dumps(to_json(result)))) == result


def test_an_unknown_field_is_refused() -> None:
    with pytest.raises(TypeError, match="nonsense"):
        from_json(GateResult, {"nonsense": 1})


def test_a_skipped_run_counts_as_what_it_inherits() -> None:
    skipped = make_run(outcome=Outcome.SKIPPED, inherited_outcome=Outcome.FAILED)
    assert skipped.effective_outcome is Outcome.FAILED
    assert make_run().effective_outcome is Outcome.FAILED


def test_the_digest_ignores_the_order_of_keys_and_sees_each_value() -> None:
    assert content_digest({"a": 1, "b": 2}) == content_digest({"b": 2, "a": 1})
    assert content_digest({"a": 1}) != content_digest({"a": 2})
    assert CONFIGURATION.digest == content_digest(to_json(CONFIGURATION))
