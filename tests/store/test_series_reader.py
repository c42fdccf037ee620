"""Series, coverage and health, alike on both databases."""

import dataclasses
from datetime import timedelta

import pytest
from sqlalchemy import Engine

from tests.store.builders import (
    CONFIGURATION,
    START,
    TARGET,
    make_commit,
    make_report,
)
from virnucpro_monitor.errors import NotFoundError
from virnucpro_monitor.records import DayUsage, Failure, Outcome
from virnucpro_monitor.store import health_reader, reader, series_reader
from virnucpro_monitor.store.changes import load_version
from virnucpro_monitor.store.engine import SCHEMA_REVISION
from virnucpro_monitor.store.writer import Writer


def test_each_series_knows_its_latest_run_and_its_counts(engine: Engine, writer: Writer) -> None:
    half = dataclasses.replace(CONFIGURATION, dtype="float16")
    latest = {}
    for number in (2, 0, 1):  # history order decides what is latest, not the order of storing
        latest[number] = writer.save_run(make_report(number, (0.9 if number else 1.0, 1.0, 1.0)))
    writer.save_run(make_report(0, (), outcome=Outcome.ERROR))  # replaces the first attempt
    half_run = writer.save_run(make_report(1, configuration=half))
    writer.save_commits("sample", [make_commit(number) for number in range(6)])
    other = dataclasses.replace(TARGET, name="another")
    other_run = writer.save_run(make_report(0, target=other))

    series = series_reader.load_series(engine)
    assert [(one.target, one.configuration.dtype) for one in series] == [
        ("another", "float32"),
        ("sample", "float16"),
        ("sample", "float32"),
    ]
    assert [one.latest.id for one in series] == [other_run, half_run, latest[2]]
    assert [one.commits_behind for one in series] == [0, 4, 3]
    assert series[2].outcome_counts == {Outcome.FAILED: 2, Outcome.ERROR: 1}
    assert series[2].num_runs == 3
    assert series[2].latest == reader.load_run(engine, latest[2])
    assert series_reader.load_series(engine, target="another") == series[:1]
    assert series_reader.load_series(engine, target="nobody") == []


def test_recent_marks_are_the_newest_runs_of_each_series(engine: Engine, writer: Writer) -> None:
    half = dataclasses.replace(CONFIGURATION, dtype="float16")
    for number in (3, 0, 2, 1):
        writer.save_run(make_report(number, (0.9, 1.0, 1.0)))
    writer.save_run(make_report(2, (), outcome=Outcome.ERROR))  # replaces the first attempt
    writer.save_run(make_report(3, (), outcome=Outcome.SKIPPED, inherited_outcome=Outcome.FAILED))
    writer.save_run(make_report(0, configuration=half))

    marks = series_reader.load_recent_marks(engine, 3)
    by_dtype = {
        digest: [mark for mark in marks if mark.configuration == digest]
        for digest in (CONFIGURATION.digest, half.digest)
    }
    assert [
        (mark.commit, mark.outcome, mark.inherited_outcome, mark.min_similarity)
        for mark in by_dtype[CONFIGURATION.digest]
    ] == [
        (make_commit(1).hash, Outcome.FAILED, None, 0.9),
        (make_commit(2).hash, Outcome.ERROR, None, None),
        (make_commit(3).hash, Outcome.SKIPPED, Outcome.FAILED, None),
    ]
    assert [mark.commit for mark in by_dtype[half.digest]] == [make_commit(0).hash]
    assert len(marks) == 4
    assert [mark.target for mark in series_reader.load_recent_marks(engine, 1)] == ["sample"] * 2


def test_recent_marks_leave_other_branches_out(engine: Engine, writer: Writer) -> None:
    writer.save_run(make_report(0))
    elsewhere = make_commit(7, position=None, on_branch=False)
    writer.save_run(make_report(7, commit=elsewhere))
    assert [mark.commit for mark in series_reader.load_recent_marks(engine, 5)] == [
        make_commit(0).hash
    ]


def test_branches_are_those_of_the_latest_run_off_the_followed_one(
    engine: Engine, writer: Writer
) -> None:
    elsewhere = make_commit(7, position=None, on_branch=False)
    writer.save_run(make_report(0))
    writer.save_run(make_report(7, commit=elsewhere, documents={"branches": ["wip"]}))
    writer.save_run(make_report(7, commit=elsewhere, documents={"branches": ["feature", "wip"]}))
    merged = make_commit(8, position=None, on_branch=False)
    writer.save_run(make_report(8, commit=merged, documents={"branches": ["feature"]}))
    assert series_reader.load_branches(engine, "sample") == {
        elsewhere.hash: ("feature", "wip"),
        merged.hash: ("feature",),
    }
    writer.save_commits("sample", [make_commit(8)])  # the followed branch has it now
    assert series_reader.load_branches(engine, "sample") == {elsewhere.hash: ("feature", "wip")}
    with pytest.raises(NotFoundError):
        series_reader.load_branches(engine, "nobody")


