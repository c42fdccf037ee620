"""The main road on a database made by the real `demo`: overview, a run, a comparison."""

import html
import re

import pytest
from playwright.sync_api import Page, expect

from app.text import format_error, format_value
from tests.browser.conftest import OpenPage
from virnucpro_monitor.analysis.comparison import Mark, compare_runs
from virnucpro_monitor.analysis.series import worst_error
from virnucpro_monitor.records import Outcome, Run
from virnucpro_monitor.store import reader
from virnucpro_monitor.store.engine import open_engine

pytestmark = [pytest.mark.browser, pytest.mark.slow]


def stored_runs(url: str) -> list[Run]:
    return reader.load_runs(open_engine(url, read_only=True))


def last_failed(url: str) -> tuple[Run, Run]:
    """The last failed run and the one before it."""
    runs = stored_runs(url)
    place = max(place for place, run in enumerate(runs) if run.outcome is Outcome.FAILED)
    return runs[place - 1], runs[place]


def test_the_overview_shows_every_commit_and_which_ones_fail(
    demo_address: str, demo_database_url: str, open_page: OpenPage
) -> None:
    runs = stored_runs(demo_database_url)
    bad = sum(run.outcome in (Outcome.FAILED, Outcome.ERROR) for run in runs)
    assert 0 < bad < len(runs)
    page = open_page(demo_address)
    expect(page.get_by_text(f"{len(runs)} runs, {bad} bad.")).to_be_visible()
    expect(page.locator(".vm-glance a")).to_have_count(len(runs))
    rows = page.get_by_role("table", name="Commits and gates").get_by_role("row")
    expect(rows).to_have_count(len(runs) + 1)
    for row, run in zip(rows.all()[1:], reversed(runs), strict=True):
        text = row.inner_text()
        assert run.outcome.value.replace("_", " ") in text
        assert run.commit.hash[:10] in text
        assert run.commit.author in text
        if run.figures is not None:
            assert f"{run.figures.num_strict} of {run.figures.num_sequences}" in text
            judged = [gate for gate in run.gates if gate.passed is (run.outcome is Outcome.PASSED)]
            assert any(gate.name in text for gate in judged)
    _, failed = last_failed(demo_database_url)
    gate = next(gate for gate in failed.gates if gate.passed is False and gate.value is not None)
    words = f"{gate.name} failed: {format_value(gate.value)}, limit {format_value(gate.limit)}"
    row = rows.filter(has_text=failed.commit.hash[:10])
    row.get_by_role("link", name=words).click()  # a cell says value and limit, and opens the run
    expect_run(page, failed)
    page.get_by_role("link", name="How it was measured").click()
    expect(page.get_by_role("heading", name="How it was measured")).to_be_in_viewport()


def test_the_chart_marks_each_run_and_a_click_opens_it(
    demo_address: str, demo_database_url: str, open_page: OpenPage
) -> None:
    runs = stored_runs(demo_database_url)
    page = open_page(f"{demo_address}/?chart=agreement")
    measured = [run for run in runs if run.figures is not None]
    # Each run has an outcome's mark; each measured one a pass rate and a worst error too.
    points = page.locator(".js-plotly-plot .scatterlayer .point")
    expect(points).to_have_count(len(runs) + 2 * len(measured))
    place = next(i for i, run in enumerate(measured) if run.outcome is Outcome.FAILED)
    point = points.nth(len(runs) + len(measured) + place)
    point.scroll_into_view_if_needed()
    box = point.bounding_box()
    assert box is not None
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.wait_for_url(re.compile(rf"/run\?run={measured[place].id}$"))
    expect_run(page, measured[place])


def expect_run(page: Page, run: Run) -> None:
    title = page.get_by_role("heading", level=1)
    expect(title).to_have_text(f"{run.commit.hash[:10]} on {run.benchmark}")
    expect(page.get_by_text(run.reason[:60]).first).to_be_visible()


def test_from_the_overview_to_a_run_to_a_comparison(
    demo_address: str, demo_database_url: str, open_page: OpenPage
) -> None:
    before, failed = last_failed(demo_database_url)
    page = open_page(demo_address)
    table = page.get_by_role("table", name="Commits and gates")
    table.get_by_role("link", name=failed.commit.hash[:10]).click()
    expect_run(page, failed)
    assert failed.figures is not None
    figures = failed.figures
    tiles = page.locator(".vm-tiles").first
    expect(tiles).to_contain_text(f"{figures.num_strict} of {figures.num_sequences}")
    expect(tiles).to_contain_text(format_error(worst_error(failed)))
    gates = page.get_by_role("table", name="Gates")
    for gate in failed.gates:
        row = gates.get_by_role("row").filter(has_text=re.compile(rf"^{re.escape(gate.name)}\b"))
        expect(row).to_contain_text(
            "not judged" if gate.passed is None else "passed" if gate.passed else "failed"
        )
    expect_sequence_table(page, demo_database_url, failed)

    page.get_by_role("link", name="compare with previous").click()
    page.wait_for_url(re.compile(rf"base={before.commit.hash}&head={failed.commit.hash}"))
    engine = open_engine(demo_database_url, read_only=True)
    comparison = compare_runs(
        before,
        reader.load_sequences(engine, before.id or 0),
        failed,
        reader.load_sequences(engine, failed.id or 0),
    )
    assert comparison.verdict == "broke"
    expect(page.get_by_text("It broke")).to_be_visible()
    newly = len(comparison.marked(Mark.NEWLY_FAILING))
    assert newly > 0
    expect(page.get_by_text(re.compile(rf"^{newly} sequences? newly bad"))).to_be_visible()


