"""Every stored run carries a digest and a place in a chain: what is altered later is found."""

import dataclasses
import re
import sqlite3
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import Engine

from tests.store.builders import CONFIGURATION, ENVIRONMENT, TARGET, make_report, remove_run
from tests.store.test_inheritance import skip
from virnucpro_monitor.errors import StoreError
from virnucpro_monitor.records import Failure, Outcome, SequenceStatus
from virnucpro_monitor.store import reader
from virnucpro_monitor.store.anchors import Anchors
from virnucpro_monitor.store.connection import reading
from virnucpro_monitor.store.engine import upgrade_database
from virnucpro_monitor.store.integrity import seal_runs
from virnucpro_monitor.store.maintenance import check_database
from virnucpro_monitor.store.writer import Writer

ASSETS = Path(__file__).parent / "assets"
HALF = dataclasses.replace(CONFIGURATION, dtype="float16")


@pytest.fixture
def history(writer: Writer) -> None:
    """Runs 1 to 9 of two series, of every outcome."""
    first = make_report(0, (0.99999, 1.0, -0.0), documents={"probes": {"leak": 0.0}, "packs": []})
    lost = make_report(1, (0.9, None, 1.0), environment=None)
    spoilt = dataclasses.replace(lost.sequences[1], status=SequenceStatus.LOST, worst_residue=None)
    failure = Failure(kind="import", message="No module 'é\0'", traceback="T", log="L\ud800")
    writer.save_run(first)
    writer.save_runs(
        [
            dataclasses.replace(lost, sequences=(lost.sequences[0], spoilt, lost.sequences[2])),
            skip(2, first),
            make_report(3, (), outcome=Outcome.ERROR, failure=failure, figures=None, gates=()),
            make_report(0, configuration=HALF),
            make_report(4, (), outcome=Outcome.NOT_RUN, figures=None, reason="é\0 \U0001f9ec"),
            make_report(3),
        ]
    )
    writer.save_run(make_report(1, configuration=HALF))
    writer.save_run(make_report(5))


def test_what_the_writer_stores_is_sound(database_url: str, history: None) -> None:
    found = check_database(database_url)
    assert found.problems == ()
    assert found.row_counts["chain_links"] == found.row_counts["runs"] == 9


ALTERED = {
    "an outcome": ("UPDATE runs SET outcome = 'passed' WHERE id = 2", "Run 2 was changed"),
    "a figure": (
        "UPDATE runs SET min_similarity = 0.99999 WHERE id = 2",
        "Run 2 was changed: its rows",
    ),
    "a gate": (
        "UPDATE runs SET gates = replace(gates, 'false', 'true') WHERE id = 2",
        "Run 2 was changed: its rows",
    ),
    "a similarity": (
        "UPDATE sequence_results SET similarity = 0.99999 WHERE run_id = 2 AND sequence_index = 0",
        "Run 2 was changed",
    ),
    "what is not known": (
        "UPDATE sequence_results SET similarity = 1 WHERE run_id = 2 AND sequence_index = 1",
        "Run 2 was changed",
    ),
    "a status": (
        "UPDATE sequence_results SET status = 'ok' WHERE run_id = 2 AND sequence_index = 1",
        "Run 2 was changed",
    ),
    "a result": ("DELETE FROM sequence_results WHERE run_id = 2", "Run 2 was changed"),
    "a document": ("DELETE FROM documents WHERE name = 'packs'", "Run 1 was changed"),
    "its words": ("UPDATE failures SET message = 'none'", "Run 4 was changed"),
    "the commit": (
        "UPDATE runs SET commit_id = (SELECT commit_id FROM runs WHERE id = 4) WHERE id = 8",
        "Run 8 was changed",
    ),
    "the time": (
        "UPDATE runs SET started_at = '2026-03-01 12:00:00.000000' WHERE id = 5",
        "Run 5 was changed",
    ),
    "the environment": (
        "UPDATE environments SET torch = '9'",
        "of environments was changed: it has another digest",
    ),
    "the configuration": (
        "UPDATE configurations SET dtype = 'float64' WHERE dtype = 'float16'",
        "of configurations was changed: it has another digest",
    ),
    "what it was judged by": (
        "UPDATE protocols SET content = replace(content, '0.995', '0.5')",
        "Protocol 1 was changed: it has another digest",
    ),
    "its digest with it": (
        "UPDATE runs SET digest = 'f' WHERE id = 5",
        "Run 5 was changed: its digest is not the one in its chain",
    ),
    "a link": (
        "UPDATE chain_links SET digest = 'f' WHERE run_id = 6",
        "The chain of target sample",
    ),
    "a run in the middle": ("DELETE FROM runs WHERE id = 6", "Run 6 was removed"),
    "the last run": ("DELETE FROM runs WHERE id = 9", "Run 9 was removed"),
    "a run and its link": (
        "DELETE FROM runs WHERE id = 6; DELETE FROM chain_links WHERE run_id = 6",
        "before run 7 was removed with its link",
    ),
    "the order": (
        "UPDATE chain_links SET place = -1 WHERE run_id = 6;"
        "UPDATE chain_links SET place = 99 WHERE run_id = 7",
        "The chain|removed with its link",
    ),
    "whose measures it has": (
        "UPDATE runs SET inherited_run_id = 2 WHERE id = 3",
        "Run 3 points at run 2, which is not what it inherits from",
    ),
}


