from sqlalchemy import Engine

from tests.store.builders import TARGET, make_report
from virnucpro_monitor.records import Finding, Outcome
from virnucpro_monitor.store.findings_reader import load_findings
from virnucpro_monitor.store.writer import Writer

TRACE = {"finding": "departs in layer 1", "signature": "softmax twice", "layer": 1}
PROBES = {"embedding": {"value": 0.1, "looks_like": "<mask> kept", "signature": "mask not zeroed"}}


def test_findings_of_failed_runs_by_run(engine: Engine) -> None:
    writer = Writer(engine)

    def store(number: int, outcome: Outcome, **documents: object) -> int:
        return writer.save_run(make_report(number, outcome=outcome, documents=documents))

    store(0, Outcome.PASSED, trace=TRACE)
    traced = store(1, Outcome.FAILED, trace=TRACE, probes=PROBES, noise={"reordered": 0.0})
    probed = store(2, Outcome.FAILED, trace={}, probes=PROBES)
    store(3, Outcome.FAILED, packs={})
    expected = {
        traced: Finding(signatures=("softmax twice", "mask not zeroed"), text="departs in layer 1"),
        probed: Finding(
            signatures=("mask not zeroed",), text="the embedding looks like <mask> kept"
        ),
    }
    assert load_findings(engine) == expected
    assert load_findings(engine, target=TARGET.name) == expected
    assert load_findings(engine, target="another") == {}
