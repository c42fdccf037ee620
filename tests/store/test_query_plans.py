"""Each query has an index and fetches no more rows than its answer needs."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import Engine

from tests.benchmarks.generate_history import generate_history, make_commit
from tests.store.watching import Watched
from virnucpro_monitor.records import Outcome, Run
from virnucpro_monitor.store import health_reader, inheritance, notes_reader, reader, series_reader
from virnucpro_monitor.store.engine import open_engine

NUM_RUNS = 80
NUM_SEQUENCES = 12
TARGET, BENCHMARK = "packed-esm", "proteome@1"
FEW = 30
"""Rows of small tables, and counts, that a call may fetch beside its answer."""


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    url = f"sqlite:///{tmp_path_factory.mktemp('plans') / 'monitor.db'}"
    generate_history(url, num_runs=NUM_RUNS, num_sequences=NUM_SEQUENCES)
    engine = open_engine(url, read_only=True)
    yield engine
    engine.dispose()


@pytest.fixture(scope="module")
def run(engine: Engine) -> Run:
    return reader.load_runs(engine, target=TARGET, benchmark=BENCHMARK)[0]


def inheriting(run: Run) -> Run:
    return replace(run, outcome=Outcome.SKIPPED, inherited_run_id=run.id)


CALLS: dict[str, tuple[int, Callable[[Engine, Run], Any]]] = {
    "series": (NUM_RUNS // 4, lambda e, run: series_reader.load_series(e)),
    "recent marks": (NUM_RUNS, lambda e, run: series_reader.load_recent_marks(e, 40)),
    "few recent marks": (8, lambda e, run: series_reader.load_recent_marks(e, 2)),
    "coverage": (FEW, lambda e, run: series_reader.load_coverage(e, TARGET)),
    "coverage of a series": (
        FEW,
        lambda e, run: series_reader.load_coverage(
            e, TARGET, benchmark=BENCHMARK, configuration=run.configuration.digest
        ),
    ),
    "runs": (NUM_RUNS, lambda e, run: reader.load_runs(e)),
    "runs of a target": (NUM_RUNS, lambda e, run: reader.load_runs(e, target=TARGET)),
    "runs of a series": (
        NUM_RUNS // 4,
        lambda e, run: reader.load_runs(
            e, target=TARGET, benchmark=BENCHMARK, configuration=run.configuration.digest
        ),
    ),
    "all attempts": (
        NUM_RUNS // 2,
        lambda e, run: reader.load_runs(e, target=TARGET, benchmark=BENCHMARK, all_attempts=True),
    ),
    "newest runs": (5, lambda e, run: reader.load_runs(e, target=TARGET, limit=5)),
    "newest runs of all": (5, lambda e, run: reader.load_runs(e, limit=5)),
    "range": (
        16,
        lambda e, run: reader.load_runs(e, target=TARGET, from_position=3, to_position=6),
    ),
    "runs of commits": (
        8,
        lambda e, run: reader.load_runs(
            e, target=TARGET, commits=[make_commit(3).hash, make_commit(4).hash]
        ),
    ),
    "run": (1, lambda e, run: reader.load_run(e, run.id or 0)),
    "sequences": (NUM_SEQUENCES, lambda e, run: reader.load_sequences(e, run.id or 0)),
    "failing sequences": (
        NUM_SEQUENCES,
        lambda e, run: reader.load_sequences(
            e, run.id or 0, only_failing=True, search="1", order_by="similarity", limit=5
        ),
    ),
    "sequence history": (
        NUM_RUNS // 2,
        lambda e, run: reader.load_sequence_history(
            e, TARGET, BENCHMARK, "proteome_00003", configuration=run.configuration.digest
        ),
    ),
    "commits": (5, lambda e, run: reader.load_commits(e, TARGET, limit=5)),
    "commits by hash": (3, lambda e, run: reader.find_commits(e, TARGET, "ab")),
    "commits of any target": (3, lambda e, run: reader.find_commits_of_any_target(e, "ab")),
    "failure": (1, lambda e, run: reader.load_failure(e, run.id or 0)),
    "document": (1, lambda e, run: reader.load_document(e, run.id or 0, "packs")),
    "documents": (1, lambda e, run: reader.load_documents(e, run.id or 0)),
    "judgements": (1, lambda e, run: notes_reader.load_judgements(e, run.id or 0)),
    "branches": (1, lambda e, run: series_reader.load_branches(e, TARGET)),
    "bisections": (1, lambda e, run: notes_reader.load_bisections(e, TARGET)),
    "acknowledgements": (1, lambda e, run: notes_reader.load_acknowledgements(e)),
    "policy": (1, lambda e, run: notes_reader.load_policy(e, TARGET)),
    "targets": (1, lambda e, run: reader.load_targets(e)),
    "heartbeats": (1, lambda e, run: health_reader.load_heartbeats(e)),
    "measured run": (1, lambda e, run: inheritance.load_measured_run(e, inheriting(run))),
    "target": (1, lambda e, run: reader.load_target(e, TARGET)),
    "benchmark sets": (2 * NUM_SEQUENCES, lambda e, run: reader.load_benchmarks(e)),
    "protocol": (1, lambda e, run: reader.load_protocol(e, run.protocol_digest)),
}


@pytest.mark.parametrize("name", CALLS)
def test_every_query_has_an_index_and_fetches_what_it_needs(
    name: str, engine: Engine, run: Run
) -> None:
    most_rows, call = CALLS[name]
    watched = Watched(engine, lambda: call(engine, run))
    assert watched.statements
    assert watched.full_scans == []
    assert watched.num_rows <= most_rows + FEW


@pytest.mark.parametrize("name", [name for name in CALLS if name.startswith(("runs", "series"))])
def test_lists_never_look_at_sequence_results(name: str, engine: Engine, run: Run) -> None:
    watched = Watched(engine, lambda: CALLS[name][1](engine, run))
    assert watched.answer
    assert not [text for text in watched.statements if "sequence_results" in text]


def test_the_health_page_counts_rows_from_indexes_alone(engine: Engine) -> None:
    watched = Watched(engine, lambda: health_reader.load_health(engine))
    assert watched.answer.row_counts["runs"] == NUM_RUNS
    assert [step for step in watched.full_scans if "USING COVERING INDEX" not in step] == []
    assert not [text for text in watched.statements if "sequence_results" in text]


def test_the_history_state_is_counted_from_indexes_alone(engine: Engine) -> None:
    watched = Watched(engine, lambda: series_reader.load_history_state(engine))
    assert watched.answer[0] == NUM_RUNS
    assert [step for step in watched.full_scans if "USING COVERING INDEX" not in step] == []
    assert watched.num_rows <= 2 + FEW


def test_flips_are_counted_without_a_wide_row(engine: Engine) -> None:
    watched = Watched(engine, lambda: series_reader.load_flips(engine, TARGET))
    assert watched.full_scans == []


def test_every_reader_is_watched() -> None:
    functions = {
        name
        for module in (reader, series_reader, health_reader, notes_reader, inheritance)
        for name, value in vars(module).items()
        if name.startswith(("load_", "find_")) and value.__module__ == module.__name__
    }
    called = {name for _, call in CALLS.values() for name in call.__code__.co_names}
    # They look at all runs: see above.
    assert functions - called == {
        "load_health", "load_machines", "load_history_state", "load_flips",
    }  # fmt: skip


def test_the_check_sees_a_full_scan(engine: Engine) -> None:
    def scan() -> None:
        with engine.connect() as connection:
            connection.exec_driver_sql("SELECT reason FROM runs WHERE reason = 'x'").all()
            connection.exec_driver_sql("SELECT gain FROM sequence_results WHERE gain > 2").all()

    assert Watched(engine, scan).full_scans == ["SCAN runs", "SCAN sequence_results"]
