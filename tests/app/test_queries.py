"""Each query that a page makes has an index, fetches what it shows, and reads no whole history.

Every function of `app.data` that reads is called on a short and on a four times longer history,
without anything kept from before.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC
from typing import Any

import pytest
import streamlit as st
from sqlalchemy import Engine

from app import data
from app.data import database
from app.data.incidents import _load_history
from tests.benchmarks.generate_history import NUM_SERIES, TARGET, generate_history, make_commit
from tests.store.watching import Watched
from virnucpro_monitor.records import Outcome, Run

SHORT, LONG = 100, 400
NUM_SEQUENCES = 12
NUM_COMMITS = LONG // NUM_SERIES + 3  # the last three were not measured
SMALL = 60
"""Rows of small tables, and of the runs of a commit, that a call may fetch beside its answer."""


@dataclass(frozen=True)
class Reader:
    """A history, and what the calls are about."""

    engine: Engine
    url: str
    run: Run
    failed: Run
    cards: tuple[data.SeriesCard, ...]


def open_history(folder: Any, num_runs: int) -> str:
    url = f"sqlite:///{folder.mktemp('queries') / f'{num_runs}.db'}"
    generate_history(url, num_runs=num_runs, num_sequences=NUM_SEQUENCES)
    return url


@pytest.fixture(scope="module")
def urls(tmp_path_factory: pytest.TempPathFactory) -> dict[int, str]:
    return {number: open_history(tmp_path_factory, number) for number in (SHORT, LONG)}


@pytest.fixture
def watch(
    urls: dict[int, str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[int, Callable[[Reader], Any]], Watched]]:
    """Make a call on the history of so many runs, with nothing kept, and watch its queries."""

    def call(num_runs: int, what: Callable[[Reader], Any]) -> Watched:
        monkeypatch.setenv(database.URL_VARIABLE, urls[num_runs])
        forget_everything()
        cards = data.load_series()
        runs = data.load_series_runs(cards[0], None)
        # As far from the end of both histories.
        run = runs[-12]
        failed = next(run for run in reversed(runs) if run.outcome.is_bad)
        forget_everything()
        reader = Reader(database.engine(), urls[num_runs], run, failed, cards)
        return Watched(reader.engine, lambda: what(reader))

    yield call
    forget_everything()


def inheriting(run: Run, measured: Run) -> Run:
    return replace(run, outcome=Outcome.SKIPPED, inherited_run_id=measured.id)


def forget_everything() -> None:
    st.cache_resource.clear()
    _load_history.__globals__["_read_history"].cache_clear()


Call = Callable[[Reader], Any]

BOUNDED: dict[str, tuple[int, Call]] = {
    # (rows at most, call): what does not grow with the history.
    "check_database": (1, lambda r: data.check_database()),
    "diff_address": (1, lambda r: data.diff_address(TARGET.name, "a" * 40, "b" * 40)),
    "find_commits": (2, lambda r: data.find_commits(r.run.commit.hash[:10], TARGET.name)),
    "find_commits of any": (2, lambda r: data.find_commits(r.run.commit.hash[:10], None)),
    "find_commits by branch": (2, lambda r: data.find_commits("main", TARGET.name)),
    "find_commits by unknown": (0, lambda r: data.find_commits("no such branch", TARGET.name)),
    "find_bound": (
        3,
        lambda r: data.find_bound(r.run.commit.hash[:10], TARGET.name, UTC, is_end=True),
    ),
    "find_commit": (3, lambda r: data.find_commit(r.run.commit.hash[:10], TARGET.name)),
    "load_bisections": (1, lambda r: data.load_bisections()),
    "load_protocol_thresholds": (
        1,
        lambda r: data.load_protocol_thresholds(r.run.protocol_digest),
    ),
    "load_targets": (1, lambda r: data.load_targets()),
    "load_story": (1, lambda r: data.load_story(TARGET.name, r.run.commit.hash)),
    "load_target": (1, lambda r: data.load_target(TARGET.name)),
    "load_branches": (1, lambda r: data.load_branches(TARGET.name)),
    "load_heartbeats": (1, lambda r: data.load_heartbeats()),
    "load_benchmarks": (2 * NUM_SEQUENCES, lambda r: data.load_benchmarks()),
    "load_pack": (NUM_SEQUENCES, lambda r: data.load_pack(r.run, 0)),
    "load_commit_runs": (4, lambda r: data.load_commit_runs(TARGET.name, make_commit(9).hash)),
    "load_comparison": (
        2 * NUM_SEQUENCES + 4,
        lambda r: data.load_comparison(r.failed, r.run),
    ),
    "load_document": (1, lambda r: data.load_document(r.run, "packs")),
    "load_failure": (1, lambda r: data.load_failure(r.failed)),
    "load_failing_ids": (8, lambda r: data.load_failing_ids(r.run, 6)),
    "load_group": (1, lambda r: data.load_group(r.run)),
    "load_last_good": (1, lambda r: data.load_last_good(r.failed)),
    "load_measured": (1, lambda r: data.load_measured(inheriting(r.run, r.failed))),
    "load_neighbours": (21, lambda r: data.load_neighbours(r.run)),
    "load_noise": (2, lambda r: data.load_noise(r.failed)),
    "load_outcomes": (
        3,
        lambda r: data.load_outcomes(r.run, [make_commit(place).hash for place in (3, 4, 5)]),
    ),
    "load_residue_errors": (1, lambda r: data.load_residue_errors(r.failed)),
    "load_sequence_ids": (
        2 * NUM_SEQUENCES,
        lambda r: data.load_sequence_ids(r.run.benchmark_label),
    ),
    "load_attempts": (1, lambda r: data.load_attempts(r.run)),
    "load_run": (1, lambda r: data.load_run(r.run.id or 0)),
    "load_sequences": (NUM_SEQUENCES, lambda r: data.load_sequences(r.run)),
    "load_sequences, worst first": (
        5,
        lambda r: data.load_sequences(
            r.run, only_failing=True, search="prot", order="worst", limit=5
        ),
    ),
    "load_thresholds": (1, lambda r: data.load_thresholds([r.run])),
}
WINDOWED: dict[str, tuple[int, Call]] = {
    # Narrow rows of one series are sorted to find its newest; only the wanted ones are fetched.
    "load_series_runs": (10, lambda r: data.load_series_runs(r.cards[0], 10)),
    "load_branch_runs": (10, lambda r: data.load_branch_runs(r.cards[0], "", 10)),
    "load_branch_runs of all": (10, lambda r: data.load_branch_runs(r.cards[0], "*", 10)),
    "load_branch_runs of one": (0, lambda r: data.load_branch_runs(r.cards[0], "wip", 10)),
    "load_runs_between": (
        20,
        lambda r: data.load_runs_between(r.cards[0], make_commit(4), make_commit(20).committed_at),
    ),
    "load_sequence_history": (
        10,
        lambda r: data.load_sequence_history(r.cards[0], f"{r.run.benchmark}_00003", 10),
    ),
    "load_incidents_of": (200, lambda r: data.load_incidents_of(r.cards[0])),
    "load_findings": (0, lambda r: data.load_findings(TARGET.name)),
    "load_finding": (
        2,
        lambda r: data.load_finding(replace(r.run, outcome=Outcome.FAILED)),
    ),
    "load_coverage": (4, lambda r: data.load_coverage(TARGET.name)),
}
WHOLE: dict[str, tuple[int, Call]] = {
    # What speaks of the whole history, each run or commit once.
    "load_series": (2 * LONG, lambda r: data.load_series()),
    "load_recent_runs": (2 * LONG, lambda r: data.load_recent_runs()),
    "load_commit_choices": (NUM_COMMITS + 1, lambda r: data.load_commit_choices("")),
    "load_commits": (NUM_COMMITS, lambda r: data.load_commits(TARGET.name)),
    "load_commits_between": (
        NUM_COMMITS,
        lambda r: data.load_commits_between(r.run, r.failed, 40),
    ),
    "load_history": (LONG, lambda r: data.load_history()),
    "load_target_flips": (LONG, lambda r: data.load_target_flips(TARGET.name)),
    "load_incidents": (LONG, lambda r: data.load_incidents()),
    "load_regressions": (LONG, lambda r: data.load_regressions("", None, None)),
    "load_hosts": (LONG, lambda r: data.load_hosts()),
    "load_health": (LONG, lambda r: data.load_health()),
}
CALLS = BOUNDED | WINDOWED | WHOLE


@pytest.mark.parametrize("name", CALLS)
def test_a_query_has_an_index_and_fetches_what_is_shown(name: str, watch) -> None:
    most_rows, call = CALLS[name]
    watched = watch(LONG, call)
    assert watched.statements
    # Counting is done from an index alone.
    assert [step for step in watched.full_scans if "USING COVERING INDEX" not in step] == []
    assert watched.num_rows <= most_rows + SMALL


@pytest.mark.parametrize("name", BOUNDED)
def test_what_one_run_needs_costs_the_same_in_a_long_history(name: str, watch) -> None:
    _, call = BOUNDED[name]
    short, long = watch(SHORT, call), watch(LONG, call)
    assert len(long.statements) == len(short.statements)
    assert long.num_instructions <= 1.25 * short.num_instructions + 1500


def test_no_list_of_runs_looks_at_sequences(watch) -> None:
    for name in ("load_series", "load_recent_runs", "load_history", "load_health", "load_coverage"):
        statements = watch(LONG, CALLS[name][1]).statements
        assert not [text for text in statements if "sequence_results" in text], name


def test_every_function_that_reads_is_watched() -> None:
    reading = {name for name in data.__all__ if name.startswith(("load_", "find_", "check_"))}
    called = {name for _, call in CALLS.values() for name in call.__code__.co_names}
    assert reading - called == set()
