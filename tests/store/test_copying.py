"""Backups, copies between both databases, and pruning: nothing is lost, and it is checked."""

import dataclasses
import shutil
import sqlite3
import threading
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import Engine

from tests.store.builders import (
    CONTENT,
    ENVIRONMENT,
    START,
    make_commit,
    make_figures,
    make_report,
)
from tests.store.conftest import run_on_server
from tests.store.test_inheritance import skip
from virnucpro_monitor.errors import StoreError
from virnucpro_monitor.records import (
    EMBEDDING_DATA,
    EMBEDDINGS,
    Acknowledgement,
    Bisection,
    BisectStep,
    Culprit,
    Failure,
    Judgement,
    Outcome,
    PolicyRule,
    PooledEmbeddings,
    Protocol,
    content_digest,
    to_json,
    write_embeddings,
)
from virnucpro_monitor.store import (
    copying,
    health_reader,
    notes_reader,
    reader,
    series_reader,
)
from virnucpro_monitor.store.copying import back_up_database, copy_database
from virnucpro_monitor.store.engine import open_engine
from virnucpro_monitor.store.maintenance import check_database
from virnucpro_monitor.store.pruning import prune
from virnucpro_monitor.store.writer import Writer

LATER = START + timedelta(days=400)


@pytest.fixture
def filled(writer: Writer) -> None:
    fill(writer)


def fill(writer: Writer) -> None:
    """Runs 1 to 7 and something in every other table."""
    first = make_report(0, documents={"probes": {"é": 0.1}, "packs": []})
    environment = dataclasses.replace(ENVIRONMENT, packages={"torch": "2.13.0"})
    failure = Failure(kind="import", message="No module\0", traceback="T", log="L")
    late = make_report(5)
    writer.save_run(skip(4, late))  # points at a run with a higher id
    writer.save_run(first)
    writer.save_run(make_report(1, (0.9, None, 1.0), environment=environment))
    writer.save_run(skip(2, first))
    writer.save_run(make_report(3, (), outcome=Outcome.ERROR, failure=failure, figures=None))
    writer.save_run(make_report(3, environment=None))
    writer.save_run(late)
    writer.save_commits("sample", [make_commit(number) for number in range(9)])
    writer.heartbeat("a", "sample", "idle", "", START, exit_code=2)
    writer.acquire_lease("run sample", "me", 60)
    writer.acknowledge(Acknowledgement(incident="x", who="alice", why="known", created_at=START))
    writer.set_policy(
        PolicyRule(target="sample", gate="mask", who="bob", why="é", created_at=START)
    )
    step = BisectStep(step=0, commit=make_commit(1).hash, verdict="bad", run_id=3, at=START)
    writer.start_bisection(
        Bisection(
            target="sample", good="a", bad="b", benchmark="seed", started_at=START, steps=(step,)
        )
    )
    content = {**CONTENT, "x": 1}
    other = Protocol(version="2", digest=content_digest(content), content=content)
    writer.save_judgement(
        Judgement(
            run_id=2,
            protocol_version="2",
            protocol_digest=other.digest,
            outcome=Outcome.PASSED,
            culprit=Culprit.NONE,
            reason="",
            figures=make_figures((1.0,)),
            gates=(),
            judged_at=START,
        ),
        other,
    )


def everything(url: str) -> dict[str, object]:
    engine = open_engine(url, read_only=True)
    runs = reader.load_runs(engine, all_attempts=True)
    found = {
        "targets": to_json(reader.load_targets(engine)),
        "commits": to_json(reader.load_commits(engine, "sample")),
        "benchmarks": to_json(reader.load_benchmarks(engine)),
        "runs": to_json(runs),
        "sequences": [to_json(reader.load_sequences(engine, run.id or 0)) for run in runs],
        "documents": [reader.load_documents(engine, run.id or 0) for run in runs],
        "failures": [to_json(reader.load_failure(engine, run.id or 0)) for run in runs],
        "series": to_json(series_reader.load_series(engine)),
        "heartbeats": to_json(health_reader.load_heartbeats(engine)),
        "acknowledgements": to_json(notes_reader.load_acknowledgements(engine)),
        "policy": to_json(notes_reader.load_policy(engine, "sample", withdrawn=True)),
        "bisections": to_json(notes_reader.load_bisections(engine, "sample")),
        "judgements": to_json(notes_reader.load_judgements(engine, 2)),
    }
    engine.dispose()
    return found


