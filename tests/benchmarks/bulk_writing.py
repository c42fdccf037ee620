"""What storing runs costs beside a bare `executemany` of the same rows.

    python -m tests.benchmarks.bulk_writing [--runs 190] [--sequences 200] [--url postgresql://…]

Both write the same rows of `sequence_results`, run by run, each run in a transaction of its own, in
turns within one process: only their ratio means anything. The bare side has its rows ready and
writes no run, no figures and no gates, and checks nothing. Peak memory is that of each side's
Python objects.
"""

import argparse
import dataclasses
import re
import statistics
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from sqlalchemy import Engine

from tests.store.builders import make_commit, make_report
from virnucpro_monitor.errors import StoreError
from virnucpro_monitor.records import BenchmarkSet, ProteinSequence, RunReport, SequenceResult
from virnucpro_monitor.store.engine import create_database, open_engine
from virnucpro_monitor.store.results import COLUMN_KINDS
from virnucpro_monitor.store.writer import Writer

INSERTED_NAMES = ("run_id", *COLUMN_KINDS)


def make_reports(numbers: Iterable[int], num_sequences: int) -> Iterable[RunReport]:
    benchmark = BenchmarkSet(
        name="bulk",
        version=1,
        digest="c" * 64,
        sequences=tuple(
            ProteinSequence(id=f"sequence_{index:05}", residues="M" * (50 + index % 900))
            for index in range(num_sequences)
        ),
    )
    results = tuple(
        SequenceResult(
            index=index,
            sequence_id=sequence.id,
            length=len(sequence.residues),
            similarity=1 - 1e-7 / (index + 1),
            packed_similarity=1 - 1.1e-7 / (index + 1),
            unpacked_similarity=1 - 1.3e-7 / (index + 1),
            relative_l2=1.7e-4 / (index + 1),
            packed_relative_l2=1.9e-4 / (index + 1),
            unpacked_relative_l2=2.3e-4 / (index + 1),
            gain=1 + 1e-6 / (index + 1),
            worst_residue_similarity=1 - 1e-5 / (index + 1),
            p01_residue_similarity=1 - 1e-6 / (index + 1),
            worst_residue=index % 50,
            max_abs_difference=1e-3 / (index + 1),
            pack=index // 10,
            slot=index % 10,
            offset=57 * (index % 10),
        )
        for index, sequence in enumerate(benchmark.sequences)
    )
    first = make_report(benchmark=benchmark, similarities=(1.0, 1.0, 1.0))
    for number in numbers:
        run = dataclasses.replace(first.run, commit=make_commit(number))
        yield dataclasses.replace(first, run=run, sequences=results)


def bare_rows(run_id: int, report: RunReport) -> list[tuple[Any, ...]]:
    return [
        (run_id, one.index, *(getattr(one, name) for name in INSERTED_NAMES[2:]))
        for one in report.sequences
    ]


def make_bare_table(engine: Engine) -> None:
    """`bare_results`, which is like `sequence_results` but for its foreign key."""
    with engine.connect().execution_options(writes=True) as connection, connection.begin():
        connection.exec_driver_sql("DROP TABLE IF EXISTS bare_results")
        if engine.dialect.name == "sqlite":
            query = "SELECT sql FROM sqlite_master WHERE name = 'sequence_results'"
            text = connection.exec_driver_sql(query).scalar_one()
            text = re.sub(r",\s*CONSTRAINT \w+ FOREIGN KEY\(run_id\)[^,]*?CASCADE", "", text)
            assert "FOREIGN KEY" not in text
            connection.exec_driver_sql(text.replace("sequence_results", "bare_results"))
        else:
            connection.exec_driver_sql(
                "CREATE TABLE bare_results (LIKE sequence_results INCLUDING ALL)"
            )


