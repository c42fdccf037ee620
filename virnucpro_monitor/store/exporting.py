"""Whole tables read in batches, at constant memory: for exports."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from sqlalchemy import Engine, select

from virnucpro_monitor.records import Run
from virnucpro_monitor.store.connection import reading
from virnucpro_monitor.store.models import BenchmarkSequenceRow, RunRow, SequenceResultRow
from virnucpro_monitor.store.queries import read_runs, run_conditions

RUNS_PER_BATCH = 500
ROWS_PER_BATCH = 50_000

SEQUENCE_COLUMNS: tuple[str, ...] = tuple(
    column.name for column in SequenceResultRow.__table__.columns
)
"""Columns of a `SequenceBatch`, in the order of its rows."""


@dataclass(frozen=True, slots=True)
class SequenceBatch:
    """Results of neighbouring runs.

    Attributes:
        runs: that the rows belong to, by id.
        columns: the values of each of `SEQUENCE_COLUMNS`, all alike long.
        sequence_ids: of each row.
    """

    runs: Mapping[int, Run]
    columns: Mapping[str, Sequence[Any]]
    sequence_ids: Sequence[str]


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
            runs = {
                run.id or 0: run
                for run in read_runs(connection, [*wanted, RunRow.id.between(first, last)])
            }
            table = SequenceResultRow.__table__
            rows = connection.execute(
                select(*table.columns)
                .where(table.c.run_id.between(first, last), table.c.run_id.in_(list(runs)))
                .order_by(table.c.run_id, table.c.sequence_index)
            ).all()
            columns = dict(zip(SEQUENCE_COLUMNS, zip(*rows, strict=True), strict=True))
            set_of = {row.id: row.benchmark_set_id for row in some}
            ids = [
                names[set_of[run_id]][index]
                for run_id, index in zip(columns["run_id"], columns["sequence_index"], strict=True)
            ]
            yield SequenceBatch(runs=runs, columns=columns, sequence_ids=ids)


def _cumulated(sizes: Sequence[Any]) -> Iterator[tuple[int, Any]]:
    """Each run with the number of its batch; batches hold about `ROWS_PER_BATCH` results."""
    batch, rows, runs = 0, 0, 0
    for row in sizes:
        if rows and (rows + row.num_results > ROWS_PER_BATCH or runs == RUNS_PER_BATCH):
            batch, rows, runs = batch + 1, 0, 0
        rows += row.num_results
        runs += 1
        yield batch, row
