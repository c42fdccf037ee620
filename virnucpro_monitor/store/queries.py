"""Queries that several readers share."""

from typing import Any

from sqlalchemy import Connection, Select, select

from virnucpro_monitor.records import Run
from virnucpro_monitor.store.known_runs import fetch_runs
from virnucpro_monitor.store.models import (
    BenchmarkSetRow,
    CommitRow,
    ConfigurationRow,
    RunRow,
    TargetRow,
)
from virnucpro_monitor.store.rows import COMMIT_COLUMNS, RUN_COLUMNS

HISTORY_ORDER = (
    # Commits that have left the branch, or whose place is not known, come before all others.
    CommitRow.position.asc().nulls_first(),
    CommitRow.committed_at.asc().nulls_first(),
    CommitRow.id,
)
NEWEST_FIRST = (
    CommitRow.position.desc().nulls_last(),
    CommitRow.committed_at.desc().nulls_last(),
    CommitRow.id.desc(),
)


def read_runs(connection: Connection, conditions: list[Any], limit: int | None = None) -> list[Run]:
    """The runs that fit all conditions on `RunRow` and `CommitRow`, in history order."""
    query = select(*RUN_COLUMNS, *COMMIT_COLUMNS).join(CommitRow, CommitRow.id == RunRow.commit_id)
    query = query.where(*newest_runs(conditions, limit))
    return fetch_runs(connection, query.order_by(RunRow.target_id, *HISTORY_ORDER, RunRow.id))


def newest_runs(conditions: list[Any], limit: int | None) -> list[Any]:
    """Conditions on `RunRow` that only the newest so many of those runs fit; all of them for None.

    Narrow rows are sorted, so that the wide ones are fetched for the wanted runs alone.
    """
    if limit is None:
        return conditions
    ids: Select[Any] = (
        select(RunRow.id).join(CommitRow, CommitRow.id == RunRow.commit_id).where(*conditions)
    )
    newest = ids.order_by(*NEWEST_FIRST, RunRow.id.desc()).limit(limit).subquery()
    return [RunRow.id.in_(select(newest.c.id))]


def run_conditions(
    target: str | None, benchmark: str | None, configuration: str | None, all_attempts: bool
) -> list[Any]:
    """Conditions that `ix_runs_series` serves, whichever are given."""
    targets = select(TargetRow.id)
    if target is not None:
        targets = targets.where(TargetRow.name == target)
    superseded = [False, True] if all_attempts else [False]
    conditions: list[Any] = [
        RunRow.target_id.in_(targets),
        RunRow.superseded.in_(superseded),
    ]
    if benchmark is not None:
        conditions.append(RunRow.benchmark_set_id.in_(benchmark_ids(benchmark)))
    if configuration is not None:
        configurations = select(ConfigurationRow.id).where(ConfigurationRow.digest == configuration)
        conditions.append(RunRow.configuration_id.in_(configurations))
    return conditions


def benchmark_ids(benchmark: str) -> Select[int]:
    """The sets that "name" or "name@version" names."""
    name, _, version = benchmark.partition("@")
    query = select(BenchmarkSetRow.id).where(BenchmarkSetRow.name == name)
    if version:
        number = int(version) if version.isdecimal() else -1
        query = query.where(BenchmarkSetRow.version == number)
    return query
