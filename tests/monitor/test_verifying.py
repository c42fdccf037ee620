"""A verdict must follow from the measures that are stored with it, and so must the roll-ups."""

import dataclasses
import json
import re
import sqlite3
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.store.builders import CONFIGURATION, PROTOCOL, make_gate, make_report
from tests.validation.conftest import FakeSubject, fake, make_benchmark, protocol
from virnucpro_monitor.cli.main import run_command
from virnucpro_monitor.errors import StoreError
from virnucpro_monitor.monitor import verifying
from virnucpro_monitor.monitor.sink import Sink
from virnucpro_monitor.monitor.verifying import check_everything, require_founded
from virnucpro_monitor.records import Culprit, Outcome, Protocol, RunReport
from virnucpro_monitor.validation.protocol import limits_of
from virnucpro_monitor.validation.validate import validate_subject

__all__ = ["fake", "protocol"]  # fixtures, by their import

BENCHMARK = make_benchmark({"a": "MKTAYIAK", "b": "DERKH", "c": "AILVFMWP", "d": "MVHLT"})


@pytest.fixture
def reports(fake: FakeSubject, protocol: Protocol) -> list[RunReport]:
    """A commit that passed and one with a packed side that is off, as they were measured."""
    found = []
    for number in range(2):
        if number:
            fake.on_packed = lambda rows, pack, layer: rows + 0.3 * rows.roll(1, 0)
        verdict = validate_subject(fake, BENCHMARK, oracle=None, protocol=protocol)
        # Limits are a model's own: judged again by those that it was judged by.
        configuration = dataclasses.replace(CONFIGURATION, model=fake.model_name)
        report = make_report(
            number, (), benchmark=BENCHMARK, protocol=protocol, configuration=configuration
        )
        run = dataclasses.replace(
            report.run,
            outcome=verdict.outcome,
            culprit=verdict.culprit,
            reason=verdict.reason,
            figures=verdict.figures,
            gates=verdict.gates,
        )
        found.append(
            dataclasses.replace(
                report, run=run, sequences=verdict.sequences, documents=verdict.documents
            )
        )
    assert [report.run.outcome for report in found] == [Outcome.PASSED, Outcome.FAILED]
    return found


def test_what_the_yardstick_measured_is_founded(
    reports: list[RunReport], store: Callable[..., list[int]], url: str
) -> None:
    for report in reports:
        require_founded(report)
    store(*reports)
    assert check_everything(url).problems == ()


def with_run(report: RunReport, **changes: Any) -> RunReport:
    return dataclasses.replace(report, run=dataclasses.replace(report.run, **changes))


def with_figures(report: RunReport, **changes: Any) -> RunReport:
    assert report.run.figures is not None
    return with_run(report, figures=dataclasses.replace(report.run.figures, **changes))


FORGED: dict[str, tuple[Callable[[RunReport], RunReport], str]] = {
    "passed over failed": (
        lambda r: with_run(r, outcome=Outcome.PASSED),
        "its outcome is stored as passed and would be failed",
    ),
    "another culprit": (
        lambda r: with_run(r, culprit=Culprit.UNPACKED),
        "its culprit is stored as unpacked and would be packed",
    ),
    "a gate that holds": (
        lambda r: with_run(
            r, gates=tuple(dataclasses.replace(gate, passed=True) for gate in r.run.gates)
        ),
        "its gate '.*' would be failed by",
    ),
    "another limit": (
        lambda r: with_run(
            r,
            gates=tuple(
                dataclasses.replace(gate, limit=gate.limit and 2 * gate.limit)
                for gate in r.run.gates
            ),
        ),
        "its gate '.*' would be",
    ),
    "a better figure": (
        lambda r: with_figures(r, min_similarity=1.0),
        "its min_similarity is stored as 1.0 and would be 0",
    ),
    "fewer failures": (lambda r: with_figures(r, num_failed=0), "its num_failed is stored as 0"),
    "no measures": (
        lambda r: dataclasses.replace(r, sequences=(), documents={}),
        "it cannot be judged again|would be",
    ),
    "no figures": (lambda r: with_run(r, figures=None), "it has no figures"),
}


@pytest.mark.parametrize("what", FORGED)
def test_what_does_not_follow_is_not_stored(what: str, reports: list[RunReport], url: str) -> None:
    forge, message = FORGED[what]
    with (
        Sink(url, reports[1].target, say=pytest.fail) as sink,
        pytest.raises(StoreError, match=f"was not stored, since its measures .*: {message}"),
    ):
        sink.save(forge(reports[1]))
    assert check_everything(url).row_counts["runs"] == 0