def write_bare(engine: Engine, rows: Sequence[tuple[Any, ...]]) -> None:
    """The plainest way that is right: the driver's `executemany` in one transaction."""
    sqlite = engine.dialect.name == "sqlite"
    names = ", ".join(f'"{name}"' for name in INSERTED_NAMES)
    marks = ", ".join(["?" if sqlite else "%s"] * len(INSERTED_NAMES))
    statement = f"INSERT INTO bare_results ({names}) VALUES ({marks})"
    raw = engine.raw_connection()
    try:
        cursor = raw.cursor()
        if sqlite:
            cursor.execute("BEGIN IMMEDIATE")
        cursor.executemany(statement, rows)
        raw.commit()
    finally:
        raw.close()


def timed(act: Callable[[], object]) -> tuple[float, float]:
    """(wall seconds, CPU seconds of this process)."""
    wall, cpu = time.perf_counter(), time.process_time()
    act()
    return time.perf_counter() - wall, time.process_time() - cpu


def measure(
    url: str, num_runs: int, num_sequences: int, block: int, *, together: bool
) -> dict[str, float]:
    """Ratios of the writer to the bare side: medians over blocks of runs, in turns.

    Args:
        url: a database without runs: that of a commit which has one supersedes it.
        together: a block is one transaction on both sides; otherwise each run is one.
    """
    engine = open_engine(url)
    writer = Writer(engine)
    make_bare_table(engine)
    walls, cpus = [], []
    for turn in range(num_runs // block):
        numbers = range(turn * block, (turn + 1) * block)
        reports = list(make_reports(numbers, num_sequences))
        bare = [bare_rows(number, report) for number, report in zip(numbers, reports, strict=True)]
        if together:
            bare = [[row for rows in bare for row in rows]]

        def real(reports: list[RunReport] = reports) -> None:
            if together:
                writer.save_runs(reports)
            else:
                for report in reports:
                    writer.save_run(report)

        def plain(bare: list[Any] = bare) -> None:
            for rows in bare:
                write_bare(engine, rows)

        sides = [real, plain] if turn % 2 else [plain, real]
        times = {side.__name__: timed(side) for side in sides}
        walls.append(times["real"][0] / times["plain"][0])
        cpus.append(times["real"][1] / times["plain"][1])
    engine.dispose()
    return {"wall": statistics.median(walls), "cpu": statistics.median(cpus)}


def peak_mib(url: str, num_runs: int, num_sequences: int) -> float:
    """Memory of Python objects that writing so many runs takes at most."""
    engine = open_engine(url)
    writer = Writer(engine)
    writer.save_runs(make_reports(range(1), num_sequences))
    tracemalloc.start()
    writer.save_runs(make_reports(range(num_runs), num_sequences))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    engine.dispose()
    return peak / 2**20


def make_empty(url: str) -> None:
    if url.startswith("sqlite"):
        create_database(url)
        return
    with suppress(StoreError):  # it has its tables already
        create_database(url)
    engine = open_engine(url)
    with engine.begin() as connection:
        connection.exec_driver_sql("TRUNCATE targets, benchmark_sets CASCADE")
    engine.dispose()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=190)
    parser.add_argument("--sequences", type=int, default=200)
    parser.add_argument("--block", type=int, default=10, help="runs of one turn")
    parser.add_argument(
        "--url", help="a PostgreSQL database whose runs may go; default: SQLite files"
    )
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print(f"{given.runs} runs of {given.sequences} sequences: the writer takes")
        for together in (True, False):
            url = given.url or f"sqlite:///{Path(folder) / f'{together}.db'}"
            make_empty(url)
            ratios = measure(url, given.runs, given.sequences, given.block, together=together)
            how = f"{given.block} runs in one transaction" if together else "each run in its own"
            print(
                f"  {ratios['wall']:.2f} x the wall time of a bare executemany and "
                f"{ratios['cpu']:.2f} x its CPU time, {how}"
            )
        for num_runs in (10, 100):
            print(
                f"  {peak_mib(url, num_runs, given.sequences):.2f} MiB at most for {num_runs} runs"
            )


if __name__ == "__main__":
    main()
