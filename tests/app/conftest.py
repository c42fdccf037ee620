"""A database of made-up histories, and pages run without a browser."""

from collections.abc import Callable
from pathlib import Path

import pytest
from streamlit.components.v2 import manifest_scanner
from streamlit.testing.v1 import AppTest

from tests.app.samples import (
    HISTORY,
    Step,
    sample_benchmark,
    sample_configuration,
    sample_reports,
)
from virnucpro_monitor.store.engine import create_database, open_engine
from virnucpro_monitor.store.writer import Writer

HOSTILE_SUBJECT = (
    "<script>window.pwned=1</script><b onmouseover=alert(1)>bold</b> **md** "
    "[link](javascript:alert(1)) \x1b[31mred\x1b[0m \u202egnp.exe"
)
HOSTILE_AUTHOR = "<img src=x onerror=window.pwned=1> $E=mc^2$ :red[x]"

PageRunner = Callable[..., AppTest]


def fill(url: str, *histories: dict[str, object]) -> None:
    create_database(url)
    engine = open_engine(url)
    writer = Writer(engine)
    for history in histories:
        for report in sample_reports(**history):  # type: ignore[arg-type]
            writer.save_run(report)
    writer.heartbeat("gpu-1", "sample", "idle", "Waiting.", num_queued=2, exit_code=0)
    engine.dispose()


@pytest.fixture(scope="session")
def sample_url(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Two targets, two benchmark sets, two configurations; hostile text in the last commit."""
    url = f"sqlite:///{tmp_path_factory.mktemp('sample') / 'sample.db'}"
    hostile = (*HISTORY, Step(subject=HOSTILE_SUBJECT, author=HOSTILE_AUTHOR))
    fill(
        url,
        {"history": hostile},
        {"history": HISTORY, "benchmark": sample_benchmark("proteome", 60)},
        {"history": HISTORY[:4], "configuration": sample_configuration("float16", "flash-attn")},
        {"history": HISTORY[:2], "target": "other"},
    )
    return url


@pytest.fixture
def empty_url(tmp_path: Path) -> str:
    url = f"sqlite:///{tmp_path / 'empty.db'}"
    create_database(url)
    return url


@pytest.fixture
def run_page(monkeypatch: pytest.MonkeyPatch) -> PageRunner:
    """Run one page of the app on a database: `run_page("run", url, run="3")`."""
    # What each installed package says of its components takes two thirds of a page's time.
    monkeypatch.setattr(manifest_scanner, "scan_component_manifests", list)

    def run(page: str, url: str, **parameters: str) -> AppTest:
        monkeypatch.setenv("VIRNUCPRO_MONITOR_DB", url)
        app = AppTest.from_string(
            "from app import data\n"
            "from app.problems import shown_problems\n"
            f"from app.views.{page} import show\n"
            "with shown_problems():\n"
            "    data.check_database()\n"
            "    show()\n",
            default_timeout=180,
        )
        for name, value in parameters.items():
            app.query_params[name] = value
        return app.run()

    return run


def shown_html(app: AppTest) -> str:
    """All HTML pieces of a page."""
    return "\n".join(element.proto.body for element in app.get("html"))
