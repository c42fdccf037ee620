"""A database that cannot be shown: a page with one sentence, never a stack trace."""

import sqlite3
from pathlib import Path

import pytest

from tests.app.conftest import PageRunner, shown_html
from virnucpro_monitor.store.engine import create_database


def make_database(folder: Path) -> tuple[str, Path]:
    path = folder / "monitor.db"
    url = f"sqlite:///{path}"
    create_database(url)
    return url, path


def set_revision(path: Path, revision: str) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE alembic_version SET version_num = ?", (revision,))
    connection.close()


def test_a_missing_file_says_how_to_make_one(run_page: PageRunner, tmp_path: Path) -> None:
    app = run_page("overview", f"sqlite:///{tmp_path / 'nothing.db'}")
    assert not app.exception
    assert app.title[0].value == "There is no database yet"
    assert "db create" in shown_html(app)
    assert not (tmp_path / "nothing.db").exists()


def test_a_newer_schema_asks_for_a_newer_program(run_page: PageRunner, tmp_path: Path) -> None:
    url, path = make_database(tmp_path)
    set_revision(path, "9999")
    app = run_page("overview", url)
    assert app.title[0].value == "The database is newer than this program"
    assert not app.exception


def test_an_older_schema_names_the_upgrade(
    run_page: PageRunner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from virnucpro_monitor.store import connection

    url, _ = make_database(tmp_path)
    later = (*connection.REVISIONS, "9999")
    monkeypatch.setattr(connection, "REVISIONS", later)
    monkeypatch.setattr(connection, "SCHEMA_REVISION", "9999")
    app = run_page("overview", url)
    assert app.title[0].value == "The database is older than this program"
    assert "db upgrade" in shown_html(app)


def test_a_file_that_is_no_database_is_named(run_page: PageRunner, tmp_path: Path) -> None:
    (tmp_path / "notes.db").write_text("Not a database at all. " * 50)
    app = run_page("overview", f"sqlite:///{tmp_path / 'notes.db'}")
    assert app.title[0].value == "The database cannot be read"
    assert "notes.db" in shown_html(app)


def test_a_wrong_address_is_a_setting_to_correct(run_page: PageRunner) -> None:
    app = run_page("overview", "monitor.db")
    assert app.title[0].value == "A setting needs a correction"


def test_a_database_that_vanishes_or_is_migrated_meanwhile_is_noticed(
    run_page: PageRunner, tmp_path: Path
) -> None:
    url, path = make_database(tmp_path)
    app = run_page("overview", url)
    assert app.title[0].value == "Overview"
    set_revision(path, "9999")
    assert app.run().title[0].value == "The database is newer than this program"
    path.unlink()
    assert app.run().title[0].value == "There is no database yet"
    assert not app.exception


def test_an_unforeseen_error_is_one_sentence(
    run_page: PageRunner, sample_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from app import data

    def fail() -> None:
        raise RuntimeError("secret detail")

    monkeypatch.setattr(data, "load_health", fail)
    app = run_page("health", sample_url)
    assert not app.exception
    assert "This page could not be shown." in shown_html(app)
    assert "secret detail" not in shown_html(app)
