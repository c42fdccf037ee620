"""An SQLite file as a power cut leaves it: any part of the log's tail may be missing."""

import random
import shutil
import sqlite3
from pathlib import Path

from tests.store.builders import make_report
from virnucpro_monitor.monitor.verifying import check_everything
from virnucpro_monitor.store.engine import open_engine
from virnucpro_monitor.store.reader import load_runs
from virnucpro_monitor.store.writer import Writer


def cut(source: Path, copy: Path, log_bytes: int) -> None:
    """Copy the database and only so much of its log."""
    shutil.copyfile(source, copy)
    log = source.with_name(f"{source.name}-wal").read_bytes()
    copy.with_name(f"{copy.name}-wal").write_bytes(log[:log_bytes])


def test_whatever_of_the_log_is_lost_whole_runs_remain(tmp_path: Path, sqlite_url: str) -> None:
    source = Path(sqlite_url.removeprefix("sqlite:///"))
    engine = open_engine(sqlite_url)
    writer = Writer(engine)
    with engine.connect():  # so that the log is not moved into the file
        for number in range(4):
            writer.save_run(make_report(number))
        chosen = random.Random(5)
        size = source.with_name(f"{source.name}-wal").stat().st_size
        counts = set()
        for trial in range(6):
            copy = tmp_path / f"cut_{trial}.db"
            cut(source, copy, size if trial == 0 else chosen.randrange(size))
            url = f"sqlite:///{copy}"
            assert check_everything(url).problems == ()
            kept = open_engine(url, read_only=True)
            runs = load_runs(kept)
            kept.dispose()
            hashes = [make_report(number).run.commit.hash for number in range(len(runs))]
            assert [run.commit.hash for run in runs] == hashes
            counts.add(len(runs))
            with sqlite3.connect(copy) as plain:
                assert plain.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            plain.close()
    engine.dispose()
    assert {4} < counts  # some were lost, and not in every copy