@pytest.mark.parametrize("what", FORGED)
def test_what_does_not_follow_is_found_in_a_database(
    what: str,
    reports: list[RunReport],
    url: str,
    store: Callable[..., list[int]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Also where it was stored with a digest that fits, by other means than a start."""
    forge, message = FORGED[what]
    store(reports[0], forge(reports[1]))
    assert run_command(["db", "check", "--json"]) == 1
    problems = json.loads(capsys.readouterr().out)["problems"]
    assert problems
    assert all(problem.startswith("Run 2 is not what its measures say: ") for problem in problems)
    assert any(re.search(message, problem) for problem in problems)


def test_an_altered_verdict_is_found_twice(
    reports: list[RunReport], url: str, store: Callable[..., list[int]]
) -> None:
    """By its digest, and by its measures: who alters both has to alter the measures, too."""
    store(*reports)
    with sqlite3.connect(Path(url.removeprefix("sqlite:///"))) as database:
        database.execute("UPDATE runs SET outcome = 'passed' WHERE id = 2")
    database.close()
    assert check_everything(url).problems == (
        "Run 2 was changed: its rows no longer have its digest.",
        "Run 2 is not what its measures say: its outcome is stored as passed and would be failed.",
    )


def test_each_measured_attempt_is_judged_again_and_nothing_else(
    reports: list[RunReport], url: str, store: Callable[..., list[int]]
) -> None:
    """Also one that a later attempt superseded; what was not measured has no verdict to hold."""
    passed, failed = reports
    forged = with_run(failed, outcome=Outcome.PASSED, culprit=Culprit.NONE)
    nothing = {"gates": (), "figures": None, "culprit": Culprit.NONE}
    store(
        forged,
        failed,  # the same commit, measured again
        with_run(passed, outcome=Outcome.ERROR, reason="It could not be run.", **nothing),
        with_run(passed, outcome=Outcome.NOT_RUN, reason="The GPU was busy.", **nothing),
        passed,
    )
    problems = check_everything(url).problems
    assert {problem.partition(" is not what")[0] for problem in problems} == {"Run 1"}
    assert any("its outcome is stored as passed and would be failed" in one for one in problems)
    require_founded(with_run(passed, outcome=Outcome.NOT_RUN, **nothing))


NO_LONGER = {"p01_similarity": None, "median_similarity": None}


@pytest.mark.parametrize(
    ("stored", "again", "version", "told"),
    [
        ({}, {}, "2", []),
        ({}, {"value": 1.0 + 1e-13}, "2", []),
        ({}, {"value": 1.0 + 1e-9}, "2", ["its gate 'x' would be passed by 1.000000001"]),
        ({}, {"limit": 3.0}, "2", ["its gate 'x' would be passed by 1.0"]),
        ({}, {"passed": False}, "2", ["its gate 'x' would be failed by 1.0"]),
        ({}, {"passed": None}, "2", ["its gate 'x' would be not judged by 1.0"]),
        ({"passed": None}, {}, "2", ["its gate 'x' would be passed by 1.0"]),
        ({"name": "newer"}, {"passed": False}, "2", []),
        # A number that stood beside missing values under protocol 1 is no contradiction there.
        ({}, {"value": None}, "1", []),
        ({}, {"value": None}, "2", ["its gate 'x' would be passed by None"]),
    ],
)
def test_how_a_gate_differs_is_one_sentence(
    stored: dict[str, Any], again: dict[str, Any], version: str, told: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    gate = make_gate("x", True, 1.0, limit=2.0)
    content = {"limits": {}}
    held = dataclasses.replace(PROTOCOL, version=version, content=content)
    configuration = dataclasses.replace(CONFIGURATION, model="esm2_t6_8M_UR50D")
    report = make_report(0, protocol=held, configuration=configuration)
    run = dataclasses.replace(report.run, gates=(dataclasses.replace(gate, **stored),))
    asked: list[Any] = []

    def judge(*given: Any, **named: Any) -> Any:
        asked.append((given, named))
        return SimpleNamespace(
            outcome=run.outcome, culprit=run.culprit, figures=run.figures,
            gates=(dataclasses.replace(gate, **again),),
        )  # fmt: skip

    monkeypatch.setattr(verifying, "judge", judge)
    documents = {"noise": {}}
    found = list(verifying.contradictions(run, report.sequences, documents, held))
    assert found == told
    assert asked == [
        ((report.sequences, documents, held), {"limits_name": limits_of(configuration)})
    ]


@pytest.mark.parametrize(
    ("again", "version", "told"),
    [
        (NO_LONGER, "1", []),
        (NO_LONGER, "2", []),
        ({"min_similarity": None}, "1", []),
        (
            {"min_similarity": None},
            "2",
            ["its min_similarity is stored as 0.99999 and would be None"],
        ),
        ({"num_failed": 1}, "1", ["its num_failed is stored as 0 and would be 1"]),
        (
            {"p01_similarity": 0.5},
            "2",
            ["its p01_similarity is stored as 0.99999 and would be 0.5"],
        ),
    ],
)
def test_how_a_figure_differs_is_one_sentence(
    again: dict[str, Any], version: str, told: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Older builds took some over the sequences whose value is known: those may go."""
    held = dataclasses.replace(PROTOCOL, version=version, content={"limits": {}})
    report = make_report(0, protocol=held)
    run = report.run
    assert run.figures is not None
    judged = SimpleNamespace(
        outcome=Outcome.FAILED, culprit=Culprit.PACKED, gates=(),
        figures=dataclasses.replace(run.figures, **again),
    )  # fmt: skip
    monkeypatch.setattr(verifying, "judge", lambda *_, **__: judged)
    found = list(verifying.contradictions(run, report.sequences, {}, held))
    assert found == [
        "its outcome is stored as passed and would be failed",
        "its culprit is stored as none and would be packed",
        *told,
    ]

    def fail(*_: Any, **__: Any) -> None:
        raise ValueError("no such length")

    monkeypatch.setattr(verifying, "judge", fail)
    assert list(verifying.contradictions(run, (), {}, held)) == [
        "it cannot be judged again (ValueError: no such length)"
    ]
