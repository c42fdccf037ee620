"""Opening, creating and upgrading: three acts with their own errors."""

import os
import pwd
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import text

from tests.store.builders import TARGET, make_report
from tests.store.conftest import run_on_server
from virnucpro_monitor.errors import (
    ConfigurationError,
    MissingDatabase,
    NewerSchema,
    OutdatedSchema,
    StoreError,
)
from virnucpro_monitor.store import connection as store_connection
from virnucpro_monitor.store import reader
from virnucpro_monitor.store.connection import writing
from virnucpro_monitor.store.engine import (
    SCHEMA_REVISION,
    create_database,
    ensure_database,
    open_engine,
    upgrade_database,
)
from virnucpro_monitor.store.writer import Writer


def path_of(url: str) -> Path:
    return Path(url.removeprefix("sqlite:///"))


def set_revision(url: str, revision: str) -> None:
    with sqlite3.connect(path_of(url)) as connection:
        connection.execute("UPDATE alembic_version SET version_num = ?", (revision,))
    connection.close()


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("monitor.db", "'monitor.db' is not a database URL: write sqlite:///monitor.db"),
        ("mysql://host/name", "'mysql' is not supported"),
        ("sqlite+aiosqlite:///x.db", "'sqlite\\+aiosqlite' is not supported"),
        ("sqlite://", "does not name a file"),
        ("sqlite:///:memory:", "does not name a file"),
        ("sqlite:///x.db?mode=rwc", "without options"),
        ("sqlite://host/x.db", "four slashes"),
        ("postgresql://host:port/x", "cannot be understood"),
    ],
)
def test_a_url_that_cannot_be_used_is_refused(url: str, message: str) -> None:
    for act in (open_engine, create_database, ensure_database, upgrade_database):
        with pytest.raises(ConfigurationError, match=message):
            act(url)


def test_a_missing_file_is_not_created_by_opening(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'folder' / 'typo.db'}"
    for act in (open_engine, upgrade_database):
        with pytest.raises(MissingDatabase, match=r"run `virnucpro-monitor db create --db sqlite:"):
            act(url)
    with pytest.raises(MissingDatabase):
        open_engine(url, read_only=True)
    assert list(tmp_path.iterdir()) == []


def test_creating_makes_the_folder_and_nothing_but_the_database(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'a b%25 %3F' / 'monitor.db'}"
    create_database(url)
    assert sorted(tmp_path.rglob("*")) == [tmp_path / "a b% ?", tmp_path / "a b% ?" / "monitor.db"]
    engine = open_engine(url)
    Writer(engine).save_run(make_report())
    engine.dispose()
    with pytest.raises(StoreError, match=r"There is a database at .* already"):
        create_database(url)
    read = open_engine(url, read_only=True)
    assert len(reader.load_runs(read)) == 1
    read.dispose()


def test_ensuring_creates_only_what_is_missing(tmp_path: Path) -> None:
    path = tmp_path / "monitor.db"
    path.touch()  # as mktemp leaves it
    assert ensure_database(f"sqlite:///{path}")
    inode = path.stat().st_ino
    assert not ensure_database(f"sqlite:///{path}")
    assert path.stat().st_ino == inode


@pytest.mark.parametrize("empty_file", [False, True])
def test_of_several_that_ensure_at_once_all_end_with_one_database(
    tmp_path: Path, empty_file: bool
) -> None:
    url = f"sqlite:///{tmp_path / 'monitor.db'}"
    if empty_file:
        (tmp_path / "monitor.db").touch()
    code = (
        "import sys; from virnucpro_monitor.store.engine import *\n"
        "from virnucpro_monitor.store.writer import Writer\n"
        "from tests.store.builders import make_report\n"
        "ensure_database(sys.argv[1]); Writer(open_engine(sys.argv[1])).save_run(make_report())"
    )
    runners = [subprocess.Popen([sys.executable, "-c", code, url]) for _ in range(3)]
    assert [runner.wait(timeout=600) for runner in runners] == [0, 0, 0]
    engine = open_engine(url)
    assert len(reader.load_runs(engine, all_attempts=True)) == 3
    engine.dispose()
    assert [path.name for path in tmp_path.iterdir() if "draft" in path.name] == []


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(
        StoreError, match=r"file/monitor.db cannot be created: (Not a dir|File exists)"
    ):
        create_database(f"sqlite:///{tmp_path / 'file' / 'monitor.db'}")


def test_other_files_are_refused_and_left_alone(tmp_path: Path) -> None:
    text_file, other = tmp_path / "notes.txt", tmp_path / "other.db"
    text_file.write_text("not a database " * 100)
    with sqlite3.connect(other) as connection:
        connection.execute("CREATE TABLE songs (title TEXT)")
    connection.close()
    for act in (open_engine, upgrade_database):
        with pytest.raises(StoreError, match="is not an SQLite database"):
            act(f"sqlite:///{text_file}")
        with pytest.raises(StoreError, match=r"belongs to another program .it holds 'songs'"):
            act(f"sqlite:///{other}")
        with pytest.raises(StoreError, match="is a folder"):
            act(f"sqlite:///{tmp_path}")
    assert text_file.read_text() == "not a database " * 100