@pytest.mark.parametrize("what", ALTERED)
def test_whatever_is_altered_is_found(
    what: str, engine: Engine, database_url: str, history: None
) -> None:
    statements, finding = ALTERED[what]
    with engine.connect().execution_options(writes=True) as connection, connection.begin():
        for statement in statements.split(";"):
            connection.exec_driver_sql(statement)
    problems = check_database(database_url).problems
    assert any(re.search(finding, one) for one in problems), problems


def test_an_inserted_run_is_found(engine: Engine, database_url: str, history: None) -> None:
    columns = "target_id, benchmark_set_id, configuration_id, protocol_id, reason, gates, bridge"
    columns += ", started_at, duration_s, num_results"
    with engine.connect().execution_options(writes=True) as connection, connection.begin():
        connection.exec_driver_sql(
            f"INSERT INTO runs (commit_id, superseded, outcome, {columns}) "
            f"SELECT (SELECT id FROM commits WHERE position = 5), true, 'passed', {columns} "
            "FROM runs WHERE id = 6"
        )
    (problem,) = check_database(database_url).problems
    assert problem.endswith("was inserted: it is not in the chain of its series.")


def test_a_run_that_is_deleted_on_purpose_is_no_finding(
    engine: Engine, database_url: str, writer: Writer, history: None
) -> None:
    before = check_database(database_url).fingerprint
    remove_run(engine, 6)
    writer.save_run(make_report(8))
    found = check_database(database_url)
    assert found.problems == ()
    assert found.fingerprint != before


def test_an_upgrade_seals_what_was_stored_before(tmp_path: Path) -> None:
    path = tmp_path / "old.db"
    with sqlite3.connect(path) as database:
        database.executescript((ASSETS / "0001_history.sql").read_text())
    database.close()
    upgrade_database(f"sqlite:///{path}")
    assert check_database(f"sqlite:///{path}").problems == ()
    with sqlite3.connect(path) as database:
        database.execute("UPDATE runs SET max_similarity = 0.5 WHERE id = 4")
    database.close()
    (problem,) = check_database(f"sqlite:///{path}").problems
    assert problem == "Run 4 was changed: its rows no longer have its digest."


def test_numpy_numbers_are_stored_as_plain_ones(
    engine: Engine, writer: Writer, database_url: str
) -> None:
    report = make_report()
    results = tuple(
        dataclasses.replace(
            one,
            length=np.int64(one.length),
            truncated=np.bool_(True),
            similarity=np.float64(one.similarity),
            gain=np.float32(0.5),
            pack=np.int32(one.pack),
        )
        for one in report.sequences
    )
    figures = report.run.figures
    assert figures is not None
    figures = dataclasses.replace(
        figures, num_tokens=np.int64(29), strict_pass_rate=np.float32(1.0), seed_passed=np.bool_(1)
    )
    gates = tuple(dataclasses.replace(g, limit=np.float32(0.5)) for g in report.run.gates)
    run = dataclasses.replace(report.run, figures=figures, gates=gates, duration_s=np.float64(2))
    run_id = writer.save_run(dataclasses.replace(report, run=run, sequences=results))
    stored = reader.load_sequences(engine, run_id)
    assert [(type(one.length), type(one.gain), type(one.pack)) for one in stored] == (
        [(int, float, int)] * 3
    )
    assert [one.length for one in stored] == [one.length for one in report.sequences]
    assert all(one.truncated is True and one.gain == 0.5 for one in stored)
    loaded = reader.load_run(engine, run_id)
    assert loaded.figures == dataclasses.replace(
        report.run.figures, num_tokens=29, strict_pass_rate=1.0, seed_passed=True
    )
    if engine.dialect.name == "sqlite":
        with engine.connect() as connection:
            kinds = connection.exec_driver_sql(
                "SELECT DISTINCT typeof(length), typeof(pack), typeof(gain), typeof(similarity) "
                "FROM sequence_results"
            ).all()
        assert kinds == [("integer", "integer", "real", "real")]
    assert check_database(database_url).problems == ()


