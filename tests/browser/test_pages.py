"""Every page in a real browser: links, keys, history, narrow screens and hostile text."""

import re
from importlib.resources import files
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from app.links import link, series_parameters
from tests.app.conftest import HOSTILE_SUBJECT, fill
from tests.app.samples import HISTORY, sample_configuration
from tests.browser.conftest import OpenPage, served
from virnucpro_monitor.records import Outcome
from virnucpro_monitor.store import notes_reader, reader
from virnucpro_monitor.store.engine import open_engine

pytestmark = [pytest.mark.browser, pytest.mark.slow]

AXE = files("axe_playwright_python").joinpath("axe.min.js").read_text(encoding="utf-8")
RESTS = 5
CONFIG = sample_configuration().digest[:12]
PAGES = {
    "": re.compile("broke|healthy|Healthy"),
    "run": "Run",
    "compare": "Compare two commits",
    "sequence": "One sequence over all commits",
    "incidents?state=all": "Incidents",
    "regressions?span=all": "Incidents",
    "health": "Health of the monitor",
    "benchmarks": "Benchmark sets",
}


def settle(page: Page) -> None:
    """Wait until the script behind the page has run to its end."""
    page.locator("[data-testid=stApp][data-test-script-state=notRunning]").wait_for()


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("address", PAGES)
def test_a_page_opens_on_a_narrow_screen_and_everybody_can_use_it(
    address: str, theme: str, sample_address: str, open_page: OpenPage
) -> None:
    page = open_page(f"{sample_address}/{address}", width=400, theme=theme)
    expect(page.get_by_role("heading", level=1)).to_have_text(PAGES[address])
    settle(page)
    expect(page.get_by_text("could not be shown")).to_have_count(0)
    check_accessibility(page)
    # Polled: what is still being laid out may stand wider for a moment.
    page.wait_for_function(
        """() => {
            const main = document.querySelector("[data-testid=stMain]");
            const tables = [...document.querySelectorAll(".vm-scroll")];
            return [main, ...tables].every(one => one.scrollWidth <= one.clientWidth + 1);
        }"""
    )
    background = page.get_by_test_id("stApp").evaluate(
        "element => getComputedStyle(element).backgroundColor"
    )
    assert background == {"light": "rgb(255, 255, 255)", "dark": "rgb(18, 23, 28)"}[theme]


def test_the_menu_is_two_even_lines_on_a_phone(sample_address: str, open_page: OpenPage) -> None:
    page = open_page(f"{sample_address}/benchmarks", width=400)
    expect(page.get_by_role("heading", level=1)).to_have_text("Benchmark sets")
    settle(page)
    # The lines of words 32 pixels high neither touch nor stand far apart. Polled, as above.
    page.wait_for_function(
        """() => {
            const words = [...document.querySelectorAll(".st-key-menu > *")];
            const tops = new Set(words.map(one => Math.round(one.getBoundingClientRect().top)));
            const [first, second] = [...tops].sort((a, b) => a - b);
            return tops.size === 2 && second - first > 32 && second - first < 48;
        }"""
    )


def test_a_choice_on_a_phone_has_its_borders_on_each_line(
    sample_address: str, open_page: OpenPage
) -> None:
    page = open_page(f"{sample_address}/incidents?state=all", width=400)
    expect(page.get_by_role("radio", checked=True)).to_have_text(re.compile("^All"))
    settle(page)
    page.wait_for_function(
        """() => [...document.querySelectorAll("[data-testid=stButtonGroup] button")].every(
            one => !["transparent", "rgba(0, 0, 0, 0)"].includes(
                getComputedStyle(one).borderRightColor
            )
        )"""
    )


def check_accessibility(page: Page) -> None:
    """axe finds nothing that keeps somebody out, once what is redrawn has stopped fading in."""
    page.evaluate(AXE)
    for _ in range(RESTS):
        found = page.evaluate("axe.run(document)")
        assert {rule["id"] for rule in found["passes"]} >= {"color-contrast", "link-name"}
        grave = [
            f"{rule['id']}: {node['html'][:200]}"
            for rule in found["violations"]
            if rule["impact"] in ("serious", "critical")
            for node in rule["nodes"]
        ]
        if not grave:
            return
        page.wait_for_timeout(1_000)
    assert grave == []


