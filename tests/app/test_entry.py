from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

import app
from tests.app.conftest import shown_html

ENTRY = Path(app.__file__).parent / "streamlit_app.py"


def test_the_entry_opens_the_overview(sample_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIRNUCPRO_MONITOR_DB", sample_url)
    opened = AppTest.from_file(str(ENTRY), default_timeout=180).run()
    assert not opened.exception
    assert "broke" in opened.title[0].value
    assert "<style>" in shown_html(opened)


def test_the_entry_is_short() -> None:
    assert len(ENTRY.read_text().splitlines()) < 50
