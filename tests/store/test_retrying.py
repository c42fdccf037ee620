"""A database that is away for a moment, on a server that is really stopped; and the spool."""

import dataclasses
import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import Engine

from tests.store.builders import BENCHMARK, make_report
from tests.store.conftest import PostgresServer
from virnucpro_monitor.errors import DatabaseAway, MissingDatabase, StoreError
from virnucpro_monitor.store import reader
from virnucpro_monitor.store.engine import create_database, open_engine
from virnucpro_monitor.store.maintenance import check_database
from virnucpro_monitor.store.retrying import retried
from virnucpro_monitor.store.spool import Spool
from virnucpro_monitor.store.writer import Writer


@pytest.fixture
def own_server() -> Iterator[PostgresServer]:
    """A server that a test may stop."""
    with PostgresServer() as server:
        server.execute("CREATE DATABASE monitor")
        create_database(f"{server.url}/monitor")
        yield server


def away(unsure: bool = False) -> DatabaseAway:
    error = DatabaseAway("The database is away.")
    error.unsure = unsure
    return error


def failing(errors: list[DatabaseAway]) -> Callable[[bool], list[bool]]:
    calls: list[bool] = []

    def act(unsure: bool) -> list[bool]:
        calls.append(unsure)
        if errors:
            raise errors.pop(0)
        return calls

    return act


def test_what_fails_for_a_moment_is_tried_again_with_one_word() -> None:
    words: list[str] = []
    assert retried(failing([away(), away(unsure=True)]), on_wait=words.append) == [
        False,
        False,
        True,
    ]
    assert words == ["The database is away. Trying again for 30 seconds."]


def test_trying_again_has_a_bound() -> None:
    start = time.monotonic()
    with pytest.raises(DatabaseAway):
        retried(failing([away()] * 100), patience_s=0.6)
    assert 0.6 <= time.monotonic() - start < 10


def test_what_may_have_happened_is_not_repeated_unless_it_may_be() -> None:
    with pytest.raises(DatabaseAway):
        retried(failing([away(unsure=True)]), repeatable=False)
    assert retried(failing([away()]), repeatable=False) == [False, False]


@pytest.mark.postgres
def test_a_server_that_restarts_costs_no_result(own_server: PostgresServer) -> None:
    words: list[str] = []
    engine = open_engine(f"{own_server.url}/monitor")
    writer = Writer(engine, on_wait=words.append)
    first = writer.save_run(make_report(0))
    own_server.stop()
    thread = threading.Timer(2, own_server.start)
    thread.start()
    second = writer.save_run(make_report(1))
    thread.join()
    assert len(words) == 1
    assert "cannot be reached just now" in words[0]
    assert [run.id for run in reader.load_runs(engine)] == [first, second]
    engine.dispose()
    assert check_database(f"{own_server.url}/monitor").problems == ()


@pytest.mark.postgres
def test_results_wait_in_the_spool_and_are_stored_once(
    own_server: PostgresServer, tmp_path: Path
) -> None:
    engine = open_engine(f"{own_server.url}/monitor")
    writer = Writer(engine, patience_s=0)
    spool = Spool(tmp_path / "spool")
    writer.save_run(make_report(0))
    own_server.stop()
    reports = [make_report(1), make_report(2, (0.9, None, 1.0), documents={"trace": {"a": 1}})]
    for report in reports:
        with pytest.raises(DatabaseAway):
            writer.save_run(report)
        spool.keep(report)
    words: list[str] = []
    with pytest.raises(DatabaseAway):
        spool.replay(writer, words.append)
    assert len(spool) == 2
    own_server.start()
    # The last replay was cut short after the database had stored the first of them.
    already = Writer(engine).save_run(reports[0])
    assert spool.replay(writer, words.append) == 2
    assert len(spool) == 0
    assert words == []
    runs = reader.load_runs(engine, all_attempts=True)
    assert [run.commit.position for run in runs] == [0, 1, 2]
    assert runs[1].id == already
    stored = dataclasses.replace(runs[2], id=None)
    assert stored == reports[1].run
    assert tuple(reader.load_sequences(engine, runs[2].id or 0)) == reports[1].sequences
    assert reader.load_documents(engine, runs[2].id or 0) == {"trace": {"a": 1}}
    engine.dispose()
    assert check_database(f"{own_server.url}/monitor").problems == ()