def test_every_page_is_reached_from_the_menu(sample_address: str, open_page: OpenPage) -> None:
    page = open_page(f"{sample_address}/?target=sample&benchmark=proteome&config={CONFIG}")
    for name, path in (
        ("Run", "/run"),
        ("Compare", "/compare"),
        ("Sequence", "/sequence"),
        ("Incidents", "/incidents"),
        ("Health", "/health"),
        ("Benchmarks", "/benchmarks"),
    ):
        page.get_by_test_id("stPageLink").filter(has_text=name).get_by_role("link").click()
        page.wait_for_url(re.compile(rf"{path}\?target=sample&benchmark=proteome&config="))
        expect(page).to_have_title(f"{name} · virnucpro-monitor")


def go_back(page: Page, expected: re.Pattern[str]) -> None:
    """Press Back, and once more where nothing came of it.

    On a busy machine Streamlit may write one choice into the history twice, or miss the press.
    """
    page.go_back()
    # Polled: within one document Playwright may miss the moment of a navigation.
    try:
        expect(page).to_have_url(expected, timeout=20_000)
    except AssertionError:
        page.go_back()
        expect(page).to_have_url(expected)


def test_a_choice_stands_in_the_address_and_back_undoes_it(
    sample_address: str, open_page: OpenPage
) -> None:
    page = open_page(f"{sample_address}/?target=sample&benchmark=proteome")
    page.get_by_role("radio", name="Gates").click()
    expect(page).to_have_url(re.compile("chart=gates"))
    settle(page)
    page.get_by_test_id("stPopoverButton").filter(has_text="Last").click()
    page.get_by_role("radio", name="Date order").click()
    expect(page).to_have_url(re.compile("order=date"))
    settle(page)
    go_back(page, re.compile(r"^(?!.*order=date).*chart=gates"))
    settle(page)
    go_back(page, re.compile(r"^(?!.*chart=gates)"))
    settle(page)
    page.go_forward()
    expect(page).to_have_url(re.compile("chart=gates"))
    expect(page.get_by_role("radio", name="Gates")).to_be_checked()


def test_a_view_is_kept_in_the_browser_under_a_name(
    sample_address: str, open_page: OpenPage
) -> None:
    page = open_page(f"{sample_address}/?target=sample&benchmark=proteome&last=50")
    settle(page)
    page.get_by_role("button", name="Views").click()
    page.get_by_label("Keep this view as").fill("Fifty <b>of proteome</b>")
    page.get_by_role("button", name="Keep", exact=True).click()
    page.wait_for_url(re.compile("last=50"))
    page.goto(f"{sample_address}/health")
    settle(page)
    page.get_by_role("button", name="Views").click()
    page.get_by_role("link", name="Fifty <b>of proteome</b>", exact=True).click()
    page.wait_for_url(re.compile(r"/\?target=sample&benchmark=proteome&last=50$"))
    settle(page)
    page.get_by_role("button", name="Views").click()
    page.get_by_role("link", name="drop Fifty <b>of proteome</b>").click()
    settle(page)
    page.get_by_role("button", name="Views").click()
    expect(page.get_by_text("No view is kept yet.")).to_be_visible()


def test_a_card_opens_its_series_by_keyboard(sample_address: str, open_page: OpenPage) -> None:
    page = open_page(sample_address)
    card = page.get_by_role("link").filter(has_text="sample · proteome")
    card.focus()
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile("benchmark=proteome"))
    expect(page.get_by_role("heading", name="sample · proteome over commits")).to_be_visible()


def test_hostile_text_executes_nothing(
    sample_address: str, sample_url: str, open_page: OpenPage
) -> None:
    runs = reader.load_runs(open_engine(sample_url, read_only=True))
    (run,) = [run for run in runs if run.commit.subject == HOSTILE_SUBJECT]
    before = runs[runs.index(run) - 1]
    for address in (
        "?target=sample&benchmark=seed",
        f"run?run={run.id}",
        f"compare?base={before.commit.hash}&head={run.commit.hash}&target=sample",
        "sequence?target=sample&benchmark=seed&sequence=seed_003",
        "benchmarks?set=seed%401",
        "run",
    ):
        page = open_page(f"{sample_address}/{address}")
        settle(page)
        assert page.evaluate("window.pwned") is None
        # The charts of the overview are the only pictures that the app itself puts on a page.
        for foreign in ("script", "img:not(.vm-spark, .vm-lines)", "[onerror]", "[onmouseover]"):
            assert page.locator(f"[data-testid=stMain] {foreign}").count() == 0
    page = open_page(f"{sample_address}/run?run={run.id}")
    expect(page.get_by_text("<script>window.pwned=1</script>").first).to_be_visible()


