"""The branch filter: what the reader can choose, and which runs each choice shows."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from app import data
from tests.app.conftest import PageRunner, shown_html
from tests.app.samples import START, Step, sample_reports
from virnucpro_monitor.records import RunReport
from virnucpro_monitor.store.engine import create_database, open_engine
from virnucpro_monitor.store.writer import Writer

FEATURE = "feature/heads"


def off_branch(report: RunReport, number: int, parent: str, branches: list[str]) -> RunReport:
    """The same run, but of a commit of other branches, made in the evening of 2026-03-01."""
    moment = START + timedelta(hours=15 + number / 10)
    commit = replace(
        report.run.commit,
        hash=f"fea{number:037x}",
        parents=(parent,),
        subject=f"Try heads, part {number}",
        committed_at=moment,
        position=None,
        on_branch=False,
    )
    return replace(
        report,
        run=replace(report.run, commit=commit),
        documents={**report.documents, "branches": branches},
    )


@pytest.fixture
def branched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, list[str], list[str]]:
    """A database; the hashes of main's six commits and of the branch's two, which left at 1."""
    url = f"sqlite:///{tmp_path / 'branched.db'}"
    create_database(url)
    engine = open_engine(url)
    reports = list(sample_reports([Step()] * 6))
    hashes = [report.run.commit.hash for report in reports]
    first = off_branch(reports[0], 1, hashes[1], [FEATURE])
    last = off_branch(reports[1], 2, first.run.commit.hash, [FEATURE, "wip"])
    for report in (*reports, first, last):
        Writer(engine).save_run(report)
    engine.dispose()
    monkeypatch.setenv("VIRNUCPRO_MONITOR_DB", url)
    return url, hashes, [first.run.commit.hash, last.run.commit.hash]


def shown(branch: str, limit: int | None = None) -> list[str]:
    (card,) = data.load_series()
    return [run.commit.hash for run in data.load_branch_runs(card, branch, limit)]


def test_each_branch_and_all_can_be_chosen(branched) -> None:
    assert data.load_branches("sample") == {
        "": "main",
        FEATURE: FEATURE,
        "wip": "wip",
        data.EVERY_BRANCH: "All commits",
    }


def test_a_branch_is_what_it_left_and_what_only_it_holds(branched) -> None:
    _, main, feature = branched
    assert shown("") == main
    assert shown(FEATURE) == [*main[:2], *feature]
    assert shown(FEATURE, 3) == [main[1], *feature]
    assert shown(FEATURE, 1) == feature[-1:]
    # Nobody has measured the commit that wip left at on the followed branch.
    assert shown("wip") == feature[1:]
    assert shown("no such branch") == []


def test_all_commits_stand_in_order_of_their_dates(branched) -> None:
    _, main, feature = branched
    # main has a commit every seven hours: the third one at 14:00 after the first.
    assert shown(data.EVERY_BRANCH) == [*main[:3], *feature, *main[3:]]
    assert shown(data.EVERY_BRANCH, 4) == [feature[1], *main[3:]]


def test_the_overview_shows_the_chosen_branch(branched, run_page: PageRunner) -> None:
    url, _, feature = branched
    text = shown_html(run_page("overview", url))
    assert "6 runs, 0 bad" in text
    assert feature[1][:10] not in text
    text = shown_html(run_page("overview", url, branch=FEATURE))
    assert "4 runs, 0 bad" in text
    assert feature[1][:10] in text
    text = shown_html(run_page("overview", url, branch="*"))
    assert "8 runs, 0 bad" in text
    assert "6 runs, 0 bad" in shown_html(run_page("overview", url, branch="gone"))


def test_a_comparison_takes_a_stored_branch_by_name(branched, run_page: PageRunner) -> None:
    url, main, feature = branched
    app = run_page("compare", url, base=main[1], head=FEATURE)
    assert not app.exception
    text = shown_html(app)
    assert feature[1][:10] in text
    assert "Try heads, part 2" in text


def test_a_comparison_is_suggested_for_a_branch(branched, run_page: PageRunner) -> None:
    url, main, feature = branched
    text = shown_html(run_page("compare", url, branch=FEATURE))
    assert f"base={main[1]}&amp;head={feature[1]}" in text
    assert "against where it left the followed branch" in text


def test_a_run_off_the_followed_branch_leads_to_its_parent(branched) -> None:
    (card,) = data.load_series()
    first, last = data.load_branch_runs(card, FEATURE, None)[-2:]
    before, after = data.load_neighbours(last)
    assert before is not None
    assert (before.commit.hash, after) == (first.commit.hash, None)


def test_a_run_page_names_the_branches(branched, run_page: PageRunner) -> None:
    url, *_ = branched
    (card,) = data.load_series()
    on_main, *_, on_both = data.load_branch_runs(card, FEATURE, None)
    for run, words in ((on_main, "main"), (on_both, f"{FEATURE}, wip")):
        text = shown_html(run_page("run", url, run=str(run.id)))
        assert f"<dt>branch</dt><dd><bdi>{words}</bdi></dd>" in text
