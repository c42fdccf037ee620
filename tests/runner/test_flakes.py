"""A verdict that flips: measured again in another process, and never the last one's word alone."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.runner.conftest import MakePlan
from tests.runner.tiny_target import HEALTHY, MODEL_FILE, TinyRepository
from virnucpro_monitor.records import GateResult, Outcome, Run, RunReport
from virnucpro_monitor.runner.commits import run_commits
from virnucpro_monitor.runner.decide import Work
from virnucpro_monitor.runner.ledger import Ledger
from virnucpro_monitor.runner.workers import Workers

pytestmark = pytest.mark.usefixtures("shared_workers")

# Pads with what stands in a file outside: <pad>, which is right, or <cls>, which is attended to.
FLIPS = """
with open({file!r}) as told:
    PADDING = int(told.read())
"""
RIGHT, WRONG = "1", "0"


def test_a_target_that_flips_is_measured_again_and_both_verdicts_stand(
    tiny: TinyRepository, make_plan: MakePlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = tmp_path / "padding"
    code = FLIPS.format(file=str(told))
    commit = tiny.commit({MODEL_FILE: HEALTHY[MODEL_FILE].replace("PADDING = 1\n", code)})
    said: list[str] = []
    told.write_text(RIGHT)
    (first,) = run_commits(make_plan([commit]), on_message=said.append)
    assert first.run.outcome is Outcome.PASSED, first.run.reason
    assert said == []

    doubt = Ledger.doubt

    def doubt_then_mend(ledger: Ledger, run: Run) -> str:
        told.write_text(RIGHT)  # before the next process asks
        return doubt(ledger, run)

    monkeypatch.setattr(Ledger, "doubt", doubt_then_mend)
    told.write_text(WRONG)
    plan = make_plan([commit], force=True)
    flipped, last = run_commits(plan, known=[first.run], on_message=said.append)
    assert (flipped.run.outcome, last.run.outcome) == (Outcome.FAILED, Outcome.PASSED)
    assert said == [
        f"{flipped.run.commit.short} failed, where the same code passed before in this set-up: "
        "it is measured again in another process."
    ]
    # Nothing is in doubt in another environment, where another verdict may be right.
    monkeypatch.undo()
    assert first.run.environment is not None
    older = replace(first.run, environment=replace(first.run.environment, torch="2.10.0"))
    digest = first.run.configuration.weights_digest
    assert Ledger([older], plan.request, digest, plan.protocol).doubt(flipped.run) == ""
    assert Ledger([first.run], plan.request, digest, plan.protocol).doubt(flipped.run) != ""


def test_what_is_in_doubt_waits_for_the_place_that_it_has_left(
    tiny: TinyRepository, make_plan: MakePlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashes = [tiny.commit({MODEL_FILE: f"{HEALTHY[MODEL_FILE]}# {number}\n"}) for number in "abc"]
    first, second, third = hashes
    (healthy,) = run_commits(make_plan(hashes[:1]))
    begun: list[tuple[str, bool, list[str]]] = []
    running: list[str] = []
    second_begins, first_ends = threading.Event(), threading.Event()

    def measure(
        _: Workers, work: Work, *__: object, on_nearing_end: Callable[[], None], **___: object
    ) -> Iterator[RunReport]:
        begun.append((work.commit.hash, work.again, list(running)))
        running.append(work.commit.hash)
        if len(begun) == 1:
            on_nearing_end()
            assert second_begins.wait(30)
        else:
            second_begins.set()
            assert first_ends.wait(30)  # else the third may begin beside the first as well
        yield replace(healthy, run=replace(healthy.run, commit=work.commit))
        running.remove(work.commit.hash)
        first_ends.set()

    def doubt(_: Ledger, run: Run) -> str:
        return "flips" if run.commit.hash == first else ""

    monkeypatch.setattr(Workers, "measure", measure)
    monkeypatch.setattr(Ledger, "doubt", doubt)
    reports = list(run_commits(make_plan(hashes, workers=1, force=True)))
    assert [report.run.commit.hash for report in reports] == [first, first, second, third]
    # Nothing but what nears its end has another beside it.
    assert begun[:2] == [(first, False, []), (second, False, [first])]
    assert sorted(begun[2:]) == sorted([(first, True, []), (third, False, [])])


def test_what_does_not_repeat_itself_is_in_doubt(tiny: TinyRepository, make_plan: MakePlan) -> None:
    plan = make_plan([tiny.git("rev-parse", "HEAD")])
    (healthy,) = run_commits(plan)
    repeat = GateResult(name="repeat", passed=False, value=0.1, limit=0.0, unit="max abs")
    ledger = Ledger([], plan.request, healthy.run.configuration.weights_digest, plan.protocol)
    assert ledger.doubt(healthy.run) == ""
    unsteady = replace(healthy.run, outcome=Outcome.FAILED, gates=(repeat,))
    assert ledger.doubt(unsteady) == "failed, and gives other values for the same input"
    # What is NaN twice has no value to differ by, and is no less steady for it.
    not_finite = replace(repeat, value=None)
    assert ledger.doubt(replace(unsteady, gates=(not_finite,))) == ""
