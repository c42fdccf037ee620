import json

import pytest

from tests.store.builders import CONFIGURATION, make_commit, make_gate, make_run
from virnucpro_monitor.records import (
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


def test_a_run_survives_json() -> None:
    run = make_run(
        commit=make_commit(7, subject="<b>Fix</b> \u202e it", position=None),
        environment=None,
        outcome=Outcome.FAILED,
        culprit=Culprit.PACKED,
        gates=(make_gate("leak", None, None),),
    )
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
    assert make_run(outcome=Outcome.FAILED).effective_outcome is Outcome.FAILED


def test_the_digest_ignores_the_order_of_keys_and_sees_each_value() -> None:
    assert content_digest({"a": 1, "b": 2}) == content_digest({"b": 2, "a": 1})
    assert content_digest({"a": 1}) != content_digest({"a": 2})
    assert CONFIGURATION.digest == content_digest(to_json(CONFIGURATION))