def expect_sequence_table(page: Page, url: str, run: Run) -> None:
    engine = open_engine(url, read_only=True)
    stored = reader.load_sequences(engine, run.id or 0, order_by="similarity")
    table = page.get_by_test_id("stDataFrame")
    table.scroll_into_view_if_needed()
    # The grid is drawn on a canvas; its cells are there for screen readers.
    cells = table.locator("[role=gridcell]")
    first = cells.filter(has_text=re.compile(rf"^{re.escape(stored[0].sequence_id)}$"))
    first.first.wait_for(state="attached")
    texts = cells.all_text_contents()
    for result in stored[:5]:
        assert result.sequence_id in texts
        assert result.similarity is not None
        assert str(1 - result.similarity) in texts


def test_two_hashes_in_the_address_are_compared(
    demo_address: str, demo_database_url: str, open_page: OpenPage
) -> None:
    before, failed = last_failed(demo_database_url)
    base, head = before.commit.hash[:8], failed.commit.hash[:8]
    page = open_page(f"{demo_address}/compare?base={base}&head={head}")
    sides = page.get_by_role("table", name="Base and head")
    expect(sides).to_contain_text(before.commit.subject)
    expect(sides).to_contain_text(failed.commit.subject)
    page.get_by_role("button", name="Swap").click()
    page.wait_for_url(re.compile(rf"base={head}&head={base}"))
    expect(page.get_by_text("It was fixed")).to_be_visible()
    # Base and head are found by a part of a subject too.
    other = next(run for run in stored_runs(demo_database_url) if run.outcome is Outcome.PASSED)
    picker = page.get_by_role("combobox", name="Base")
    picker.click()
    picker.fill(other.commit.subject[:30])
    page.get_by_role("option").filter(has_text=other.commit.hash[:10]).click()
    page.wait_for_url(re.compile(rf"base={other.commit.hash}"))
    expect(sides).to_contain_text(other.commit.subject)


def test_an_error_run_shows_its_traceback(
    demo_address: str, demo_database_url: str, open_page: OpenPage
) -> None:
    run = next(run for run in stored_runs(demo_database_url) if run.outcome is Outcome.ERROR)
    failure = reader.load_failure(open_engine(demo_database_url, read_only=True), run.id or 0)
    assert failure is not None
    page = open_page(f"{demo_address}/run?run={run.id}")
    expect(page.get_by_test_id("stCode").first).to_contain_text(
        failure.traceback.strip().splitlines()[-1].partition("adapters.")[2]
    )
    assert html.unescape(page.inner_text("h1")).startswith(run.commit.hash[:10])


def test_a_failed_run_is_traced_along_its_worst_sequences(
    demo_address: str, demo_database_url: str, open_page: OpenPage
) -> None:
    _, failed = last_failed(demo_database_url)
    engine = open_engine(demo_database_url, read_only=True)
    stored = {r.sequence_id: r for r in reader.load_sequences(engine, failed.id or 0)}
    traced = reader.load_document(engine, failed.id or 0, "residues")["sequences"]
    page = open_page(f"{demo_address}/run?run={failed.id}")
    for one in traced:
        result = stored[one["sequence_id"]]
        assert result.worst_residue is not None
        letter = one["residues"][result.worst_residue]
        error = one["errors"]["packed_unpacked"][result.worst_residue]
        assert error == pytest.approx(1 - (result.worst_residue_similarity or 0), rel=1e-3)
        words = (
            f"worst residue {letter}{result.worst_residue + 1} of {result.length}: "
            f"1 - cos {format_error(error)}"
        )
        expect(page.get_by_text(words)).to_be_visible()
        name = f"{one['sequence_id']}, packed against unpacked"
        letters = page.get_by_role("group", name=name).first
        expect(letters).to_have_text(one["residues"])
        expect(letters.locator("i").nth(result.worst_residue)).to_have_attribute(
            "title", re.compile(re.escape(format_error(error)))
        )
    page.get_by_role("radio", name="Relative L2").click()
    expect(page).to_have_url(re.compile("residues=relative_l2"))
    expect(page.get_by_text(re.compile(r"worst residue .*: Relative L2 ")).first).to_be_visible()
