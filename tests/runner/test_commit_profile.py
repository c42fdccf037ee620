"""The profile notes functions by name, in processes where a wrong one is found late."""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from tests.benchmarks.commit_notes import note_questions, noted_functions
from tests.benchmarks.commit_profile import Measured, Watch, tables
from tests.benchmarks.phases import Spent, Sums, judged, told
from tests.benchmarks.timeline import FILE, Timeline, read, report
from virnucpro_monitor.records.calls import Embedded, Loaded
from virnucpro_monitor.runner.remote import RemoteSubject
from virnucpro_monitor.runner.target_process import Host
from virnucpro_monitor.validation.subject import PackedBatch


def test_every_noted_function_is_there() -> None:
    noted = noted_functions()
    assert len({name for *_, name in noted}) == len(noted)
    assert [(place, function) for place, function, _ in noted if not hasattr(place, function)] == []


def test_a_function_owns_no_seconds_of_those_noted_within_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    sums = Sums()
    sums.enter("judge")
    with sums.noting("judge.trace"), sums.noting("judge.ask"):
        time.sleep(0.05)
    sums.tell()
    spent = told(capsys.readouterr().out)
    assert spent["judge.ask"].own == spent["judge.ask"].seconds >= 0.05
    for outer in ("judge", "judge.trace"):
        assert spent[outer].seconds >= 0.05
        assert spent[outer].own < 0.05
    sums.set_aside("standby.")
    sums.leave()
    assert set(sums.spent) == {"standby.judge.trace", "standby.judge.ask", "judge"}
    assert sums.spent["judge"].seconds < 0.05


def test_what_was_cut_off_is_told_by_outcome() -> None:
    watch = Watch()
    for outcome, seconds in (("failed", 9.0), ("failed", 2.0), ("passed", 1.0)):
        marks = {"begun": 10.0, "ended": 10.0 + seconds}
        spent = {"judge": Spent(seconds, seconds, seconds, 1)}
        watch.commits.append(Measured("one", not watch.commits, outcome, marks, spent))
    text = tables({"standing by": watch}, 3)
    assert "[0] passed (1), standing by" in text
    assert "[1] failed (1), standing by" in text
    whole = next(line for line in text.splitlines() if line.startswith("whole commit"))
    assert whole.split()[2:] == ["1.000", "2.000"]


@pytest.mark.parametrize("outcome", ["error", "not_run", "skipped"])
def test_a_commit_that_was_not_judged_ends_the_benchmark(outcome: str) -> None:
    def reports() -> Iterator[Any]:
        for name, found, reason in (("1a", "failed", "It leaks."), ("2b", outcome, "No torch.")):
            commit = SimpleNamespace(short=name)
            yield SimpleNamespace(run=SimpleNamespace(commit=commit, outcome=found, reason=reason))

    seen = judged(reports())
    assert next(seen).run.outcome == "failed"
    with pytest.raises(SystemExit, match=rf"2b is {outcome}: No torch\."):  # exit code 1
        next(seen)


class Echo:
    """A channel whose other end gives a row of ones for each token."""

    def __init__(self) -> None:
        loaded = Loaded(
            model_name="demo",
            num_layers=2,
            dtype="float32",
            device="cpu",
            backend="own",
            token_budget=100,
            fills=False,
        )
        self._answers: list[Any] = [(loaded, [])]

    def send(self, call: Any, tensors: Sequence[torch.Tensor]) -> None:
        rows = torch.ones(tensors[0].numel(), 4)
        self._answers.append((Embedded(layers=call.layers), [rows] * len(call.layers)))

    def receive(self, device: object) -> Any:
        return self._answers.pop()


def test_the_calls_of_a_judge_are_noted_and_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RemoteSubject, "ask", RemoteSubject.ask)
    monkeypatch.setattr(Host, "answer", Host.answer)
    timeline = Timeline.open(tmp_path, "judge")
    note_questions(timeline)
    subject = RemoteSubject(cast(Any, Echo()))
    subject.wait()
    ids = torch.tensor([0, 5, 2])
    pack = PackedBatch(ids, torch.tensor([0, 3], dtype=torch.int32), 3, ("one",))
    assert subject.embed_packed_layers(pack, [0, 2])[2].shape == (3, 4)
    assert subject.embed_unpacked_layers(ids, [2])[2].shape == (3, 4)
    timeline.write()
    (one,) = read(tmp_path / FILE)
    assert [(event[0], event[3]) for event in one["events"]] == [
        ("ask.EmbedPack", "3 of int64, 2 of int32, layers 2"),
        ("ask.EmbedAlone", "3 of int64, layers 1"),
    ]


class Place:
    @staticmethod
    def work(seconds: float) -> None:
        time.sleep(seconds)


def test_each_process_tells_its_own_calls_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Place, "work", Place.work)  # what is noted is taken back
    timeline = Timeline.open(tmp_path, "server")
    timeline.note(Place, "work", lambda seconds: f"work.{seconds}", lambda seconds: "of nothing")
    Place.work(0.02)
    timeline.write()
    Place.work(0.0)
    timeline.restart("target")  # what a fork has brought along is not its own
    Place.work(0.03)
    timeline.write()
    server, target = read(tmp_path / FILE)
    assert [(one[0], one[3]) for one in server["events"]] == [("work.0.02", "of nothing")]
    assert [one[0] for one in target["events"]] == ["work.0.03"]
    assert target["events"][0][2] >= 0.03
    assert "work.0.03  of nothing" in report(tmp_path / FILE)
