"""Whole tables read in batches, at constant memory: for exports."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from itertools import groupby
from typing import Any
from urllib.parse import quote

from sqlalchemy import Connection, Engine, func, select

from virnucpro_monitor.records import Run
from virnucpro_monitor.records.batches import SequenceBatch
from virnucpro_monitor.store.connection import reading, sqlite_path
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
    with reading(engine) as connection, closing(_Reader(engine, connection)) as columns:
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
                columns=_read_columns(columns, connection, first, last, runs),
                sequence_ids={run_id: names[set_of[run_id]] for run_id in runs},
            )


class _Reader:
    """Reads a statement's columns as Arrow arrays, without a Python object for each value.

    SQLite's are read by ADBC's own connection; what it reads is never changed, only deleted.
    """

    def __init__(self, engine: Engine, connection: Connection) -> None:
        self._connection = connection
        self._adbc: Any = None
        if engine.dialect.name == "sqlite":
            from adbc_driver_sqlite import dbapi

            path = quote(str(sqlite_path(engine.url)))
            self._adbc = dbapi.connect(f"file:{path}?mode=ro")

    def close(self) -> None:
        if self._adbc is not None:
            self._adbc.close()

    def read(self, statement: str, names: Sequence[str], num_rows: int) -> list[Any]:
        """Columns of a result of at most so many rows, of whatever type its values have."""
        import pyarrow as pa

        cursor = (self._adbc or self._connection.connection).cursor()
        try:
            if self._adbc is None:
                cursor.execute(statement)
                rows = cursor.fetchall()
                return [pa.array(values) for values in zip(*rows, strict=True)]
            # A column's type is that of the first batch: let all rows be in it.
            cursor.adbc_statement.set_options(
                **{"adbc.sqlite.query.batch_rows": str(max(num_rows, 1))}
            )
            cursor.execute(statement)
            return [column.combine_chunks() for column in cursor.fetch_arrow_table().columns]
        finally:
            cursor.close()


def _read_columns(
    reader: _Reader, connection: Connection, first: int, last: int, runs: Mapping[int, Run]
) -> dict[str, Any]:
    """The results of `runs`, whose ids lie from `first` to `last`, column by column."""
    import pyarrow as pa
    from pyarrow import compute

    names = ", ".join(f'"{name}"' for name in SEQUENCE_COLUMNS)
    statement = (
        f"SELECT {names} FROM sequence_results WHERE run_id BETWEEN {int(first)} AND {int(last)} "
        "ORDER BY run_id, sequence_index"
    )
    there = (RunRow.id.between(first, last), RunRow.num_results > 0)
    sizes = select(func.count(), func.sum(RunRow.num_results)).select_from(RunRow).where(*there)
    num_runs, num_rows = connection.execute(sizes).one()
    columns = reader.read(statement, SEQUENCE_COLUMNS, int(num_rows))
    table = pa.table(columns, names=list(SEQUENCE_COLUMNS))
    if num_runs > len(runs):  # superseded ones, or other targets'
        wanted = compute.is_in(table["run_id"], pa.array(list(runs), pa.int64()))
        table = table.filter(wanted)
    return {name: table[name].combine_chunks() for name in SEQUENCE_COLUMNS}


def _cumulated(sizes: Sequence[Any]) -> Iterator[tuple[int, Any]]:
    """Each run with the number of its batch; batches hold about `ROWS_PER_BATCH` results."""
    batch, rows, runs = 0, 0, 0
    for row in sizes:
        if rows and (rows + row.num_results > ROWS_PER_BATCH or runs == RUNS_PER_BATCH):
            batch, rows, runs = batch + 1, 0, 0
        rows += row.num_results
        runs += 1
        yield batch, row