def test_a_damaged_file_is_named(sqlite_url: str) -> None:
    with path_of(sqlite_url).open("r+b") as file:
        file.seek(100)
        file.write(b"\xff" * 20_000)
    with pytest.raises(StoreError, match="damaged"):
        open_engine(sqlite_url)


def test_another_schema_is_refused_with_what_to_do(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_revision(sqlite_url, "9999")
    with pytest.raises(NewerSchema, match=r"schema 9999, newer .* upgrade virnucpro_monitor"):
        open_engine(sqlite_url)
    with pytest.raises(NewerSchema, match="9999"):
        upgrade_database(sqlite_url)
    set_revision(sqlite_url, "0000")
    monkeypatch.setattr(store_connection, "REVISIONS", ("0000", SCHEMA_REVISION))
    with pytest.raises(OutdatedSchema, match="run `virnucpro-monitor db upgrade --db sqlite:"):
        open_engine(sqlite_url, read_only=True)


def test_reading_notices_a_migration_and_a_vanished_or_replaced_file(
    sqlite_url: str, sqlite_template: Path, tmp_path: Path
) -> None:
    path = path_of(sqlite_url)
    engine = open_engine(sqlite_url)
    Writer(engine).save_run(make_report())
    engine.dispose()
    read = open_engine(sqlite_url, read_only=True)
    assert len(reader.load_runs(read)) == 1
    set_revision(sqlite_url, "9999")
    with pytest.raises(NewerSchema):
        reader.check_schema(read)
    with pytest.raises(NewerSchema):
        reader.load_runs(read)

    for leftover in tmp_path.glob("monitor.db*"):
        leftover.unlink()
    with pytest.raises(MissingDatabase):
        reader.load_runs(read)
    shutil.copy(sqlite_template, path)
    assert reader.load_runs(read) == []
    read.dispose()


def test_a_read_only_engine_cannot_write(sqlite_url: str) -> None:
    read = open_engine(sqlite_url, read_only=True)
    with pytest.raises(StoreError, match="cannot be written"):
        Writer(read).save_target(TARGET)
    assert reader.load_targets(read) == []
    read.dispose()


def test_readers_see_whole_runs_while_another_process_writes(sqlite_url: str) -> None:
    code = (
        "import sys; from virnucpro_monitor.store.engine import open_engine\n"
        "from virnucpro_monitor.store.writer import Writer\n"
        "from tests.store.builders import make_report\n"
        "writer = Writer(open_engine(sys.argv[1]))\n"
        "for number in range(60): writer.save_run(make_report(number))"
    )
    read = open_engine(sqlite_url, read_only=True)
    runner = subprocess.Popen([sys.executable, "-c", code, sqlite_url])
    seen = set()
    while runner.poll() is None:
        runs = reader.load_runs(read)
        seen.add(len(runs))
        if runs:
            assert len(reader.load_sequences(read, runs[-1].id or 0)) == 3
    assert runner.returncode == 0
    assert len(reader.load_runs(read)) == 60
    assert len(seen) > 2
    read.dispose()


def test_a_killed_writer_leaves_whole_runs(sqlite_url: str) -> None:
    code = (
        "import sys; from virnucpro_monitor.store.engine import open_engine\n"
        "from virnucpro_monitor.store.writer import Writer\n"
        "from tests.store.builders import make_report\n"
        "writer = Writer(open_engine(sys.argv[1])); print('ready', flush=True)\n"
        "for number in range(100_000): writer.save_run(make_report(number))"
    )
    arguments = [sys.executable, "-c", code, sqlite_url]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE) as runner:
        assert runner.stdout is not None
        assert runner.stdout.readline() == b"ready\n"
        read = open_engine(sqlite_url, read_only=True)
        while not reader.load_runs(read):
            assert runner.poll() is None
        runner.kill()
    runs = reader.load_runs(read, all_attempts=True)
    assert runs
    assert {len(reader.load_sequences(read, run.id or 0)) for run in runs} == {3}
    read.dispose()


@contextmanager
def as_a_stranger() -> Iterator[None]:
    """Without root's right to write everywhere."""
    if os.geteuid() != 0:
        yield
        return
    nobody = pwd.getpwnam("nobody").pw_uid
    os.setresuid(nobody, nobody, 0)
    try:
        yield
    finally:
        os.setresuid(0, 0, 0)


