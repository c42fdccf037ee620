"""Commits x gates, and the agreement at a glance: what a reader finds of each run."""

import html
import re
from datetime import UTC, datetime

from app.glance import glance
from app.heat import heat_rows, heat_table
from app.trend import trend_info
from tests.app.samples import HISTORY, sample_protocol, sample_reports
from virnucpro_monitor.analysis.comparison import Thresholds
from virnucpro_monitor.analysis.trends import find_events
from virnucpro_monitor.records import Outcome

NOW = datetime(2026, 3, 10, tzinfo=UTC)
REPORTS = tuple(sample_reports())
RUNS = [report.run for report in REPORTS]
THRESHOLDS = Thresholds.of_protocol(sample_protocol().content)


def table(limit: int = 50) -> str:
    rows = heat_rows(
        RUNS,
        limit,
        finding=lambda run: None,
        flips=lambda run: 0,
        events=find_events(RUNS),
        outside=lambda run: f"https://example.org/commit/{run.commit.hash}",
    )
    return heat_table(rows, NOW, caption="Commits and gates").code


def test_each_commit_is_a_row_whose_cells_say_value_and_limit() -> None:
    text = table()
    rows = re.findall(r'<tr role="row" class="(?:bad)?">(.*?)</tr>', text)
    for row, run in zip(rows, reversed(RUNS), strict=True):
        assert run.commit.hash[:10] in row
        assert html.escape(run.commit.author) in row
        assert f"run?run={run.id}" in row
        cells = re.findall(r'class="c [a-z0-9]+" .*?aria-label="([^"]*)"', row)
        assert len(cells) == len(run.gates)
        for label, gate in zip(cells, run.gates, strict=True):
            verdict = {True: "passed", False: "failed", None: "not judged"}[gate.passed]
            assert label.startswith(f"{gate.name} {verdict}: ")
        crosses = sum(gate.passed is False for gate in run.gates)
        assert row.count(">✖</b></a>") == crosses


def test_an_error_has_a_mark_of_its_own_and_a_change_stands_between_the_rows() -> None:
    text = table()
    error = next(run for run in RUNS if run.outcome is Outcome.ERROR)
    rows = re.sub("</?bdi>", "", text).split("<tr")
    row = next(row for row in rows if f">{error.commit.hash[:10]}<" in row)
    assert "▲ error: The commit could not be run." in row
    assert "environment changed: " in text
    assert "2.14.0" in text


def test_no_more_rows_than_asked_for_and_the_last_one_has_something_to_compare_with() -> None:
    text = table(3)
    assert len(re.findall(">compare</bdi>", text)) == 3
    assert RUNS[-4].commit.hash[:10] not in re.sub(r'href="[^"]*"', "", text)


def test_the_picture_links_each_run_and_says_its_figures() -> None:
    info = trend_info(
        RUNS,
        {RUNS[0].protocol_digest: THRESHOLDS},
        reader_zone=UTC,  # type: ignore[arg-type]
    )
    text = glance(info, caption="Agreement").code
    labels = dict(re.findall(r'href="run\?run=(\d+)".*?aria-label="([^"]*)"', text))
    assert set(labels) == {str(run.id) for run in RUNS}
    for run in RUNS:
        label = labels[str(run.id)]
        assert run.commit.hash[:10] in label
        if run.figures is not None:
            assert f"{run.figures.num_strict} of {run.figures.num_sequences}" in label
    assert [commit.hash[:7] in text for commit in (run.commit for run in RUNS)] == [True] * len(
        HISTORY
    )
