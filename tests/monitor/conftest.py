"""Both doors of the monitor: the command line by its real parser, the dashboard by its pages."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import streamlit as st

from tests.app.conftest import run_page
from virnucpro_monitor.cli.main import run_command
from virnucpro_monitor.records import RunReport
from virnucpro_monitor.settings import Settings, load_settings
from virnucpro_monitor.store.engine import Engine, create_database, open_engine
from virnucpro_monitor.store.writer import Writer

__all__ = ["run_page"]  # a fixture: the third way in beside the two below

CommandLine = Callable[..., Any]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings(
        db=f"sqlite:///{tmp_path / 'monitor.db'}", cache_dir=tmp_path / "cache", device="cpu"
    )


@pytest.fixture
def url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An empty database, which both doors take as theirs."""
    url = f"sqlite:///{tmp_path / 'monitor.db'}"
    create_database(url)
    monkeypatch.setenv("VIRNUCPRO_MONITOR_DB", url)
    monkeypatch.setenv("VIRNUCPRO_MONITOR_CACHE_DIR", str(tmp_path / "cache"))
    st.cache_resource.clear()
    yield url
    st.cache_resource.clear()


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    """An empty database, for questions that no door is needed for."""
    monkeypatch.setenv("VIRNUCPRO_MONITOR_CACHE_DIR", str(tmp_path / "cache"))
    url = f"sqlite:///{tmp_path / 'monitor.db'}"
    create_database(url)
    engine = open_engine(url)
    yield engine
    engine.dispose()


@pytest.fixture
def store(url: str) -> Callable[..., list[int]]:
    """Store reports, oldest first, and return the ids of their runs."""

    def store(*reports: RunReport) -> list[int]:
        engine = open_engine(url)
        ids = [Writer(engine).save_run(report) for report in reports]
        engine.dispose()
        return ids

    return store


@pytest.fixture
def command(url: str, capsys: pytest.CaptureFixture[str]) -> CommandLine:
    """What a command prints with `--json`."""

    def command(*arguments: str) -> Any:
        capsys.readouterr()
        code = run_command([*arguments, "--json"])
        captured = capsys.readouterr()
        assert code == 0, captured.err
        return json.loads(captured.out)

    return command


@pytest.fixture
def refused(url: str, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """The one sentence of a command that cannot answer."""

    def refused(*arguments: str) -> str:
        capsys.readouterr()
        assert run_command([*arguments]) == 1
        (sentence,) = capsys.readouterr().err.splitlines()
        return sentence

    return refused
