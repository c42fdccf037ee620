"""How fast every sequence's results are exported, beside pyarrow's and DuckDB's own writing.

    python -m tests.benchmarks.exporting [--runs 300] [--sequences 1000] [--rounds 3]

All write the same table as Parquet with zstd: ours out of the database, the others out of memory,
where they have it ready. They take turns within one process: only ratios mean anything. Peak memory
is that of an export in a process of its own, of the whole table and of a quarter of it.
"""

import argparse
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import duckdb
import pyarrow.parquet as pq

from tests.benchmarks.bulk_writing import make_reports
from virnucpro_monitor.monitor.databases import export_sequences
from virnucpro_monitor.records import RunReport
from virnucpro_monitor.report.table_files import write_table
from virnucpro_monitor.report.tables import sequence_batches
from virnucpro_monitor.store.engine import create_database, open_engine
from virnucpro_monitor.store.writer import Writer

PEAK = """
import re, sys
from pathlib import Path
from virnucpro_monitor.monitor.databases import export_sequences
from virnucpro_monitor.report.table_files import write_table
from virnucpro_monitor.report.tables import sequence_batches
batches = sequence_batches(export_sequences(sys.argv[1], target=None, benchmark=None))
write_table(Path(sys.argv[2]), "sequences", batches)
print(int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) // 1024)
"""


MEASURES = (
    "similarity", "packed_similarity", "unpacked_similarity", "relative_l2", "packed_relative_l2",
    "unpacked_relative_l2", "gain", "worst_residue_similarity", "p01_residue_similarity",
    "max_abs_difference",
)  # fmt: skip


def noisy(reports: Iterable[RunReport]) -> Iterator[RunReport]:
    """The reports with other figures in each: those of real runs repeat in no digit."""
    noise = random.Random(0)
    for report in reports:
        results = tuple(
            replace(one, **{name: getattr(one, name) * noise.random() for name in MEASURES})
            for one in report.sequences
        )
        yield replace(report, sequences=results)


def make_database(path: Path, num_runs: int, num_sequences: int) -> str:
    url = f"sqlite:///{path}"
    create_database(url)
    engine = open_engine(url)
    Writer(engine).save_runs(noisy(make_reports(range(num_runs), num_sequences)))
    engine.dispose()
    return url


def timed(act: Callable[[], object]) -> float:
    start = time.perf_counter()
    act()
    return time.perf_counter() - start


def export(url: str, path: Path) -> int:
    batches = sequence_batches(export_sequences(url, target=None, benchmark=None))
    return write_table(path, "sequences", batches)


def peak_mib(url: str, path: Path) -> int:
    command = [sys.executable, "-c", PEAK, url, str(path)]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=300)
    parser.add_argument("--sequences", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        url = make_database(folder / "whole.db", options.runs, options.sequences)
        part = make_database(folder / "part.db", options.runs // 4, options.sequences)
        ours, theirs, ducks = (folder / f"{who}.parquet" for who in ("ours", "pyarrow", "duckdb"))
        rows = export(url, ours)
        table = pq.read_table(ours)
        duck = duckdb.connect()
        duck.register("results", table)
        copy = f"COPY results TO '{ducks}' (FORMAT parquet, COMPRESSION zstd)"
        found: dict[str, list[float]] = {"ours": [], "pyarrow": [], "duckdb": []}
        for _ in range(options.rounds):
            found["ours"].append(timed(lambda: export(url, ours)))
            found["pyarrow"].append(
                timed(lambda: pq.write_table(table, theirs, compression="zstd"))
            )
            found["duckdb"].append(timed(lambda: duck.execute(copy)))
        middle = {who: statistics.median(times) for who, times in found.items()}
        print(f"{rows:,} rows, medians of {options.rounds} rounds")
        for who in ("pyarrow", "duckdb"):
            print(f"ours runs at {middle[who] / middle['ours']:.2f} x the rate of {who}'s own")
        peaks = peak_mib(part, ours), peak_mib(url, ours)
        print(f"peak memory: {peaks[0]} MiB for a quarter of the rows, {peaks[1]} MiB for all")


if __name__ == "__main__":
    main()
