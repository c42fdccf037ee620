"""The profile notes functions by name, in processes where a wrong one is found late."""

import time
from pathlib import Path

import pytest

from tests.benchmarks.commit_profile import Measured, Watch, noted_functions, tables
from tests.benchmarks.phases import Spent, Sums, told
from tests.benchmarks.timeline import FILE, Timeline, read, report


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
