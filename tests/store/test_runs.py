"""Runs written and read back, alike on both databases."""

import dataclasses
import math
from datetime import timedelta, timezone
from typing import Any

import pytest
from sqlalchemy import Engine, text

from tests.store.builders import (
    BENCHMARK,
    CONFIGURATION,
    CONTENT,
    PROTOCOL,
    START,
    TARGET,
    make_commit,
    make_report,
    make_results,
    remove_run,
)
from virnucpro_monitor.errors import NotFoundError, StoreError
from virnucpro_monitor.records import (
    Culprit,
    Failure,
    Outcome,
    ProteinSequence,
    RunReport,
    SequenceStatus,
)
from virnucpro_monitor.store import reader
from virnucpro_monitor.store.writer import Writer

TABLES = ("runs", "commits", "targets", "sequence_results", "failures", "documents", "protocols")


def count_rows(engine: Engine) -> dict[str, int]:
    with engine.connect() as connection:
        return {
            table: connection.execute(text(f"SELECT count(*) FROM {table}")).scalar_one()
            for table in TABLES
        }


def test_a_run_comes_back_as_it_was_given(engine: Engine, writer: Writer) -> None:
    report = make_report(
        3,
        (0.1234567890123456789, 1.0 - 2**-53, None),
        documents={"probes": {"leak": [0.0, 1e-300]}, "trace": None, "packs": [1, "é"]},
    )
    run_id = writer.save_run(report)
    assert reader.load_run(engine, run_id) == dataclasses.replace(report.run, id=run_id)
    assert tuple(reader.load_sequences(engine, run_id)) == report.sequences
    assert reader.load_documents(engine, run_id) == {
        "packs": [1, "é"],
        "probes": {"leak": [0.0, 1e-300]},
        "trace": None,
    }
    assert reader.load_document(engine, run_id, "packs") == [1, "é"]
    assert reader.load_document(engine, run_id, "unknown") is None
    assert reader.load_failure(engine, run_id) is None
    assert reader.load_target(engine, "sample") == TARGET
    assert reader.load_benchmarks(engine) == [BENCHMARK]
    assert reader.load_protocol(engine, PROTOCOL.digest) == PROTOCOL


def test_an_error_keeps_its_traceback_whatever_it_holds(engine: Engine, writer: Writer) -> None:
    hostile = "\0<script>alert(1)</script>\x1b[31m\u202e\udcff " + "x" * 1_000_000
    run_id = writer.save_run(
        make_report(
            1,
            (),
            commit=make_commit(1, subject=hostile, author="\udc80"),
            failure=Failure(kind="import", message=hostile, traceback=hostile, log=hostile),
            outcome=Outcome.ERROR,
            culprit=None,
            reason=hostile,
            gates=(),
            environment=None,
        )
    )
    stored = hostile.replace("\0", "\ufffd").replace("\udcff", "\ufffd")
    failure = reader.load_failure(engine, run_id)
    assert failure == Failure(kind="import", message=stored, traceback=stored, log=stored)
    run = reader.load_run(engine, run_id)
    assert (run.reason, run.commit.subject, run.commit.author) == (stored, stored, "\ufffd")
    assert run.environment is None
    assert run.figures is None
    assert run.outcome is Outcome.ERROR


def test_times_keep_their_instant_whatever_their_zone(engine: Engine, writer: Writer) -> None:
    zone = timezone(timedelta(hours=-9, minutes=-30))
    started_at = START.astimezone(zone)
    run = reader.load_run(engine, writer.save_run(make_report(started_at=started_at)))
    assert run.started_at == START
    assert run.started_at.utcoffset() == timedelta(0)


def test_a_time_without_a_zone_is_refused(engine: Engine, writer: Writer) -> None:
    with pytest.raises(StoreError, match="no time zone"):
        writer.save_run(make_report(started_at=START.replace(tzinfo=None)))
    assert set(count_rows(engine).values()) == {0}


def _with_result(report: RunReport, **changes: Any) -> RunReport:
    first, *others = report.sequences
    return dataclasses.replace(report, sequences=(dataclasses.replace(first, **changes), *others))


@pytest.mark.parametrize(
    ("report", "message"),
    [
        (_with_result(make_report(), gain=math.nan), "gain of sequence 'short_1' is nan"),
        (_with_result(make_report(), relative_l2=math.inf), "relative_l2 .* is inf"),
        (_with_result(make_report(), index=1), "has index 1, which is not its place"),
        (_with_result(make_report(), index=-3), "has index -3"),
        (_with_result(make_report(), sequence_id="other"), "'other' has index 0"),
        (make_report(duration_s=math.nan), "duration_s of the run of sample at 0000"),
        (make_report(documents={"noise": {"floor": math.nan}}), "cannot be stored as JSON"),
        (
            dataclasses.replace(make_report(), sequences=make_results((1.0, 1.0)) * 2),
            "cannot be used",
        ),
    ],
    ids=["nan", "inf", "index", "negative", "id", "duration", "document", "twice"],
)
def test_a_run_that_cannot_be_stored_leaves_nothing_behind(
    engine: Engine, writer: Writer, report: RunReport, message: str
) -> None:
    with pytest.raises(StoreError, match=message):
        writer.save_run(report)
    assert set(count_rows(engine).values()) == {0}