def test_hovering_a_hostile_commit_shows_its_text(
    sample_address: str, sample_url: str, open_page: OpenPage
) -> None:
    runs = reader.load_runs(open_engine(sample_url, read_only=True))
    (run,) = [run for run in runs if run.commit.subject == HOSTILE_SUBJECT]
    page = open_page(
        f"{sample_address}/{link('overview', **series_parameters(run), chart='agreement')}"
    )
    settle(page)
    point = page.locator(".js-plotly-plot .scatterlayer .point").last
    point.scroll_into_view_if_needed()
    box = point.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    hover = page.locator(".hoverlayer .hovertext").first
    expect(hover).to_contain_text("<script>window.pwned=1</script>")
    assert page.evaluate("window.pwned") is None


def test_a_sequence_is_reached_from_a_runs_table(
    sample_address: str, sample_url: str, open_page: OpenPage
) -> None:
    engine = open_engine(sample_url, read_only=True)
    run = reader.load_runs(engine, outcomes=[Outcome.FAILED])[0]
    assert run.figures is not None
    page = open_page(f"{sample_address}/run?run={run.id}")
    page.get_by_role("link", name="history of worst sequence").click()
    page.wait_for_url(re.compile(rf"/sequence\?sequence={run.figures.worst_sequence}&"))
    expect(page.get_by_role("textbox", name="Sequence")).to_have_value(
        run.figures.worst_sequence or ""
    )
    expect(page.get_by_text("First bad", exact=True)).to_be_visible()


def test_every_chart_is_taken_away_as_a_picture_and_print_leaves_the_controls_out(
    sample_address: str, sample_url: str, open_page: OpenPage
) -> None:
    run = reader.load_runs(open_engine(sample_url, read_only=True), outcomes=[Outcome.FAILED])[0]
    for address in ("?target=sample&benchmark=seed&chart=agreement", f"run?run={run.id}"):
        page = open_page(f"{sample_address}/{address}")
        settle(page)
        plots = page.locator(".js-plotly-plot")
        plots.first.wait_for()
        for plot in plots.all():
            plot.scroll_into_view_if_needed()
            plot.hover()
            with page.expect_download() as download:
                plot.locator("[data-title*=PNG]").click()
            assert download.value.suggested_filename.endswith(".png")
            assert download.value.path().read_bytes().startswith(b"\x89PNG")
        page.emulate_media(media="print")
        expect(page.locator(".st-key-menu")).to_be_hidden()
        expect(plots.first).to_be_visible()


@pytest.mark.parametrize(
    ("label", "suffix", "sign"),
    [("Markdown", ".md", "## "), ("CSV", ".csv", ","), ("HTML, one file", ".html", "<!doctype")],
)
def test_a_comparison_is_taken_away_as_a_file(
    label: str,
    suffix: str,
    sign: str,
    sample_address: str,
    sample_url: str,
    open_page: OpenPage,
) -> None:
    engine = open_engine(sample_url, read_only=True)
    runs = reader.load_runs(engine, target="sample", benchmark="proteome")
    address = f"base={runs[0].commit.hash}&head={runs[3].commit.hash}&target=sample"
    page = open_page(f"{sample_address}/compare?{address}&benchmark=proteome")
    with page.expect_download() as download:
        page.get_by_role("button", name=label, exact=True).click()
    name = download.value.suggested_filename
    assert name.endswith(suffix)
    assert runs[0].commit.hash[:10] in name
    text = download.value.path().read_text(encoding="utf-8")
    assert sign in text.lower()
    assert runs[3].commit.hash[:10] in text


def test_an_incident_is_acknowledged_where_that_is_allowed(
    tmp_path: Path, open_page: OpenPage
) -> None:
    url = f"sqlite:///{tmp_path / 'own.db'}"
    fill(url, {"history": HISTORY[:4]})
    with served(url, tmp_path / "log", writable=True) as address:
        page = open_page(f"{address}/incidents")
        page.get_by_role("table", name="Incidents").get_by_role("link").first.click()
        page.get_by_role("textbox", name="Who").fill("A Reader")
        page.get_by_role("textbox", name="Why it may stay as it is for now").fill(
            "Known <b>bug</b>"
        )
        page.get_by_role("button", name="Acknowledge", exact=True).click()
        expect(page.locator("dd").filter(has_text="Known <b>bug</b>")).to_be_visible()
        engine = open_engine(url, read_only=True)
        (note,) = notes_reader.load_acknowledgements(engine)
        assert (note.who, note.why) == ("A Reader", "Known <b>bug</b>")
        page.get_by_role("textbox", name="Your name").fill("A Reader")
        page.get_by_role("textbox", name="Your name").press("Enter")
        page.get_by_role("button", name="Reopen").click()
        expect(page.get_by_role("button", name="Acknowledge", exact=True)).to_be_visible()
        assert notes_reader.load_acknowledgements(engine) == []
