"""The dashboard as readers meet it: its real server, and Debian's Chromium without a window.

Every page a test opens is watched: an error on the console, a request to another host or a dialog
fails the test.
"""

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import URLError
from urllib.request import ProxyHandler, build_opener

import pytest
from playwright.sync_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Page,
    expect,
    sync_playwright,
)

from tests.app.conftest import sample_url  # noqa: F401 (a fixture)
from tests.conftest import CHROMIUM
from tests.ports import HOST, free_port
from virnucpro_monitor.cli.dashboard import server_command, server_environment

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
PATIENCE_MS = 120_000  # for one step, on a machine that is busy with others
expect.set_options(timeout=PATIENCE_MS)


@contextmanager
def served(
    url: str, log: Path, *, writable: bool = False, port: int | None = None
) -> Iterator[str]:
    """Serve the app on a database; yields its address."""
    port = port or free_port()
    # A file: nobody would empty a pipe, and a full one stops the server.
    with log.open("wb") as output:
        server = subprocess.Popen(
            server_command(HOST, port),
            env=server_environment(os.environ, url, writable),
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            address = f"http://{HOST}:{port}"
            _wait_until_healthy(address, server, log)
            yield address
        finally:
            server.terminate()
            server.wait(timeout=120)


def _wait_until_healthy(address: str, server: "subprocess.Popen[bytes]", log: Path) -> None:
    opener = build_opener(ProxyHandler({}))
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline:
        assert server.poll() is None, log.read_text()
        try:
            with opener.open(f"{address}/_stcore/health", timeout=2) as answer:
                if answer.read() == b"ok":
                    return
        except (URLError, OSError):
            time.sleep(0.1)
    pytest.fail(f"The server did not become healthy:\n{log.read_text()}")


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        yield browser
        browser.close()


@pytest.fixture(scope="package")
def demo_address(demo_database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The dashboard on the database that the real `demo` made."""
    with served(demo_database_url, tmp_path_factory.mktemp("server") / "demo.log") as address:
        yield address


@pytest.fixture(scope="package")
def sample_address(
    sample_url: str,  # noqa: F811
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[str]:
    """The dashboard on made-up histories with hostile text in them."""
    with served(sample_url, tmp_path_factory.mktemp("server") / "sample.log") as address:
        yield address


OpenPage = Callable[..., Page]


@pytest.fixture
def open_page(browser: Browser) -> Iterator[OpenPage]:
    """Open an address in a fresh, watched browser context and wait for the page's title."""
    contexts: list[BrowserContext] = []
    complaints: list[str] = []

    def watch_console(message: ConsoleMessage) -> None:
        # Streamlit looks for its own files beside a sub-page first: two 404 that mean nothing.
        harmless = "/_stcore/" in message.location.get("url", "")
        if message.type == "error" and not harmless:
            complaints.append(f"console: {message.text}")

    def open_address(address: str, *, width: int = 1280, theme: str = "light") -> Page:
        context = browser.new_context(
            viewport={"width": width, "height": 900},
            color_scheme=theme,  # type: ignore[arg-type]
            timezone_id="Europe/Berlin",
            reduced_motion="reduce",  # no colour is on its way from one to another
        )
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(PATIENCE_MS)
        page.on("console", watch_console)
        page.on("pageerror", lambda error: complaints.append(f"script: {error}"))
        page.on("dialog", lambda dialog: complaints.append(f"dialog: {dialog.message}"))
        page.on(
            "request",
            lambda request: (
                None
                if request.url.startswith((f"http://{HOST}:", "data:", "blob:"))
                else complaints.append(f"request: {request.url}")
            ),
        )
        page.goto(address)
        page.get_by_role("heading", level=1).wait_for()
        return page

    yield open_address
    for context in contexts:
        context.close()
    assert complaints == []
