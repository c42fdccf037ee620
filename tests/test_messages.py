import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from virnucpro_monitor.records import (
    BenchmarkSet,
    Failure,
    ProteinSequence,
    RecordError,
    Request,
    SequenceResult,
    from_json,
)
from virnucpro_monitor.records.messages import (
    Advanced,
    Ended,
    MessageError,
    PrepareJob,
    decode_ended,
    decode_job,
    decode_said,
    encode,
)

ADVANCED = {"kind": "advanced", "benchmark": 0, "done": 1, "total": 2}
JOB = PrepareJob(
    request=Request(model="m", weights="synthetic"),
    cache_folder="cache",
    benchmarks=(
        BenchmarkSet(
            name="b", version=1, digest="d", sequences=(ProteinSequence(id="a", residues="MK"),)
        ),
    ),
    timeout_s=3.5,
    num_threads=1,
)


def test_messages_survive_their_lines() -> None:
    assert decode_job(encode(JOB)) == JOB
    advanced = Advanced(benchmark=0, done=1, total=2)
    assert decode_said(encode(advanced)) == advanced
    ended = Ended(cause="exit", code=0, log="\x00\n\ud800 é")
    assert decode_ended(encode(ended)) == ended
    assert b"\n" not in encode(ended)


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "ended"},
        {"kind": ["advanced"]},
        {"done": "1"},
        {"done": 1.0},
        {"done": True},
        {"done": None},
        {"done": 3},
        {"done": -1},
        {"done": 2**63, "total": 2**64 - 1},
        {"benchmark": -1},
        {"more": 1},
    ],
)
def test_a_message_of_another_shape_is_refused(change: dict[str, Any]) -> None:
    assert decode_said(json.dumps(ADVANCED).encode()) == Advanced(benchmark=0, done=1, total=2)
    with pytest.raises(MessageError, match=r"^A (line|message) .*\.$"):
        decode_said(json.dumps(ADVANCED | change).encode())


@pytest.mark.parametrize("number", ["NaN", "-Infinity", "1e400", "9" * 5000])
def test_numbers_that_no_database_holds_are_refused(number: str) -> None:
    with pytest.raises(MessageError, match="it holds"):
        decode_said(json.dumps(ADVANCED).replace("2", number).encode())


@pytest.mark.parametrize(
    ("field", "value", "sentence"),
    [
        ("similarity", "1", "SequenceResult.similarity is '1', not a finite number"),
        ("similarity", float("nan"), "not a finite number"),
        ("index", 0.5, "SequenceResult.index is 0.5, not a whole number"),
        ("sequence_id", None, "SequenceResult.sequence_id is null, not a text"),
        ("truncated", 1, "SequenceResult.truncated is 1, not true or false"),
        ("status", "fine", "not one of ok, not_finite, lost, doubled"),
    ],
)
def test_a_record_of_another_type_is_refused(field: str, value: object, sentence: str) -> None:
    fields: dict[str, object] = {"index": 0, "sequence_id": "a", "length": 1}
    assert from_json(SequenceResult, fields) == SequenceResult(index=0, sequence_id="a", length=1)
    with pytest.raises(RecordError, match=sentence):
        from_json(SequenceResult, fields | {field: value})


def test_a_record_that_lacks_a_field_names_it() -> None:
    with pytest.raises(RecordError, match="message"):
        from_json(Failure, {"kind": "crash"})


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["kind", "benchmark", "verdict", "failure", "done", "total", "x"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=8,
)


@settings(max_examples=300, deadline=None)
@given(
    st.binary(max_size=64)
    | st.builds(lambda value: json.dumps(value).encode(), json_values)
    | st.builds(
        lambda kind, value: json.dumps({"kind": kind, "benchmark": value}).encode(),
        st.sampled_from(["advanced", "ready", "refused", "judged", "failed", "ended"]),
        json_values,
    )
)
def test_nothing_but_a_message_or_its_error_comes_of_a_line(line: bytes) -> None:
    try:
        said = decode_said(line)
    except MessageError:
        return
    assert decode_said(encode(said)) == said
