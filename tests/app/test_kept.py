"""Answers that all readers share: kept while nothing is written, asked anew once something was."""

import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace

import pytest

from app.data import database, incidents
from tests.app.samples import sample_reports
from virnucpro_monitor.analysis.movements import Movement
from virnucpro_monitor.records import Run
from virnucpro_monitor.store.engine import open_engine
from virnucpro_monitor.store.writer import Writer

asked: list[str] = []


@database.kept()
def follow(name: str) -> int:
    asked.append(name)
    return len(asked)


@database.kept(unchanging=True)
def stand(name: str) -> int:
    asked.append(name)
    return len(asked)


def test_an_answer_is_kept_until_something_is_written(
    empty_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(database.URL_VARIABLE, empty_url)
    monkeypatch.setattr(database, "FRESH_S", 0.0)
    monkeypatch.setattr(database, "REST", 0)
    asked.clear()
    assert [follow("a"), follow("a"), stand("b"), stand("b")] == [1, 1, 2, 2]
    writable = open_engine(empty_url)
    Writer(writable).heartbeat("gpu-1", "sample", "idle", "", num_queued=0, exit_code=0)
    writable.dispose()
    assert [follow("a"), follow("a"), stand("b")] == [3, 3, 2]


def test_between_two_looks_at_the_database_an_answer_stays(
    empty_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(database.URL_VARIABLE, empty_url)
    monkeypatch.setattr(database, "FRESH_S", 3600.0)
    asked.clear()
    assert follow("c") == 1
    writable = open_engine(empty_url)
    Writer(writable).heartbeat("gpu-1", "sample", "idle", "", num_queued=0, exit_code=0)
    writable.dispose()
    assert follow("c") == 1


def test_a_series_is_searched_for_changes_once_until_a_run_joins_or_replaces_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    searched: list[int] = []

    def search(runs: Sequence[Run]) -> tuple[Movement, ...]:
        searched.append(len(runs))
        return ()

    monkeypatch.setattr(incidents, "find_movements", search)
    monkeypatch.setattr(incidents, "_movements", OrderedDict())
    runs = [report.run for report in sample_reports()]
    for _ in range(2):
        incidents._movements_of(runs)
    assert searched == [len(runs)]
    incidents._movements_of(runs[:-1])
    incidents._movements_of([runs[0], replace(runs[1], id=99), *runs[2:]])
    assert searched == [len(runs), len(runs) - 1, len(runs)]


@database.kept()
def dawdle() -> int:
    asked.append("dawdle")
    time.sleep(0.1)
    return len(asked)


@pytest.mark.parametrize(("rest", "times"), [(0, 2), (10_000, 1)])
def test_what_takes_long_to_ask_is_not_asked_all_the_time(
    rest: int, times: int, empty_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(database.URL_VARIABLE, empty_url)
    monkeypatch.setattr(database, "FRESH_S", 0.0)
    monkeypatch.setattr(database, "REST", rest)
    monkeypatch.setattr(database, "_states", {})
    dawdle.forget()
    asked.clear()
    dawdle()
    writable = open_engine(empty_url)
    Writer(writable).heartbeat("gpu-1", "sample", "idle", "", num_queued=0, exit_code=0)
    writable.dispose()
    dawdle()
    assert len(asked) == times


go_on = threading.Event()
begun = threading.Event()


@database.kept()
def wait_for_go() -> int:
    asked.append("waited")
    begun.set()
    assert go_on.wait(30)
    return len(asked)


@database.kept()
def made_of_it() -> int:
    return 10 * wait_for_go()


def test_while_one_asks_anew_others_see_what_was_but_nothing_new_is_made_of_it(
    empty_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(database.URL_VARIABLE, empty_url)
    monkeypatch.setattr(database, "FRESH_S", 0.0)
    monkeypatch.setattr(database, "REST", 0)
    asked.clear()
    go_on.set()
    assert (wait_for_go(), made_of_it()) == (1, 10)
    writable = open_engine(empty_url)
    Writer(writable).heartbeat("gpu-1", "sample", "idle", "", num_queued=0, exit_code=0)
    writable.dispose()
    go_on.clear()
    begun.clear()
    answers: list[int] = []
    both = [threading.Thread(target=lambda: answers.append(wait_for_go()))]
    both[0].start()
    assert begun.wait(30)
    assert wait_for_go() == 1  # what was
    both.append(threading.Thread(target=lambda: answers.append(made_of_it())))
    both[1].start()
    go_on.set()
    for one in both:
        one.join(30)
    assert sorted(answers) == [2, 20]
    assert wait_for_go() == 2
