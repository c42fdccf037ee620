"""Whole tables read in batches, at constant memory: for exports."""

import os
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from queue import SimpleQueue
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
MAX_READERS = 4
"""Connections that read an SQLite file side by side, where the machine has as many cores."""

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
    with reading(engine) as connection, closing(_open_reader(engine, connection)) as reader:
        wanted = run_conditions(target, benchmark, None, all_attempts=False)
        query = select(RunRow.id, RunRow.num_results, RunRow.benchmark_set_id)
        sizes = connection.execute(
            query.where(*wanted, RunRow.num_results > 0).order_by(RunRow.id)
        ).all()
        names: dict[int, list[str]] = {}
        batches = [
            [row for _, row in members]
            for _, members in groupby(_cumulated(sizes), key=lambda item: item[0])
        ]
        stretches = (_stretch(connection, some[0].id, some[-1].id) for some in batches)
        for some, table in zip(batches, reader.read(stretches), strict=True):
            for row in some:
                if row.benchmark_set_id not in names:
                    names[row.benchmark_set_id] = list(
                        connection.execute(
                            select(BenchmarkSequenceRow.sequence_id)
                            .where(BenchmarkSequenceRow.benchmark_set_id == row.benchmark_set_id)
                            .order_by(BenchmarkSequenceRow.sequence_index)
                        ).scalars()
                    )
            set_of = {row.id: row.benchmark_set_id for row in some}
            between = RunRow.id.between(some[0].id, some[-1].id)
            runs = {
                run.id: run
                for run in read_runs(connection, [*wanted, between])
                if run.id is not None and run.id in set_of  # others have no results
            }
            yield SequenceBatch(
                runs=runs,
                columns=_columns_of(table, runs),
                sequence_ids={run_id: names[set_of[run_id]] for run_id in runs},
            )


@dataclass(frozen=True, slots=True)
class _Stretch:
    """Results to be read at once: those of all runs from one id to another."""

    first: int
    last: int
    num_rows: int

    @property
    def statement(self) -> str:
        names = ", ".join(f'"{name}"' for name in SEQUENCE_COLUMNS)
        return (
            f"SELECT {names} FROM sequence_results WHERE run_id BETWEEN {int(self.first)} "
            f"AND {int(self.last)} ORDER BY run_id, sequence_index"
        )


def _stretch(connection: Connection, first: int, last: int) -> _Stretch:
    # Superseded runs and those of other targets lie between, too.
    query = select(func.sum(RunRow.num_results)).where(RunRow.id.between(first, last))
    return _Stretch(first, last, int(connection.execute(query).scalar_one() or 0))


class _Reader:
    """Reads results through the connection that it is given."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def close(self) -> None:
        pass  # the connection is another's

    def read(self, stretches: Iterable[_Stretch]) -> Iterator[Any]:
        """A `pyarrow.Table` of `SEQUENCE_COLUMNS` for each stretch, of whatever types."""
        import pyarrow as pa

        for stretch in stretches:
            with closing(self._connection.connection.cursor()) as cursor:
                cursor.execute(stretch.statement)
                rows = cursor.fetchall()
            columns = [pa.array(values) for values in zip(*rows, strict=True)]
            yield pa.table(columns, names=list(SEQUENCE_COLUMNS))


class _SqliteReader(_Reader):
    """Reads SQLite's results as Arrow arrays, without a Python object for each value.

    ADBC takes most of an export's time and needs no interpreter: a few connections of its own read
    ahead, side by side. What they read is never changed, only deleted.
    """

    def __init__(self, connection: Connection, path: Path) -> None:
        from adbc_driver_sqlite import dbapi

        super().__init__(connection)
        number = min(MAX_READERS, os.cpu_count() or 1)
        uri = f"file:{quote(str(path))}?mode=ro"
        self._connections = [dbapi.connect(uri) for _ in range(number)]
        self._free = SimpleQueue[Any]()
        for one in self._connections:
            self._free.put(one)
        self._pool = ThreadPoolExecutor(max_workers=number)

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)
        for one in self._connections:
            one.close()

    def read(self, stretches: Iterable[_Stretch]) -> Iterator[Any]:
        ahead: deque[Future[Any]] = deque()
        for stretch in stretches:
            ahead.append(self._pool.submit(self._read_one, stretch))
            if len(ahead) > len(self._connections):  # so much is in memory at most
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()

    def _read_one(self, stretch: _Stretch) -> Any:
        connection = self._free.get()
        try:
            with closing(connection.cursor()) as cursor:
                # A column's type is that of the first batch: let all rows be in it.
                number = max(stretch.num_rows, 1)
                cursor.adbc_statement.set_options(**{"adbc.sqlite.query.batch_rows": str(number)})
                cursor.execute(stretch.statement)
                return cursor.fetch_arrow_table()
        finally:
            self._free.put(connection)


def _open_reader(engine: Engine, connection: Connection) -> _Reader:
    if engine.dialect.name == "sqlite":
        return _SqliteReader(connection, sqlite_path(engine.url))
    return _Reader(connection)


def _columns_of(table: Any, runs: Mapping[int, Run]) -> dict[str, Any]:
    """The results of `runs`, column by column."""
    import pyarrow as pa
    from pyarrow import compute

    if compute.count_distinct(table["run_id"]).as_py() > len(runs):  # superseded, other targets'
        table = table.filter(compute.is_in(table["run_id"], pa.array(list(runs), pa.int64())))
    return {name: _joined(table[name]) for name in SEQUENCE_COLUMNS}


def _joined(column: Any) -> Any:
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def _cumulated(sizes: Sequence[Any]) -> Iterator[tuple[int, Any]]:
    """Each run with the number of its batch; batches hold about `ROWS_PER_BATCH` results."""
    batch, rows, runs = 0, 0, 0
    for row in sizes:
        if rows and (rows + row.num_results > ROWS_PER_BATCH or runs == RUNS_PER_BATCH):
            batch, rows, runs = batch + 1, 0, 0
        rows += row.num_results
        runs += 1
        yield batch, row
