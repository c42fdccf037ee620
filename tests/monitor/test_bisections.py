"""Past searches are read at every door, from the rows that the search stored."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from tests.app.conftest import PageRunner, shown_html
from tests.monitor.conftest import CommandLine
from tests.store.builders import make_commit, make_report
from virnucpro_monitor import open_monitor
from virnucpro_monitor.cli.main import run_command
from virnucpro_monitor.records import Bisection, BisectStep
from virnucpro_monitor.store.engine import open_engine
from virnucpro_monitor.store.writer import Writer

BAD = (0.99, 1.0, 0.9999)
AT = datetime(2026, 3, 9, 12, tzinfo=UTC)
GOOD_END, FIRST_BAD, BAD_END = (make_commit(place).hash for place in (0, 2, 3))


@pytest.fixture
def searches(url: str, store: Callable[..., list[int]]) -> tuple[int, int]:
    """A finished search with two steps, and one that was broken off; their numbers."""
    ids = store(make_report(0), make_report(1), make_report(2, BAD), make_report(3, BAD))
    engine = open_engine(url)
    writer = Writer(engine)
    search = Bisection(target="sample", good=GOOD_END, bad=BAD_END, benchmark="seed", started_at=AT)
    finished = writer.start_bisection(search)
    for step, (commit, verdict, run_id) in enumerate(
        [(make_commit(1).hash, "good", ids[1]), (FIRST_BAD, "bad", ids[2])], start=1
    ):
        writer.save_bisect_step(
            finished,
            BisectStep(
                step=step, commit=commit, verdict=verdict, run_id=run_id, reused=True, at=AT
            ),
        )
    conclusion = f"{FIRST_BAD} is the first bad commit"
    writer.finish_bisection(finished, first_bad=FIRST_BAD, conclusion=conclusion)
    later = replace(search, gate="leak", started_at=AT + timedelta(days=1))
    broken_off = writer.start_bisection(later)
    engine.dispose()
    return finished, broken_off


def test_searches_are_listed_with_their_state(
    searches: tuple[int, int], command: CommandLine, url: str
) -> None:
    first, second = command("bisections", "list")
    assert (first["id"], first["state"], first["first_bad"]) == (searches[0], "found", FIRST_BAD)
    assert (second["id"], second["state"], second["gate"]) == (searches[1], "not finished", "leak")
    with open_monitor(url) as monitor:
        assert [one.id for one in monitor.bisections()] == list(searches)
        assert [one.id for one in monitor.bisections(target="sample")] == list(searches)


def test_a_search_is_shown_with_each_step(
    searches: tuple[int, int], command: CommandLine, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = command("bisections", "show", str(searches[0]))
    assert [(step["commit"], step["verdict"]) for step in shown["steps"]] == [
        (make_commit(1).hash, "good"),
        (FIRST_BAD, "bad"),
    ]
    assert run_command(["bisections", "show", str(searches[0])]) == 0
    printed = capsys.readouterr().out
    assert f"{FIRST_BAD} is the first bad commit" in printed
    assert "stored" in printed
    assert run_command(["bisections", "list"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 3


def test_a_commit_that_mended_is_not_called_bad(
    searches: tuple[int, int], command: CommandLine, run_page: PageRunner, url: str,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    engine = open_engine(url)
    writer = Writer(engine)
    older, newer = FIRST_BAD, make_commit(1).hash
    step = BisectStep(step=1, commit=newer, verdict="good", reused=True, at=AT)
    search = Bisection(
        target="sample", good=newer, bad=older, benchmark="seed", started_at=AT, steps=(step,)
    )
    number = writer.start_bisection(search)
    writer.finish_bisection(number, first_bad=newer, conclusion=f"{newer} is the first good commit")
    engine.dispose()
    assert command("bisections", "show", str(number))["brought"] == "good"
    assert command("bisections", "show", str(searches[0]))["brought"] == "bad"
    assert run_command(["bisections", "list"]) == 0
    printed = capsys.readouterr().out
    assert f"{newer[:10]}, first good" in printed
    assert f"{FIRST_BAD[:10]}, first bad" in printed
    assert f"compare?base={older}&amp;head={newer}" in shown_html(run_page("incidents", url))


def test_a_number_that_is_none_is_one_sentence(
    searches: tuple[int, int], refused: Callable[..., str]
) -> None:
    assert "`bisections list` shows the numbers" in refused("bisections", "show", "99")


def test_the_incidents_page_tells_of_searches(
    searches: tuple[int, int], command: CommandLine, run_page: PageRunner, url: str
) -> None:
    listed = shown_html(run_page("incidents", url))
    assert "not finished" in listed
    assert f"head={FIRST_BAD}" in listed
    (incident,) = command("incidents", "list")
    assert incident["first_bad"]["commit"] == FIRST_BAD
    detail = shown_html(run_page("incidents", url, incident=incident["key"]))
    assert f"head={FIRST_BAD}" in detail
    assert "not finished" not in detail  # that search never tried this commit
