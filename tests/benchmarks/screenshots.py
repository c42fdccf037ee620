"""Take the README's pictures of the dashboard anew.

    virnucpro-monitor demo --no-open --db sqlite:////tmp/demo.db
    virnucpro-monitor demo --releases --no-open --db sqlite:////tmp/releases.db
    python -m tests.benchmarks.screenshots /tmp/demo.db [FOLDER]
    python -m tests.benchmarks.screenshots --releases /tmp/releases.db [FOLDER]

FOLDER is `.github/screenshots` where none is given. Each picture is of the page as a reader meets
it, at 1,400 px: the overview, the last failed run, and that run against the last good one, dark; of
the demo of releases the overview alone, with the longest series chosen.
"""

import argparse
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

from app.links import compare_link, link, run_link, series_parameters
from tests.browser.conftest import FLAGS, served
from tests.conftest import CHROMIUM
from virnucpro_monitor.analysis.series import split_series
from virnucpro_monitor.monitor.histories import find_good_before
from virnucpro_monitor.records import Outcome
from virnucpro_monitor.store import reader
from virnucpro_monitor.store.engine import open_engine

WIDTH, HEIGHT = 1400, 1000
TALL = 1250  # a whole history
FOLDER = Path(__file__).parents[2] / ".github" / "screenshots"
PAINTING_MS = 2_000  # of charts that their script has been given


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("folder", type=Path, nargs="?", default=FOLDER)
    parser.add_argument("--releases", action="store_true")
    arguments = parser.parse_args()
    url = f"sqlite:///{arguments.file.absolute()}"
    pictures = _of_releases(url) if arguments.releases else _of_commits(parser, url)
    with tempfile.TemporaryDirectory() as folder, served(url, Path(folder) / "log") as address:
        for name, page, theme in pictures:
            file = arguments.folder / f"{name}.png"
            height = TALL if arguments.releases else HEIGHT
            take(f"{address}/{page.removeprefix('./')}", theme, file, height=height)
            print(f"{name}.png: {page}")


def _of_releases(url: str) -> tuple[tuple[str, str, str], ...]:
    """As `_of_commits`, of the demo of releases."""
    series = split_series(reader.load_runs(open_engine(url, read_only=True)))
    longest = max(series.values(), key=len)
    page = link("overview", **series_parameters(longest[-1]))
    return (("releases-light", page, "light"),)


def _of_commits(parser: argparse.ArgumentParser, url: str) -> tuple[tuple[str, str, str], ...]:
    """Name, page and theme of the pictures of the demo of commits."""
    engine = open_engine(url, read_only=True)
    failed = reader.load_runs(engine, outcomes=[Outcome.FAILED])[-1]
    good = find_good_before(engine, failed)
    if good is None:
        parser.error(f"{url} has no good run before its last failed one.")
    return (
        ("overview-light", link("overview"), "light"),
        ("run-light", run_link(failed), "light"),
        ("compare-dark", compare_link(good, failed), "dark"),
    )


def take(address: str, theme: str, file: Path, *, height: int) -> None:
    """One page as it looks once its script has run and its charts are painted."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        page = browser.new_page(
            viewport={"width": WIDTH, "height": height},
            color_scheme=theme,  # type: ignore[arg-type]
        )
        page.goto(address)
        page.locator("[data-testid=stApp][data-test-script-state=notRunning]").wait_for()
        # Fields whose script the browser is still loading stand as grey boxes until then.
        page.wait_for_function("!document.querySelector('[data-testid=stSkeleton]')")
        page.wait_for_timeout(PAINTING_MS)
        page.screenshot(path=file)
        browser.close()


if __name__ == "__main__":
    main()
