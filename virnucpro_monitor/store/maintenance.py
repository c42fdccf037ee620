"""Looks over a database from end to end; reads every row, so it is for `db check` alone."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from sqlalchemy import Connection, func, select

from virnucpro_monitor.store.anchors import Anchors
from virnucpro_monitor.store.connection import describe, reading
from virnucpro_monitor.store.engine import SCHEMA_REVISION, open_engine
from virnucpro_monitor.store.health_reader import count_bytes, count_rows
from virnucpro_monitor.store.integrity import (
    find_altered_runs,
    find_broken_chains,
    find_false_digests,
    find_strange_heirs,
    fingerprint,
)
from virnucpro_monitor.store.models import Base, RunRow, SequenceResultRow

MAX_PROBLEMS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseCheck:
    """What `check_database` found.

    Attributes:
        database: path or URL, the password masked.
        problems: one sentence each; empty for a sound database.
        fingerprint: digest over all runs in their order. Noted elsewhere, it shows later whether
            the history up to then is still the same.
        num_anchored: runs that this host has noted when they were stored (`store.anchors`).
    """

    database: str
    schema_revision: str
    database_bytes: int
    row_counts: dict[str, int] = field(default_factory=dict)
    problems: tuple[str, ...] = ()
    fingerprint: str = ""
    num_anchored: int = 0


def check_database(url: str) -> DatabaseCheck:
    """Compare a database with what it should be, without writing to it.

    Raises:
        ConfigurationError, StoreError: as `open_engine`; a database that cannot be read at all is
            not checked.
    """
    engine = open_engine(url, read_only=True)
    try:
        with reading(engine) as connection:
            num_anchored, differences = Anchors(url).compare(connection)
            return DatabaseCheck(
                database=describe(engine.url),
                schema_revision=SCHEMA_REVISION,
                database_bytes=count_bytes(connection),
                row_counts=count_rows(connection),
                fingerprint=fingerprint(connection),
                num_anchored=num_anchored,
                problems=(
                    *_schema_differences(connection),
                    *_damaged_pages(connection),
                    *_orphans(connection),
                    *_incomplete_runs(connection),
                    *islice(_altered_results(connection), MAX_PROBLEMS),
                    *islice(differences, MAX_PROBLEMS),
                ),
            )
    finally:
        engine.dispose()


def _schema_differences(connection: Connection) -> Iterator[str]:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    context = MigrationContext.configure(connection)
    for difference in compare_metadata(context, Base.metadata):
        yield f"The schema differs from revision {SCHEMA_REVISION}: {_describe(difference)}."


def _describe(difference: Any) -> str:
    """Alembic's tuple ("add_index", Index(…)) as words: what would have to be done."""
    if isinstance(difference, list):  # the changes of one column
        return "; ".join(_describe(one) for one in difference)
    act, *parts = difference
    # Of a table, column, index or constraint its name is enough.
    names = [str(getattr(part, "name", part)) for part in parts if part is not None]
    return f"{act.replace('_', ' ')} {' '.join(names)}"


def _damaged_pages(connection: Connection) -> Iterator[str]:
    if connection.dialect.name != "sqlite":
        return
    for (finding,) in connection.exec_driver_sql(f"PRAGMA integrity_check({MAX_PROBLEMS})"):
        if finding != "ok":
            yield f"SQLite's integrity check says: {' '.join(finding.split())}."


def _orphans(connection: Connection) -> Iterator[str]:
    if connection.dialect.name != "sqlite":
        return  # PostgreSQL's foreign keys cannot be turned off by a client
    found: dict[tuple[str, str], int] = {}
    for table, _, parent, _ in connection.exec_driver_sql("PRAGMA foreign_key_check"):
        found[table, parent] = found.get((table, parent), 0) + 1
    for (table, parent), number in found.items():
        yield f"{number} rows of {table} have lost their row of {parent}."


def _incomplete_runs(connection: Connection) -> Iterator[str]:
    counted = (
        select(SequenceResultRow.run_id, func.count().label("number"))
        .group_by(SequenceResultRow.run_id)
        .subquery()
    )
    number = func.coalesce(counted.c.number, 0)
    query = (
        select(RunRow.id, RunRow.num_results, number)
        .outerjoin(counted, counted.c.run_id == RunRow.id)
        .where(number != RunRow.num_results)
        .limit(MAX_PROBLEMS)
    )
    for run_id, expected, stored in connection.execute(query):
        yield f"Run {run_id} has {stored} sequence results of {expected}."


def _altered_results(connection: Connection) -> Iterator[str]:
    yield from find_altered_runs(connection)
    yield from find_broken_chains(connection)
    yield from find_false_digests(connection)
    yield from find_strange_heirs(connection)