@pytest.mark.postgres
def test_a_database_that_does_not_exist_is_told_with_what_to_do(postgres_url: str) -> None:
    url = f"{postgres_url}/nowhere"
    for act in (open_engine, create_database):
        with pytest.raises(MissingDatabase, match=r"no database 'nowhere': create it .`createdb"):
            act(url)
    with pytest.raises(StoreError, match="does not know the user 'nobody'"):
        open_engine(url.replace("monitor@", "nobody@"))


def test_the_same_run_is_stored_once_where_it_may_be_there(engine: Engine, writer: Writer) -> None:
    first = writer.save_run(make_report(1))
    assert writer.save_run(make_report(1), again=True) == first
    assert writer.save_run(make_report(1, duration_s=2.0), again=True) != first
    assert writer.save_run(make_report(2), again=True)
    assert len(reader.load_runs(engine, all_attempts=True)) == 3


def test_a_spool_keeps_the_order_and_plain_numbers(
    tmp_path: Path, engine: Engine, writer: Writer
) -> None:
    spool = Spool(tmp_path / "spool")
    report = make_report(0)
    odd = dataclasses.replace(
        report,
        sequences=tuple(
            dataclasses.replace(one, length=np.int64(one.length)) for one in report.sequences
        ),
    )
    spool.keep(odd)
    for number in range(1, 12):
        spool.keep(make_report(number))
    assert spool.replay(writer, print) == 12
    assert [run.id for run in reader.load_runs(engine)] == list(range(1, 13))


@pytest.mark.parametrize("content", ["", "{", "[]", '{"run": 7}', "\0\0\0", "changed"])
def test_a_waiting_result_that_cannot_be_read_is_set_aside(
    content: str, tmp_path: Path, engine: Engine, writer: Writer
) -> None:
    spool = Spool(tmp_path)
    for number in range(2):
        spool.keep(make_report(number))
    path = sorted(tmp_path.glob("*.json"))[0]
    if content == "changed":
        document = json.loads(path.read_text())
        document["run"]["reason"] = "All is well."
        content = json.dumps(document)
    path.write_text(content)
    words: list[str] = []
    assert spool.replay(writer, words.append) == 1
    assert len(words) == 1
    assert str(path.with_suffix(".unreadable")) in words[0]
    assert path.with_suffix(".unreadable").read_text() == content
    assert [run.commit.position for run in reader.load_runs(engine)] == [1]


def test_what_the_database_has_no_place_for_holds_up_no_other(
    tmp_path: Path, engine: Engine, writer: Writer
) -> None:
    spool = Spool(tmp_path)
    changed = dataclasses.replace(BENCHMARK, digest="c" * 64)  # under the same name and version
    for report in (make_report(0), make_report(1, benchmark=changed), make_report(2)):
        spool.keep(report)
    words: list[str] = []
    assert spool.replay(writer, words.append) == 2
    assert len(spool) == 0
    (word,) = words
    assert "Benchmark seed@1 in the database has other content" in word
    assert len(list(tmp_path.glob("*.unreadable"))) == 1
    assert [run.commit.position for run in reader.load_runs(engine)] == [0, 2]


def test_a_killed_writer_leaves_only_whole_results(tmp_path: Path) -> None:
    """SIGKILL at random moments of keeping: each file is whole, and none is lost that counted."""
    script = (
        "import sys\n"
        "from pathlib import Path\n"
        "from tests.store.builders import make_report\n"
        "from virnucpro_monitor.store.spool import Spool\n"
        "spool = Spool(Path(sys.argv[1]))\n"
        "for number in range(10**6):\n"
        "    spool.keep(make_report(number))\n"
        "    print(number, flush=True)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    for _ in range(30):
        process.stdout.readline()
    process.send_signal(signal.SIGKILL)
    kept = 30 + len(process.stdout.read().splitlines())
    process.wait()
    process.stdout.close()
    files = sorted(tmp_path.glob("*.json"))
    assert kept <= len(files) <= kept + 1
    for path in files:
        assert json.loads(path.read_text())["run"]["outcome"] == "passed"