def test_the_version_changes_with_whatever_is_written(engine: Engine, writer: Writer) -> None:
    versions = [load_version(engine)]
    writer.heartbeat("gpu-1", "", "idle", "", num_queued=0, exit_code=0)
    versions.append(load_version(engine))
    run_id = writer.save_run(make_report())
    versions.append(load_version(engine))
    assert len(set(versions)) == 3
    reader.load_run(engine, run_id)
    assert load_version(engine) == versions[-1]


def test_the_history_state_changes_with_runs_and_commits(engine: Engine, writer: Writer) -> None:
    states = [series_reader.load_history_state(engine)]
    writer.save_target(TARGET)
    writer.save_commits("sample", [make_commit(0)])
    states.append(series_reader.load_history_state(engine))
    writer.save_run(make_report(0))
    states.append(series_reader.load_history_state(engine))
    writer.save_run(make_report(0, (0.5, 1.0, 1.0)))  # another attempt
    states.append(series_reader.load_history_state(engine))
    writer.save_commits("sample", [make_commit(1)])
    states.append(series_reader.load_history_state(engine))
    assert len(set(states)) == len(states)


def test_an_empty_database_has_no_series(engine: Engine) -> None:
    assert series_reader.load_series(engine) == []


def test_coverage_accounts_for_every_commit(engine: Engine, writer: Writer) -> None:
    writer.save_target(TARGET)
    writer.save_commits("sample", [make_commit(number) for number in range(8)])
    writer.save_commits("sample", [make_commit(9, position=None, on_branch=False)])
    writer.save_run(make_report(0))
    writer.save_run(make_report(1, (0.5, 1.0, 1.0)))
    writer.save_run(make_report(2, (), outcome=Outcome.SKIPPED, inherited_outcome=Outcome.PASSED))
    writer.save_run(make_report(3, (), outcome=Outcome.ERROR))
    writer.save_run(make_report(4, (), outcome=Outcome.NOT_RUN))
    half = dataclasses.replace(CONFIGURATION, dtype="float16")
    writer.save_run(make_report(4, configuration=half))

    coverage = series_reader.load_coverage(engine, "sample")
    assert (coverage.num_seen, coverage.num_on_branch) == (9, 8)
    assert (coverage.num_measured, coverage.num_unmeasured, coverage.num_missing) == (4, 1, 3)
    assert [commit.position for commit in coverage.missing] == [7, 6, 5]
    one = series_reader.load_coverage(engine, "sample", configuration=half.digest, benchmark="seed")
    assert (one.num_measured, one.num_unmeasured, one.num_missing) == (1, 0, 7)
    with pytest.raises(NotFoundError, match="nobody"):
        series_reader.load_coverage(engine, "nobody")


def test_the_longest_list_of_missing_commits_is_bounded(engine: Engine, writer: Writer) -> None:
    writer.save_target(TARGET)
    writer.save_commits("sample", [make_commit(number) for number in range(250)])
    coverage = series_reader.load_coverage(engine, "sample")
    assert coverage.num_missing == 250
    assert len(coverage.missing) == series_reader.MAX_MISSING
    assert coverage.missing[0] == make_commit(249)


def test_health_tells_what_the_monitor_does(engine: Engine, writer: Writer) -> None:
    cuda = dataclasses.replace(CONFIGURATION, device="cuda")
    writer.save_run(make_report(0, duration_s=1.5))
    writer.save_run(make_report(0, duration_s=2.0, configuration=cuda))
    writer.save_run(make_report(0, duration_s=0.5))
    failure = Failure(kind="timeout", message="took too long")
    last = writer.save_run(make_report(1, (), outcome=Outcome.ERROR, failure=failure))
    writer.save_run(make_report(-200))
    writer.heartbeat("runner-1", "sample", "running", "commit 1 of 2", START, num_queued=1)
    writer.acquire_lease("run sample", "runner-1", 60)

    health = health_reader.load_health(engine, now=START + timedelta(days=2))
    day = "2026-03-01"
    assert health.usage == (
        DayUsage(day=day, device="cpu", num_runs=2, run_s=2.0),
        DayUsage(day=day, device="cuda", num_runs=1, run_s=2.0),
        DayUsage(day="2026-03-02", device="cpu", num_runs=1, run_s=1.5),
    )
    assert health.failures == {"timeout": 1}
    assert health.last_run_at == reader.load_run(engine, last).started_at
    assert health.schema_revision == SCHEMA_REVISION
    assert health.database_bytes > 50_000
    assert health.row_counts["runs"] == 5
    assert health.row_counts["sequence_results"] == 12
    assert health.row_counts["failures"] == 1
    assert [beat.message for beat in health.heartbeats] == ["commit 1 of 2"]
    assert [lease.owner for lease in health.leases] == ["runner-1"]


def test_a_hash_is_found_whatever_its_target(engine: Engine, writer: Writer) -> None:
    writer.save_run(make_report(1))
    writer.save_run(make_report(1, target=dataclasses.replace(TARGET, name="other")))
    found = reader.find_commits_of_any_target(engine, "0001")
    assert found == [("other", make_commit(1)), ("sample", make_commit(1))]
    assert reader.find_commits_of_any_target(engine, "main") == []
