"""A gate that informs by a target's policy: told, never silent, and part of the protocol."""

import itertools
import json
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from tests.protocols import quick_protocol
from tests.validation.conftest import FakeSubject, make_benchmark
from virnucpro_monitor.analysis.trends import find_events
from virnucpro_monitor.errors import ConfigurationError, ProtocolError
from virnucpro_monitor.records import Culprit, Outcome, PolicyRule, Verdict
from virnucpro_monitor.runner.accept import check_verdict
from virnucpro_monitor.validation.policy import check_rule, with_policy
from virnucpro_monitor.validation.protocol import parse_protocol
from virnucpro_monitor.validation.validate import validate_subject

BENCHMARK = make_benchmark({"a": "MKTAYIAKQR", "b": "DERKHGGS"})
RULE = PolicyRule(
    target="sample",
    gate="leak",
    who="Ada",
    why="the kernel is being replaced",
    created_at=datetime(2026, 11, 2, 9, 0, tzinfo=UTC),
)
WORD = "policy of Ada since 2026-11-02: the kernel is being replaced"


def leaking(rows, pack, layer):
    """In the last layer each sequence receives a millionth of the next one's first residue."""
    bounds = pack.cu_seqlens.tolist()
    mixed = rows.clone()
    if layer < FakeSubject.num_layers:
        return mixed
    for start, end in itertools.pairwise(bounds[:-1]):
        mixed[start:end] += 1e-6 * rows[end + 1]
    return mixed


def judged(fake: FakeSubject, *rules: PolicyRule) -> Verdict:
    fake.on_packed = leaking
    protocol = with_policy(quick_protocol(), rules)
    return validate_subject(fake, BENCHMARK, oracle=None, protocol=protocol)


def test_a_gate_that_informs_does_not_fail_and_is_never_silent(fake: FakeSubject) -> None:
    plain = judged(fake)
    assert [gate.name for gate in plain.gates if gate.fails] == ["leak"]
    assert plain.outcome is Outcome.FAILED
    verdict = judged(fake, RULE)
    leak = next(gate for gate in verdict.gates if gate.name == "leak")
    assert (leak.passed, leak.fails, leak.informs) == (False, False, WORD)
    assert verdict.outcome is verdict.packed_outcome is Outcome.PASSED
    assert verdict.culprit is Culprit.NONE
    assert verdict.reason.startswith(f"Passed; gate leak informs by {WORD} (")
    assert "all other gates hold" in verdict.reason
    check_verdict(verdict, BENCHMARK)
    # A policy that was not needed is told as well, and so is one beside a failure.
    fine = replace(RULE, gate="mask")
    assert f"gate mask informs by {WORD} (it holds)" in judged(fake, RULE, fine).reason
    assert judged(fake, fine).outcome is Outcome.FAILED
    assert f"gate mask informs by {WORD} (it holds)" in judged(fake, fine).reason


def test_another_policy_is_another_protocol_and_an_event_on_the_chart(fake: FakeSubject) -> None:
    from tests.store.builders import make_report

    protocol = quick_protocol()
    assert with_policy(protocol, []) is protocol
    informed = with_policy(protocol, [RULE])
    other = with_policy(protocol, [replace(RULE, why="another reason")])
    assert len({protocol.digest, informed.digest, other.digest}) == 3
    assert informed.content["limits"] == protocol.content["limits"]
    before = make_report(0, protocol=protocol).run
    after = make_report(1, protocol=informed, gates=judged(fake, RULE).gates).run
    (event,) = find_events([before, after])
    assert event.kind == "protocol"
    assert f"policy: none → leak by {WORD}" in map(str, event.differences)


@pytest.mark.parametrize(
    ("gate", "who", "why", "sentence"),
    [
        ("leek", "Ada", "x", "'leek' is not a gate: use one of tokens, "),
        ("seed", "Ada", "x", "part of the seed's own rule, which no policy may loosen"),
        ("finite", "Ada", "x", "part of the seed's own rule"),
        ("leak", " ", "x", "Nobody is named"),
        ("leak", "Ada", " ", "No reason is given"),
    ],
)
def test_what_no_policy_may_say(gate: str, who: str, why: str, sentence: str) -> None:
    with pytest.raises(ConfigurationError, match=sentence):
        check_rule(gate, who, why)
    content = dict(quick_protocol().content)
    content["policy"] = {gate: {"who": who, "why": why}}
    with pytest.raises(ProtocolError, match=sentence):
        parse_protocol(json.dumps(content), "own.json")


@pytest.mark.parametrize(
    ("who", "why", "sentence"),
    [("A" * 101, "x", "at most 100 characters"), ("Ada\nBo", "x", "on one line"),
     ("Ada", "x" * 1001, "has 1001 characters: give it in at most 1000")],
)  # fmt: skip
def test_a_policy_is_as_short_as_a_protocol_takes_it(who: str, why: str, sentence: str) -> None:
    check_rule("leak", "A" * 100, "x" * 1000)
    with pytest.raises(ConfigurationError, match=sentence):
        check_rule("leak", who, why)
    content = dict(quick_protocol().content)
    content["policy"] = {"leak": {"who": who, "why": why}}
    with pytest.raises(ProtocolError):
        parse_protocol(json.dumps(content), "own.json")


def test_a_verdict_says_where_sequences_were_cut(fake: FakeSubject) -> None:
    whole = make_benchmark({"a": "MKTAY" * 205, "b": "DERKHGGS"})
    verdict = validate_subject(fake, whole, oracle=None, protocol=quick_protocol())
    assert "; 1 of 2 sequences were cut to their first 1,022 residues (a)." in verdict.reason