@pytest.mark.parametrize("value", [np.nan, float("inf"), np.float64("nan"), np.float32("inf")])
def test_what_is_not_finite_is_refused_alike(value: float, engine: Engine, writer: Writer) -> None:
    report = make_report()
    spoilt = dataclasses.replace(report.sequences[2], packed_relative_l2=value)
    with pytest.raises(StoreError, match=r"packed_relative_l2 of sequence 'short_3' is (nan|inf)"):
        writer.save_run(dataclasses.replace(report, sequences=(*report.sequences[:2], spoilt)))
    figures = dataclasses.replace(report.run.figures, min_similarity=value)
    with pytest.raises(StoreError, match="min_similarity of the run of sample"):
        writer.save_run(make_report(figures=figures))
    assert reader.load_runs(engine) == []


def test_numbers_whose_sum_is_too_large_are_stored(engine: Engine, writer: Writer) -> None:
    report = make_report()
    results = tuple(dataclasses.replace(one, gain=1.5e308) for one in report.sequences)
    run_id = writer.save_run(dataclasses.replace(report, sequences=results))
    assert [one.gain for one in reader.load_sequences(engine, run_id)] == [1.5e308] * 3


def test_the_same_runs_have_the_same_digests_in_both_databases(
    engine: Engine, history: None
) -> None:
    """What a copy between databases is verified by; these came from SQLite."""
    digests = [run.digest for run in reader.load_runs(engine, all_attempts=True)]
    assert all(digests)
    assert len(set(digests)) == 9
    assert ENVIRONMENT.packages is None


def test_many_runs_are_stored_together_or_not_at_all(engine: Engine, writer: Writer) -> None:
    with pytest.raises(StoreError, match="has index 7"):
        writer.save_runs(
            [
                make_report(0),
                dataclasses.replace(
                    make_report(1),
                    sequences=(dataclasses.replace(make_report(1).sequences[0], index=7),),
                ),
            ]
        )
    assert reader.load_runs(engine) == []
    first = make_report(3)
    early, measured, late = writer.save_runs([skip(2, first), first, skip(4, first)])
    stored = {run.id: run.inherited_run_id for run in reader.load_runs(engine)}
    assert stored == {early: measured, measured: None, late: measured}


def forge(engine: Engine, *statements: str) -> None:
    """Change rows as who owns the database can: with all digests and chains taken again."""
    with engine.connect().execution_options(writes=True) as connection, connection.begin():
        for statement in statements:
            connection.exec_driver_sql(statement)
        connection.exec_driver_sql("UPDATE runs SET digest = NULL")
        connection.exec_driver_sql("DELETE FROM chain_links")
        seal_runs(connection)


@pytest.mark.usefixtures("history")
@pytest.mark.parametrize(
    ("statements", "sentence"),
    [
        (("UPDATE runs SET reason = 'well' WHERE id = 2",), "Run 2 of target .* was rewritten"),
        (("DELETE FROM runs WHERE id = 9",), "Run 9 of target .* has gone since this host saw it"),
    ],
)
def test_what_a_host_has_seen_cannot_be_rewritten(
    statements: tuple[str, ...], sentence: str, database_url: str, engine: Engine
) -> None:
    anchors = Anchors(database_url)
    with reading(engine) as connection:
        anchors.note(connection)
    assert check_database(database_url).num_anchored == 9
    dependants = ("sequence_results", "documents", "failures")
    cleared = [f"DELETE FROM {table} WHERE run_id = 9" for table in dependants]
    forge(engine, *(cleared if "DELETE" in statements[0] else ()), *statements)
    found = check_database(database_url)
    assert [one for one in found.problems if not re.match(sentence, one)] == []
    assert found.problems
    anchors.forget(TARGET.name)
    assert check_database(database_url).problems == ()
    with reading(engine) as connection:
        Anchors(database_url).note(connection)
    assert check_database(database_url).problems == ()


def test_notes_that_a_kill_has_cut_are_read(database_url: str, writer: Writer) -> None:
    anchors = Anchors(database_url)
    for number in range(2):
        writer.save_run(make_report(number))
        with reading(writer.engine) as connection:
            anchors.note(connection)
    anchors.path.write_text(anchors.path.read_text()[:-5])
    found = check_database(database_url)
    assert (found.num_anchored, found.problems) == (1, ())
    anchors.forget()  # what is written after a cut line is read, too
    assert check_database(database_url).num_anchored == 0
