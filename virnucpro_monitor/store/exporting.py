"""Whole tables read in batches, at constant memory: for exports."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

from sqlalchemy import Connection, Engine, func, select

from virnucpro_monitor.records import Run
from virnucpro_monitor.records.batches import SequenceBatch
from virnucpro_monitor.store.connection import reading
from virnucpro_monitor.store.models import BenchmarkSequenceRow, RunRow, SequenceResultRow
from virnucpro_monitor.store.queries import read_runs, run_conditions

RUNS_PER_BATCH = 500
ROWS_PER_BATCH = 50_000

SEQUENCE_COLUMNS: tuple[str, ...] = tuple(
    column.name for column in SequenceResultRow.__table__.columns
)
"""Columns of a `SequenceBatch`, in the order of its rows."""


def stream_runs(
    engine: Engine, *, target: str | None = None, benchmark: str | None = None
) -> Iterator[list[Run]]:
    """The current runs of a target or of all, by id, in batches."""
    with reading(engine) as connection:
        wanted = run_conditions(target, benchmark, None, all_attempts=False)
        ids = list(
            connection.execute(select(RunRow.id).where(*wanted).order_by(RunRow.id)).scalars()
        )
        for start in range(0, len(ids), RUNS_PER_BATCH):
            some = ids[start : start + RUNS_PER_BATCH]
            runs = read_runs(connection, [*wanted, RunRow.id.between(some[0], some[-1])])
            yield sorted(runs, key=lambda run: run.id or 0)


def stream_sequences(
    engine: Engine, *, target: str | None = None, benchmark: str | None = None
) -> Iterator[SequenceBatch]:
    """The per-sequence results of the current runs, by run id and index, in batches."""
    with reading(engine) as connection:
        wanted = run_conditions(target, benchmark, None, all_attempts=False)
        query = select(RunRow.id, RunRow.num_results, RunRow.benchmark_set_id)
        sizes = connection.execute(
            query.where(*wanted, RunRow.num_results > 0).order_by(RunRow.id)
        ).all()
        names: dict[int, list[str]] = {}
        for _, members in groupby(_cumulated(sizes), key=lambda item: item[0]):
            some = [row for _, row in members]
            for row in some:
                if row.benchmark_set_id not in names:
                    names[row.benchmark_set_id] = list(
                        connection.execute(
                            select(BenchmarkSequenceRow.sequence_id)
                            .where(BenchmarkSequenceRow.benchmark_set_id == row.benchmark_set_id)
                            .order_by(BenchmarkSequenceRow.sequence_index)
                        ).scalars()
                    )
            first, last = some[0].id, some[-1].id
            set_of = {row.id: row.benchmark_set_id for row in some}
            runs = {
                run.id: run
                for run in read_runs(connection, [*wanted, RunRow.id.between(first, last)])
                if run.id is not None and run.id in set_of  # others have no results
            }
            yield SequenceBatch(
                runs=runs,
                columns=_read_columns(connection, first, last, runs),
                sequence_ids={run_id: names[set_of[run_id]] for run_id in runs},
            )


def _read_columns(
    connection: Connection, first: int, last: int, runs: Mapping[int, Run]
) -> dict[str, Sequence[Any]]:
    """The results of `runs`, whose ids lie from `first` to `last`, column by column.

    Read by the driver itself: SQLAlchemy's rows and types take four times as long.
    """
    names = ", ".join(f'"{name}"' for name in SEQUENCE_COLUMNS)
    statement = (
        f"SELECT {names} FROM sequence_results WHERE run_id BETWEEN {int(first)} AND {int(last)} "
        "ORDER BY run_id, sequence_index"
    )
    cursor = connection.connection.cursor()
    try:
        cursor.execute(statement)
        rows = cursor.fetchall()
    finally:
        cursor.close()
    with_results = (RunRow.id.between(first, last), RunRow.num_results > 0)
    between = select(func.count()).select_from(RunRow).where(*with_results)
    if connection.execute(between).scalar_one() > len(runs):  # superseded ones, or other targets'
        rows = [row for row in rows if row[0] in runs]
    return dict(zip(SEQUENCE_COLUMNS, zip(*rows, strict=True), strict=True))


def _cumulated(sizes: Sequence[Any]) -> Iterator[tuple[int, Any]]:
    """Each run with the number of its batch; batches hold about `ROWS_PER_BATCH` results."""
    batch, rows, runs = 0, 0, 0
    for row in sizes:
        if rows and (rows + row.num_results > ROWS_PER_BATCH or runs == RUNS_PER_BATCH):
            batch, rows, runs = batch + 1, 0, 0
        rows += row.num_results
        runs += 1
        yield batch, row
