"""Login against a stand-in provider: before it nothing is shown, after it everything."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import OpenPage, served
from tests.browser.provider import USER, provider, secrets_toml
from tests.browser.test_pages import settle
from tests.ports import HOST, free_port
from virnucpro_monitor.store import reader
from virnucpro_monitor.store.engine import open_engine

pytestmark = [pytest.mark.browser, pytest.mark.slow]


@pytest.fixture
def guarded_address(
    sample_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    """The dashboard with login configured in a secrets.toml of its own."""
    port = free_port()
    secrets = tmp_path / "secrets.toml"
    monkeypatch.setenv("STREAMLIT_SECRETS_FILES", str(secrets))
    with provider() as provider_address:
        secrets.write_text(secrets_toml(provider_address, f"http://{HOST}:{port}"))
        with served(sample_url, tmp_path / "log", port=port) as address:
            yield address


def test_nothing_is_shown_before_the_login_and_everything_after(
    guarded_address: str, sample_url: str, open_page: OpenPage
) -> None:
    run = reader.load_runs(open_engine(sample_url, read_only=True))[-1]
    for place in ("", f"run?run={run.id}", "incidents?state=all"):
        page = open_page(f"{guarded_address}/{place}")
        settle(page)
        expect(page.get_by_role("heading", level=1)).to_have_text("Log in")
        expect(page.get_by_test_id("stMain").get_by_role("button")).to_have_text(["Log in"])
        expect(page.get_by_test_id("stTopNavLink")).to_have_count(0)
        text = page.content()
        assert run.target not in page.get_by_test_id("stApp").inner_text()
        assert run.commit.hash[:10] not in text

    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("heading", level=1)).to_have_text(re.compile("broke"))
    expect(page.get_by_text(f"Logged in as {USER['email']}.")).to_be_visible()
    page.goto(f"{guarded_address}/run?run={run.id}")
    expect(page.get_by_role("heading", level=1)).to_contain_text(run.commit.hash[:10])

    page.get_by_role("button", name="Log out").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Log in")
    stranger = open_page(guarded_address)
    expect(stranger.get_by_role("heading", level=1)).to_have_text("Log in")


def test_without_a_secret_there_is_no_trace_of_a_login(
    sample_address: str, open_page: OpenPage
) -> None:
    page = open_page(sample_address)
    settle(page)
    expect(page.get_by_test_id("stPageLink").first).to_be_visible()
    expect(page.get_by_text(re.compile("log (in|out)|logged in", re.IGNORECASE))).to_have_count(0)
