"""Where login is configured a stranger sees the login alone, and nothing is asked of the database.

The whole way through a provider and back is in the browser's tests.
"""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import streamlit as st
from sqlalchemy import Engine, event
from streamlit.testing.v1 import AppTest

import app
from app import login
from app.data.incidents import WARM_UP
from tests.app.conftest import shown_html

ENTRY = Path(app.__file__).parent / "streamlit_app.py"
AUTH = {
    "redirect_uri": "http://localhost:8501/oauth2callback",
    "cookie_secret": "a long random string that signs the cookie",
    "client_id": "dashboard",
    "client_secret": "secret",
    "server_metadata_url": "http://localhost:1/.well-known/openid-configuration",
}


@pytest.fixture
def statements() -> Iterator[list[str]]:
    """Every SQL statement that is sent to any database from now on."""
    for thread in threading.enumerate():
        if thread.name == WARM_UP:  # an earlier page still reads ahead
            thread.join()
    sent: list[str] = []

    def note(connection: object, cursor: object, statement: str, *_: object) -> None:
        sent.append(statement)

    event.listen(Engine, "before_cursor_execute", note)
    yield sent
    event.remove(Engine, "before_cursor_execute", note)


@pytest.fixture
def entry(sample_url: str, monkeypatch: pytest.MonkeyPatch) -> AppTest:
    monkeypatch.setenv("VIRNUCPRO_MONITOR_DB", sample_url)
    return AppTest.from_file(str(ENTRY), default_timeout=180)


def test_a_stranger_sees_the_login_alone_and_nothing_is_read(
    entry: AppTest, statements: list[str]
) -> None:
    entry.secrets["auth"] = AUTH
    entry.run()
    assert not entry.exception
    assert [title.value for title in entry.title] == ["Log in"]
    assert [button.label for button in entry.button] == ["Log in"]
    assert not entry.dataframe
    assert not entry.get("plotly_chart")
    assert "sample" not in shown_html(entry).replace("This dashboard", "")
    assert statements == []


def test_without_a_secret_everybody_sees_the_overview(
    entry: AppTest, statements: list[str]
) -> None:
    entry.run()
    assert not entry.exception
    assert "broke" in entry.title[0].value
    assert "Log" not in [button.label[:3] for button in entry.button]
    assert "Logged in" not in shown_html(entry)
    assert statements


def test_a_wrong_configuration_lets_nobody_in_and_says_so(
    entry: AppTest, statements: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> None:
        raise st.errors.StreamlitAuthError("The credentials lack\n   a client_id.")

    monkeypatch.setattr(st, "login", refuse)
    entry.secrets["auth"] = AUTH
    entry.run()
    entry.button(key="log-in").click().run()
    assert not entry.exception
    text = shown_html(entry)
    assert "Login is configured wrongly: The credentials lack a client_id." in text
    assert statements == []


def test_missing_packages_are_named(
    entry: AppTest, statements: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(login, "find_spec", lambda name: None)
    entry.secrets["auth"] = AUTH
    entry.run()
    assert not entry.exception
    assert "pip install &#x27;virnucpro-monitor[auth]&#x27;" in shown_html(entry)
    assert statements == []
