"""How fast every sequence's results are exported, beside pyarrow's and DuckDB's own writing.

    python -m tests.benchmarks.exporting [--runs 300] [--sequences 1000] [--rounds 3]

All write the same table as Parquet: ours out of the database, the others out of memory, where they
have it ready, with Zstandard, with LZ4 and with their default. They take turns within one process:
only ratios mean anything. Of CPU time, which other programs change little, SQLite's own reading is
the larger part of ours. Peak memory is that of an export in a process of its own, of the whole
table and of a quarter of it.
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


def timed(act: Callable[[], object]) -> tuple[float, float]:
    """Seconds by the clock, and of CPU."""
    start, cpu = time.perf_counter(), time.process_time()
    act()
    return time.perf_counter() - start, time.process_time() - cpu


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
        acts: dict[str, Callable[[], object]] = {"ours": lambda: export(url, ours)}
        rows = export(url, ours)
        table = pq.read_table(ours)
        duck = duckdb.connect()
        duck.register("results", table)
        for codec in ("snappy", "lz4", "zstd"):
            acts[f"pyarrow, {codec}"] = lambda codec=codec: pq.write_table(
                table, theirs, compression=codec
            )
            name = {"lz4": "lz4_raw"}.get(codec, codec)  # one codec, two names
            copy = f"COPY results TO '{ducks}' (FORMAT parquet, COMPRESSION {name})"
            acts[f"DuckDB, {codec}"] = lambda copy=copy: duck.execute(copy)
        found: dict[str, list[tuple[float, float]]] = {who: [] for who in acts}
        for _ in range(options.rounds):
            for who, act in acts.items():
                found[who].append(timed(act))
        middle = {who: [statistics.median(of) for of in zip(*all_, strict=True)]
                  for who, all_ in found.items()}  # fmt: skip
        print(f"{rows:,} rows, medians of {options.rounds} rounds; ours: {ours.stat().st_size} B")
        print("| own writing by | rate of ours by the clock | by CPU time |\n|---|--:|--:|")
        for who in [who for who in acts if who != "ours"]:
            wall, cpu = (theirs_s / ours_s for theirs_s, ours_s in zip(
                middle[who], middle["ours"], strict=True
            ))  # fmt: skip
            print(f"| {who} | {wall:.2f} x | {cpu:.2f} x |")
        peaks = peak_mib(part, ours), peak_mib(url, ours)
        print(f"peak memory: {peaks[0]} MiB for a quarter of the rows, {peaks[1]} MiB for all")


if __name__ == "__main__":
    main()
