"""`virnucpro-monitor db` through the real command line."""

import json
import sqlite3
from pathlib import Path

import pytest

from tests.store.builders import make_report
from virnucpro_monitor.cli.main import run_command
from virnucpro_monitor.store import connection, engine
from virnucpro_monitor.store.engine import SCHEMA_REVISION, open_engine
from virnucpro_monitor.store.writer import Writer


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'new' / 'monitor.db'}"


def execute(url: str, statement: str) -> None:
    with sqlite3.connect(url.removeprefix("sqlite:///")) as database:
        database.execute(statement)
    database.close()


def test_create_check_and_upgrade(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["db", "create", "--db", url]) == 0
    path = url.removeprefix("sqlite:///")
    assert capsys.readouterr().err == f"Created the database {path}.\n"

    assert run_command(["db", "create", "--db", url]) == 1
    assert "There is a database at" in capsys.readouterr().err

    assert run_command(["db", "upgrade", "--db", url]) == 0
    assert f"is up to date: schema {SCHEMA_REVISION}" in capsys.readouterr().err

    store = open_engine(url)
    Writer(store).save_run(make_report())
    store.dispose()
    assert run_command(["db", "check", "--db", url]) == 0
    printed = capsys.readouterr().out
    assert "3  sequence_results" in printed
    assert printed.endswith("Nothing is wrong.\n")
    assert run_command(["db", "check", "--quiet", "--db", url]) == 0
    assert capsys.readouterr() == ("", "")


def test_the_environment_names_the_database(
    url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("VIRNUCPRO_MONITOR_DB", url)
    assert run_command(["db", "create"]) == 0
    assert run_command(["db", "check", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["problems"] == []
    assert found["schema_revision"] == SCHEMA_REVISION
    assert found["row_counts"]["runs"] == 0


def test_check_names_what_is_wrong(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    run_command(["db", "create", "--db", url])
    store = open_engine(url)
    writer = Writer(store)
    for number in range(3):
        writer.save_run(make_report(number))
    store.dispose()
    execute(url, "DELETE FROM sequence_results WHERE run_id = 2 AND sequence_index = 1")
    execute(url, "DELETE FROM runs WHERE id = 3")
    execute(url, "DROP INDEX ix_runs_series")
    capsys.readouterr()
    assert run_command(["db", "check", "--db", url, "--json"]) == 1
    printed = capsys.readouterr()
    problems = json.loads(printed.out)["problems"]
    assert problems == printed.err.splitlines()
    assert problems == [
        f"The schema differs from revision {SCHEMA_REVISION}: add index ix_runs_series.",
        "3 rows of sequence_results have lost their row of runs.",
        "Run 2 has 2 sequence results of 3.",
        "Run 2 was changed: its rows no longer have its digest.",
        "Run 3 was removed: its link is still in the chain of its series.",
    ]


@pytest.mark.parametrize("command", ["upgrade", "check"])
def test_a_missing_database_is_one_sentence(
    command: str, url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(["db", command, "--db", url]) == 1
    message = capsys.readouterr().err
    assert message.startswith("virnucpro-monitor: There is no virnucpro-monitor database at")
    assert message.count("\n") == 1
    assert not Path(url.removeprefix("sqlite:///")).parent.exists()


def test_an_older_database_is_told_to_be_upgraded(
    url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run_command(["db", "create", "--db", url])
    monkeypatch.setattr(connection, "REVISIONS", (SCHEMA_REVISION, "9999"))
    monkeypatch.setattr(connection, "SCHEMA_REVISION", "9999")
    capsys.readouterr()
    assert run_command(["db", "check", "--db", url]) == 1
    assert f"run `virnucpro-monitor db upgrade --db {url}`" in capsys.readouterr().err


def test_an_upgrade_says_where_the_old_file_is(
    url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    done = engine.Upgrade(from_revision="0001", to_revision="0002", backup=Path("old.backup"))
    monkeypatch.setattr(engine, "upgrade_database", lambda url: done)
    assert run_command(["db", "upgrade", "--db", url]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].endswith("from schema 0001 to 0002.")
    assert lines[1] == "As it was before: old.backup"


def fill(url: str) -> None:
    run_command(["db", "create", "--db", url])
    store = open_engine(url)
    for number in (0, 1, 1):
        Writer(store).save_run(make_report(number, duration_s=float(number)))
    store.dispose()


def test_a_backup_can_be_made_and_opened(
    url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(url)
    capsys.readouterr()
    file = tmp_path / "backup.db"
    assert run_command(["db", "backup", str(file), "--db", url, "--json"]) == 0
    copied = json.loads(capsys.readouterr().out)
    assert (copied["database"], copied["num_runs"]) == (str(file), 3)
    assert run_command(["db", "check", "--db", f"sqlite:///{file}", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["fingerprint"] == copied["fingerprint"]
    assert run_command(["db", "backup", str(file), "--db", url]) == 1
    assert "exists already" in capsys.readouterr().err


def test_a_copy_is_made_and_never_into_a_full_database(
    url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(url)
    there = f"sqlite:///{tmp_path / 'copy.db'}"
    capsys.readouterr()
    assert run_command(["db", "copy", there, "--db", url]) == 0
    assert "Copied 3 runs" in capsys.readouterr().err
    assert run_command(["db", "copy", there, "--db", url]) == 1
    assert "is not empty" in capsys.readouterr().err


def test_pruning_says_first_what_it_would_delete(
    url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(url)
    old = ["db", "prune", "--older-than", "0", "--db", url]
    capsys.readouterr()
    assert run_command(old) == 0
    assert capsys.readouterr().err.splitlines() == [
        "Would delete 1 superseded attempts with 3 sequence results; 0 others of that age are "
        "kept, since something points to them.",
        "Nothing was deleted: add --apply.",
    ]
    assert run_command([*old, "--apply", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["run_ids"] == [2]
    assert run_command(["db", "check", "--db", url, "--quiet"]) == 0