def test_a_run_is_invisible_until_it_is_whole(
    engine: Engine, writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def look(*_: Any) -> dict[str, Any]:
        seen.append((reader.load_runs(engine), reader.load_targets(engine)))
        raise RuntimeError("killed")

    monkeypatch.setattr("virnucpro_monitor.store.saving.insert_rows", look)
    with pytest.raises(RuntimeError, match="killed"):
        writer.save_run(make_report())
    assert seen == [([], [])]
    assert set(count_rows(engine).values()) == {0}


def test_runs_come_in_history_order(engine: Engine, writer: Writer) -> None:
    for number in (4, 0, 2, 1, 3):
        writer.save_run(make_report(number))
    moved = make_commit(9, position=None, on_branch=False)
    writer.save_run(make_report(commit=moved))
    positions = [run.commit.position for run in reader.load_runs(engine)]
    assert positions == [None, 0, 1, 2, 3, 4]
    newest = reader.load_runs(engine, target="sample", limit=2)
    assert [run.commit.position for run in newest] == [3, 4]


def test_runs_can_be_chosen(engine: Engine, writer: Writer) -> None:
    half = dataclasses.replace(CONFIGURATION, dtype="float16")
    other = dataclasses.replace(TARGET, name="other")
    second = dataclasses.replace(BENCHMARK, version=2, digest="c" * 64)
    for number in range(4):
        writer.save_run(make_report(number))
    writer.save_run(make_report(1, configuration=half))
    writer.save_run(make_report(2, (0.9, 1.0, 1.0), target=other))
    writer.save_run(make_report(3, benchmark=second))
    writer.save_run(make_report(commit=make_commit(7, position=None, on_branch=False)))

    def chosen(**filters: Any) -> list[int | None]:
        return [run.commit.position for run in reader.load_runs(engine, **filters)]

    assert chosen(target="sample") == [None, 0, 1, 1, 2, 3, 3]
    assert chosen(target="other") == [2]
    assert chosen(target="nobody") == []
    assert chosen(benchmark="seed@2") == [3]
    assert chosen(benchmark="seed", target="sample", on_branch=True) == [0, 1, 1, 2, 3, 3]
    assert chosen(benchmark="seed@x") == []
    assert chosen(configuration=half.digest) == [1]
    assert chosen(commits=[make_commit(0).hash, make_commit(7).hash]) == [None, 0]
    assert chosen(commits=[]) == []
    assert chosen(target="sample", from_position=1, to_position=2) == [1, 1, 2]
    assert chosen(target="sample", on_branch=False) == [None]
    committed = make_commit(2).committed_at
    assert chosen(benchmark="seed@1", target="sample", since=committed) == [None, 2, 3]
    assert chosen(benchmark="seed@1", target="sample", until=committed) == [0, 1, 1, 2]
    assert chosen(outcomes=[Outcome.FAILED]) == [2]


def test_the_latest_attempt_is_the_current_one(engine: Engine, writer: Writer) -> None:
    first = writer.save_run(make_report(1, (0.9, 1.0, 1.0)))
    second = writer.save_run(make_report(1, bridge=True))
    assert [run.id for run in reader.load_runs(engine)] == [second]
    attempts = reader.load_runs(engine, all_attempts=True)
    assert [run.id for run in attempts] == [first, second]
    assert reader.load_run(engine, first).outcome is Outcome.FAILED


def test_not_run_never_hides_a_result(engine: Engine, writer: Writer) -> None:
    not_run = {"outcome": Outcome.NOT_RUN, "culprit": None, "gates": (), "reason": "GPU busy"}
    early = writer.save_run(make_report(1, (), **not_run))
    again = writer.save_run(make_report(1, (), **not_run))
    assert [run.id for run in reader.load_runs(engine)] == [again]
    measured = writer.save_run(make_report(1))
    late = writer.save_run(make_report(1, (), **not_run))
    assert [run.id for run in reader.load_runs(engine)] == [measured]
    attempts = reader.load_runs(engine, all_attempts=True)
    assert [run.id for run in attempts] == [early, again, measured, late]


def test_a_skipped_run_keeps_what_it_inherits(engine: Engine, writer: Writer) -> None:
    inherited = {"inherited_from": make_commit(1).hash, "inherited_outcome": Outcome.FAILED}
    report = make_report(2, (), outcome=Outcome.SKIPPED, culprit=Culprit.PACKED, **inherited)
    run = reader.load_run(engine, writer.save_run(report))
    assert run.outcome is Outcome.SKIPPED
    assert run.effective_outcome is Outcome.FAILED
    assert run.inherited_from == make_commit(1).hash


def test_sequences_can_be_filtered_sorted_and_paged(engine: Engine, writer: Writer) -> None:
    sequences = tuple(
        ProteinSequence(id=f"seq_{index:02d}%", residues="M" * (index + 1)) for index in range(6)
    )
    benchmark = dataclasses.replace(BENCHMARK, name="six", sequences=sequences)
    report = make_report(0, (1.0, 0.995, 0.9949, None, 0.5, 1.0), benchmark=benchmark)
    report = _with_result(report, status=SequenceStatus.DOUBLED)
    run_id = writer.save_run(report)

    def indices(**options: Any) -> list[int]:
        return [s.index for s in reader.load_sequences(engine, run_id, **options)]

    assert indices() == [0, 1, 2, 3, 4, 5]
    assert indices(only_failing=True) == [0, 2, 3, 4]
    assert indices(order_by="similarity") == [3, 4, 2, 1, 0, 5]
    assert indices(order_by="length", limit=2) == [5, 4]
    assert indices(limit=2, offset=3) == [3, 4]
    assert indices(search="SEQ_04") == [4]
    assert indices(search="%") == [0, 1, 2, 3, 4, 5]
    assert indices(search="4_") == []
    assert indices(pack=0, order_by="pack") == [0, 1, 2, 3, 4, 5]
    assert indices(pack=1) == []
    with pytest.raises(NotFoundError, match="cannot be sorted by 'residues; DROP'"):
        indices(order_by="residues; DROP")
    with pytest.raises(NotFoundError, match="no run 12345"):
        reader.load_sequences(engine, 12345)


def test_a_sequence_has_a_history(engine: Engine, writer: Writer) -> None:
    for number, similarity in enumerate((1.0, 0.9, 1.0)):
        writer.save_run(make_report(number, (1.0, similarity, 1.0)))
    writer.save_run(make_report(1, (1.0, 0.8, 1.0)))  # replaces the earlier attempt
    writer.save_run(make_report(3, (), outcome=Outcome.ERROR))
    history = reader.load_sequence_history(engine, "sample", "seed@1", "short_2")
    assert [point.result.similarity for point in history] == [1.0, 0.8, 1.0]
    assert [point.run.commit.position for point in history] == [0, 1, 2]
    assert {point.result.sequence_id for point in history} == {"short_2"}
    with pytest.raises(NotFoundError, match="no sequence 'nobody'"):
        reader.load_sequence_history(engine, "sample", "seed", "nobody")


def test_a_run_under_another_protocol_names_it(engine: Engine, writer: Writer) -> None:
    loose = dataclasses.replace(PROTOCOL, version="2", digest="2" * 64, content={**CONTENT, "x": 1})
    first = writer.save_run(make_report(1))
    second = writer.save_run(make_report(2, protocol=loose))
    versions = [reader.load_run(engine, run_id).protocol_version for run_id in (first, second)]
    assert versions == ["1", "2"]


def test_a_benchmark_set_never_changes_under_its_name(engine: Engine, writer: Writer) -> None:
    writer.save_run(make_report(0))
    writer.save_run(make_report(1))
    altered = dataclasses.replace(BENCHMARK, digest="d" * 64)
    with pytest.raises(StoreError, match="seed@1 in the database has other content"):
        writer.save_run(make_report(benchmark=altered))
    newer = dataclasses.replace(altered, version=2)
    writer.save_run(make_report(0, benchmark=newer))
    assert reader.load_benchmarks(engine) == [BENCHMARK, newer]


def test_a_deleted_run_is_gone_and_its_id_is_not_used_again(engine: Engine, writer: Writer) -> None:
    first = writer.save_run(make_report(1, documents={"probes": {}}))
    remove_run(engine, first)
    rows = count_rows(engine)
    assert (rows["runs"], rows["sequence_results"], rows["documents"]) == (0, 0, 0)
    assert writer.save_run(make_report(1)) > first
    with pytest.raises(NotFoundError, match=f"no run {first}"):
        reader.load_run(engine, first)


def test_what_was_read_before_is_not_decoded_again_and_a_change_of_its_row_is_seen(
    engine: Engine, writer: Writer
) -> None:
    reports = [make_report(number) for number in range(3)]
    for report in reports:
        writer.save_run(report)
    before = reader.load_runs(engine)
    writer.save_run(make_report(3))
    with engine.connect().execution_options(writes=True) as connection, connection.begin():
        connection.execute(text("UPDATE runs SET min_similarity = 0.25 WHERE id = 2"))
    writer.save_commits("sample", [dataclasses.replace(reports[2].run.commit, subject="anew")])
    after = reader.load_runs(engine)
    for value in (-1.0, -2.0):  # which have one hash
        with engine.connect().execution_options(writes=True) as connection, connection.begin():
            connection.execute(text(f"UPDATE runs SET p01_similarity = {value} WHERE id = 4"))
        figures = reader.load_runs(engine)[3].figures
        assert figures is not None
        assert figures.p01_similarity == value
    assert [run.id for run in after] == [1, 2, 3, 4]
    assert after[0] is before[0]
    assert after[1].figures is not None
    assert after[1].figures.min_similarity == 0.25
    assert after[2] == dataclasses.replace(
        before[2], commit=dataclasses.replace(before[2].commit, subject="anew")
    )