def test_a_backup_is_the_whole_database_and_can_be_used_in_its_place(
    database_url: str, filled: None, tmp_path: Path
) -> None:
    before = everything(database_url)
    copied = back_up_database(database_url, tmp_path / "backup.db")
    assert copied.num_runs == 7
    assert [path.name for path in tmp_path.iterdir() if "backup" in path.name] == ["backup.db"]
    restored = tmp_path / "restored.db"
    shutil.move(tmp_path / "backup.db", restored)
    url = f"sqlite:///{restored}"
    assert everything(url) == before
    found = check_database(url)
    assert found.problems == ()
    assert found.fingerprint == copied.fingerprint == check_database(database_url).fingerprint
    engine = open_engine(url)
    assert Writer(engine).save_run(make_report(7)) == 8
    engine.dispose()


def test_a_backup_holds_what_is_only_in_the_log_so_far(tmp_path: Path, sqlite_url: str) -> None:
    """A plain copy of the file lacks it: that is why there is a command."""
    engine = open_engine(sqlite_url)
    with engine.connect() as kept_open:  # so that the log is not taken in
        kept_open.exec_driver_sql("SELECT 1")
        for number in range(12):
            Writer(engine).save_run(make_report(number))
        source = Path(sqlite_url.removeprefix("sqlite:///"))
        shutil.copy(source, tmp_path / "plain.db")
        back_up_database(sqlite_url, tmp_path / "backup.db")
    engine.dispose()
    counts = []
    for name in ("plain.db", "backup.db"):
        with sqlite3.connect(tmp_path / name) as database:
            counts += database.execute("SELECT count(*) FROM runs").fetchone()
        database.close()
    assert counts[1] == 12
    assert counts[0] < 12


def test_a_backup_is_taken_while_others_write(tmp_path: Path, sqlite_url: str) -> None:
    engine, stop = open_engine(sqlite_url), threading.Event()
    writer = Writer(engine)
    writer.save_run(make_report(0))

    def write() -> None:
        number = 1
        while not stop.is_set():
            writer.save_run(make_report(number))
            number += 1

    thread = threading.Thread(target=write)
    thread.start()
    try:
        for number in range(5):
            copied = back_up_database(sqlite_url, tmp_path / f"{number}.db")
            found = check_database(f"sqlite:///{tmp_path / f'{number}.db'}")
            assert found.problems == ()
            assert found.row_counts["runs"] == copied.num_runs >= 1
    finally:
        stop.set()
        thread.join()
        engine.dispose()


def test_a_backup_never_takes_the_place_of_a_file(tmp_path: Path, sqlite_url: str) -> None:
    (tmp_path / "there.db").write_text("mine")
    with pytest.raises(StoreError, match="exists already"):
        back_up_database(sqlite_url, tmp_path / "there.db")
    assert (tmp_path / "there.db").read_text() == "mine"
    with pytest.raises(StoreError, match=r"cannot be written|cannot be opened"):
        back_up_database(sqlite_url, tmp_path / "no such folder" / "a.db")


def test_a_copy_into_sqlite_is_the_same(database_url: str, filled: None, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'new' / 'copy.db'}"
    copied = copy_database(database_url, url)
    assert everything(url) == everything(database_url)
    assert check_database(url).problems == ()
    assert copied.fingerprint == check_database(database_url).fingerprint
    engine = open_engine(url)
    assert Writer(engine).acquire_lease("run sample", "another", 60)  # no lock was copied
    engine.dispose()


@pytest.mark.postgres
def test_a_copy_goes_to_postgresql_and_back(
    sqlite_url: str, postgres_url: str, tmp_path: Path
) -> None:
    engine = open_engine(sqlite_url)
    fill(Writer(engine))
    engine.dispose()
    run_on_server(f"{postgres_url}/postgres", "CREATE DATABASE copied")
    there, back = f"{postgres_url}/copied", f"sqlite:///{tmp_path / 'back.db'}"
    try:
        copy_database(sqlite_url, there)
        copy_database(there, back)
        before = everything(sqlite_url)
        assert everything(there) == before
        assert everything(back) == before
        assert check_database(there).problems == ()
        assert check_database(back).fingerprint == check_database(sqlite_url).fingerprint
        engine = open_engine(there)
        writer = Writer(engine)
        assert writer.save_run(make_report(7)) == 8  # goes on counting
        writer.acknowledge(Acknowledgement(incident="y", who="b", why="c", created_at=START))
        engine.dispose()
        with pytest.raises(StoreError, match="is not empty"):
            copy_database(sqlite_url, there)
    finally:
        run_on_server(f"{postgres_url}/postgres", "DROP DATABASE copied")


