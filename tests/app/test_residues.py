"""The chart along a sequence, and what it says where nothing was recorded."""

import html
from dataclasses import replace
from pathlib import Path

import plotly.graph_objects as go

from app.residues import residues_figure, worst_residue, worst_sentence
from tests.app.conftest import PageRunner, shown_html
from tests.app.samples import Step, sample_reports
from virnucpro_monitor.records import Json, Outcome
from virnucpro_monitor.store.engine import create_database, open_engine
from virnucpro_monitor.store.writer import Writer

TRACED = {
    "sequence_id": "P1<b>",
    "residues": "MKTAW",
    "errors": {
        "packed_unpacked": [1e-7, 0.0, 2e-7, 3e-3, 1e-7],
        "packed": [1e-7, 1e-7, 2e-7, 3e-3, 1e-7],
        "unpacked": [1e-8, 1e-8, 1e-8, 1e-8, 1e-8],
    },
    "relative_l2": {"packed_unpacked": [1e-3, None, 1e-3, 5e-2, 1e-3]},
}


def by_name(figure: go.Figure) -> dict[str, go.Scatter]:
    return {trace.name: trace for trace in figure.data}


def test_each_side_is_a_line_over_places_counted_from_1() -> None:
    lines = by_name(residues_figure(TRACED, "errors"))
    for side, name in (
        ("packed_unpacked", "packed against unpacked"),
        ("packed", "packed from oracle"),
        ("unpacked", "unpacked from oracle"),
    ):
        assert list(lines[name].x) == [1, 2, 3, 4, 5]
        drawn = [y for y, e in zip(lines[name].y, TRACED["errors"][side], strict=True) if e]  # type: ignore[index]
        assert drawn == [e for e in TRACED["errors"][side] if e]  # type: ignore[index]
    assert lines["packed from oracle"].customdata[3][1] == "A4: packed from oracle 3.0e-3"


def test_the_worst_residue_is_marked_with_letter_and_place() -> None:
    mark = by_name(residues_figure(TRACED, "errors"))["worst residue"]
    assert (list(mark.x), list(mark.y), list(mark.text)) == ([4], [3e-3], ["A4: 3.0e-3"])
    assert worst_sentence(TRACED, "errors") == "worst residue A4 of 5: 1 - cos 3.0e-3"


def test_a_residue_that_is_not_finite_is_the_worst() -> None:
    assert worst_residue(TRACED, "relative_l2") == 1
    mark = by_name(residues_figure(TRACED, "relative_l2"))["worst residue"]
    assert list(mark.text) == ["K2: not finite"]
    others = by_name(residues_figure(TRACED, "relative_l2"))["packed against unpacked"].y
    assert mark.y[0] == max(others)


def test_without_a_common_length_there_is_no_worst_residue() -> None:
    lost = TRACED | {"errors": {}}
    assert worst_residue(lost, "errors") is None
    assert "another number of residues" in worst_sentence(lost, "errors")


def store_failed_run(folder: Path, documents: dict[str, Json]) -> tuple[str, str]:
    """A database with one failed run that has these further documents: its URL, the run's id."""
    url = f"sqlite:///{folder / 'one.db'}"
    create_database(url)
    engine = open_engine(url)
    (report,) = sample_reports((Step(bad_from=400),))
    assert report.run.outcome is Outcome.FAILED
    report = replace(report, documents={**report.documents, **documents})
    run_id = Writer(engine).save_run(report)
    engine.dispose()
    return url, str(run_id)


def test_the_run_page_draws_the_document(run_page: PageRunner, tmp_path: Path) -> None:
    url, run_id = store_failed_run(tmp_path, {"residues": {"sequences": [TRACED]}})
    app = run_page("run", url, run=run_id)
    assert not app.exception
    text = shown_html(app)
    assert html.escape("P1<b>") in text
    assert "worst residue A4 of 5: 1 - cos 3.0e-3" in text
    app = run_page("run", url, run=run_id, residues="relative_l2")
    assert "worst residue K2 of 5: not finite" in shown_html(app)


def test_an_older_run_says_that_it_was_not_recorded(run_page: PageRunner, tmp_path: Path) -> None:
    url, run_id = store_failed_run(tmp_path, {})
    assert "Not recorded in this run." in shown_html(run_page("run", url, run=run_id))