@pytest.fixture
def closed_folder(sqlite_template: Path) -> Iterator[Path]:
    """A folder that a stranger may read, with a database that holds one run."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shutil.copy(sqlite_template, folder / "monitor.db")
        engine = open_engine(f"sqlite:///{folder / 'monitor.db'}")
        Writer(engine).save_run(make_report())
        engine.dispose()
        folder.chmod(0o555)
        yield folder
        folder.chmod(0o755)


@pytest.mark.parametrize("being_written", [False, True])
def test_a_database_in_a_folder_that_is_closed_to_us_can_be_read(
    closed_folder: Path, being_written: bool
) -> None:
    url = f"sqlite:///{closed_folder / 'monitor.db'}"
    closed_folder.chmod(0o755)
    writing_engine = open_engine(url)
    if being_written:
        Writer(writing_engine).save_run(make_report(1))
    closed_folder.chmod(0o555)
    with as_a_stranger():
        with pytest.raises(OSError, match="denied"):
            (closed_folder / "x").touch()
        read = open_engine(url, read_only=True)
        before = [run.commit.position for run in reader.load_runs(read)]
    closed_folder.chmod(0o755)
    Writer(writing_engine).save_run(make_report(2))
    closed_folder.chmod(0o555)
    with as_a_stranger():
        after = [run.commit.position for run in reader.load_runs(read)]
        read.dispose()
    writing_engine.dispose()
    assert before == ([0, 1] if being_written else [0])
    assert after == [*before, 2]


def test_a_lock_that_is_held_too_long_is_reported(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_connection, "BUSY_TIMEOUT_S", 0.1)
    engine = open_engine(sqlite_url)
    holder = sqlite3.connect(path_of(sqlite_url), isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreError, match="locked by another program"):
        Writer(engine).save_target(TARGET)
    assert reader.load_targets(engine) == []  # readers are not in the way of a writer
    holder.execute("ROLLBACK")
    holder.close()
    Writer(engine).save_target(TARGET)
    engine.dispose()


def test_a_writer_waits_for_another(sqlite_url: str) -> None:
    engine = open_engine(sqlite_url)
    entered, ids = threading.Event(), []

    def second() -> None:
        entered.wait()
        ids.append(Writer(engine).save_run(make_report(2)))

    thread = threading.Thread(target=second)
    thread.start()
    with writing(engine) as connection:
        entered.set()
        thread.join(timeout=0.3)
        assert ids == []
        connection.execute(text("DELETE FROM targets"))
    thread.join()
    assert len(ids) == 1
    engine.dispose()


def test_a_full_disk_is_reported_and_nothing_is_half_stored(sqlite_url: str) -> None:
    engine = open_engine(sqlite_url)
    Writer(engine).save_run(make_report())
    with engine.connect() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
        connection.exec_driver_sql(f"PRAGMA max_page_count = {pages + 1}")
    with pytest.raises(StoreError, match=r"disk of the database .* is full"):
        Writer(engine).save_run(make_report(1, documents={"trace": "x" * 100_000}))
    assert [run.commit.position for run in reader.load_runs(engine)] == [0]
    engine.dispose()


def test_a_damaged_file_is_closed_where_it_is_found_damaged(sqlite_url: str) -> None:
    path = path_of(sqlite_url)
    path.write_bytes(b"SQLite format 3\0" + bytes(4096))
    with pytest.raises(StoreError) as caught:  # whose frames would hold it open
        open_engine(sqlite_url)
    links = Path("/proc/self/fd").iterdir()
    assert caught.tb is not None
    assert [one for one in links if one.exists() and one.resolve() == path.resolve()] == []


def test_foreign_keys_hold(sqlite_url: str) -> None:
    engine = open_engine(sqlite_url)
    with pytest.raises(StoreError, match="FOREIGN KEY"), writing(engine) as connection:
        connection.execute(
            text("INSERT INTO documents (run_id, name, content) VALUES (7, 'x', '1')")
        )
    engine.dispose()


@pytest.mark.postgres
class TestPostgres:
    def test_a_missing_database_and_server_are_told_apart(self, postgres_url: str) -> None:
        with pytest.raises(StoreError, match="has no database 'nowhere': create it"):
            open_engine(f"{postgres_url}/nowhere")
        with pytest.raises(StoreError, match="cannot be reached just now: connection failed"):
            open_engine("postgresql://monitor:secret@127.0.0.1:1/monitor")
        with pytest.raises(StoreError) as caught:
            open_engine("postgresql://monitor:secret@127.0.0.1:1/monitor")
        assert "secret" not in str(caught.value)

    def test_tables_are_created_explicitly(self, postgres_url: str) -> None:
        run_on_server(f"{postgres_url}/postgres", "CREATE DATABASE empty")
        url = f"{postgres_url}/empty"
        assert not ensure_database(url)
        with pytest.raises(MissingDatabase, match="db create"):
            open_engine(url)
        with pytest.raises(MissingDatabase, match="db create"):
            upgrade_database(url)
        create_database(url)
        with pytest.raises(StoreError, match="already"):
            create_database(url)
        assert upgrade_database(url).from_revision == SCHEMA_REVISION
        engine = open_engine(url, read_only=True)
        with pytest.raises(StoreError, match="read-only"):
            Writer(engine).save_target(TARGET)
        engine.dispose()
        run_on_server(url, "UPDATE alembic_version SET version_num = '9999'")
        with pytest.raises(NewerSchema):
            open_engine(url)