def test_a_copy_that_differs_is_dropped(
    database_url: str, filled: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    insert = copying.insert_rows

    def lose(connection, model, columns, shared) -> None:  # type: ignore[no-untyped-def]
        lost = [0.5] * len(columns["similarity"])
        insert(connection, model, {**columns, "similarity": lost}, shared)

    monkeypatch.setattr(copying, "insert_rows", lose)
    with pytest.raises(StoreError, match="differs in the copy"):
        copy_database(database_url, f"sqlite:///{tmp_path / 'copy.db'}")
    assert not (tmp_path / "copy.db").exists()


def test_a_source_that_was_altered_is_not_copied_as_sound(
    engine: Engine, database_url: str, filled: None, tmp_path: Path
) -> None:
    with engine.connect().execution_options(writes=True) as connection, connection.begin():
        connection.exec_driver_sql("UPDATE runs SET outcome = 'passed' WHERE id = 3")
    with pytest.raises(StoreError, match="Run 3 differs in the copy, or was changed before"):
        copy_database(database_url, f"sqlite:///{tmp_path / 'copy.db'}")


def test_pruning_is_dry_unless_it_is_asked_for(
    engine: Engine, writer: Writer, database_url: str
) -> None:
    old = [writer.save_run(make_report(0, duration_s=float(n))) for n in range(3)]
    found = prune(engine, LATER)
    assert found.run_ids == tuple(old[:2])
    assert (found.num_results, found.num_kept) == (6, 0)
    assert len(reader.load_runs(engine, all_attempts=True)) == 3
    assert prune(engine, START).run_ids == ()  # nothing is as old as that
    assert prune(engine, LATER, apply=True) == found
    assert [run.id for run in reader.load_runs(engine, all_attempts=True)] == [old[2]]
    assert check_database(database_url).problems == ()
    assert prune(engine, LATER).run_ids == ()


def test_pruning_keeps_what_something_points_to(
    engine: Engine, writer: Writer, database_url: str, filled: None
) -> None:
    def again(number: int, **changes: object) -> int:
        """One more attempt, which supersedes the last one."""
        return writer.save_run(make_report(number, duration_s=9.0, **changes))

    again(0)  # run 2: inherited by run 4, and judged again
    again(1, similarities=(0.9, 0.9, 0.9))  # run 3: a bisection tried it
    again(5)  # run 7: inherited by run 1
    again(3)  # run 6
    flips = [again(6, similarities=s, code_digest="same") for s in ((1.0,) * 3, (0.5,) * 3)]
    again(6, code_digest="same")
    before = everything(database_url)
    found = prune(engine, LATER, apply=True)
    # Run 5, an error, and run 6 went; the first is of no use, the second says what the next says.
    assert set(found.run_ids) == {5, 6}
    assert found.num_kept == 5
    left = {run.id for run in reader.load_runs(engine, all_attempts=True)}
    assert {2, 3, 7, *flips} <= left
    after = everything(database_url)
    for name in ("series", "bisections", "judgements", "commits"):
        assert after[name] == before[name]
    assert check_database(database_url).problems == ()


def test_embeddings_of_old_runs_go_and_their_digest_stands(
    engine: Engine, writer: Writer, database_url: str
) -> None:
    rows = np.ones((3, 4), np.float32)
    kept = write_embeddings(PooledEmbeddings(packed=rows, unpacked=rows))
    first, second = (
        writer.save_run(make_report(number, documents={"packs": {}, **kept})) for number in (0, 1)
    )
    assert EMBEDDING_DATA not in reader.load_documents(engine, first)  # read where asked for only
    assert reader.load_document(engine, first, EMBEDDING_DATA) == kept[EMBEDDING_DATA]
    assert prune(engine, LATER).num_embeddings == 0
    assert prune(engine, LATER, embeddings=True).num_embeddings == 2
    assert prune(engine, LATER, apply=True, embeddings=True).num_embeddings == 2
    assert reader.load_document(engine, second, EMBEDDING_DATA) is None
    assert reader.load_document(engine, second, EMBEDDINGS) == kept[EMBEDDINGS]
    assert check_database(database_url).problems == ()
