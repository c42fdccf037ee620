"""Backfilling a long history: quick where little of it is relevant, and whole after any kill."""

import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from tests.protocols import write_quick_protocol
from tests.runner.tiny_target import HEALTHY, MODEL_FILE, PADDED_WITH_CLS, TinyRepository
from virnucpro_monitor.cli.main import run_command
from virnucpro_monitor.store.engine import open_engine
from virnucpro_monitor.store.reader import load_runs
from virnucpro_monitor.store.series_reader import load_coverage

NUM_COMMITS = 500
EVERY_RELEVANT = 20  # 5 %
NUM_KILLS = 10
LIMIT_S = 300.0


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """500 commits, of which every twentieth touches the package; some of those break it."""
    repository = TinyRepository(tmp_path_factory.mktemp("long") / "long")
    steps = [HEALTHY]
    for number in range(1, NUM_COMMITS):
        if number % EVERY_RELEVANT:
            files = {"NOTES.md": f"note {number}\n"}
        elif number % 100 == 60:
            files = {MODEL_FILE: f"{PADDED_WITH_CLS}# {number}\n"}
        elif number % 100 == 80:
            files = {MODEL_FILE: f"raise RuntimeError({number})\n{HEALTHY[MODEL_FILE]}"}
        else:
            files = {MODEL_FILE: f"{HEALTHY[MODEL_FILE]}# {number}\n"}
        steps.append(files)
    return repository.folder, repository.commit_all(steps)


def prepare(folder: Path, database: Path) -> list[str]:
    """Store the target and a small benchmark set; returns the command that backfills."""
    url = f"sqlite:///{database}"
    fasta = database.parent / "backfill.fasta"
    fasta.write_text(">a\nMKTAYIAKQR\n>b\nVLSPADKTNVKAAWGKV\n")
    assert run_command(["benchmark", "add", str(fasta), "--name", "backfill"]) == 0
    # What is tested is the history, not the yardstick.
    protocol = write_quick_protocol(database.parent)
    add = ["targets", "add", "long", str(folder), "--paths", "tinytarget", "--db", url]
    assert run_command(add) == 0
    root = subprocess.run(
        ["git", "-C", str(folder), "rev-list", "--max-parents=0", "HEAD"],
        capture_output=True, text=True, check=True,
    ).stdout.strip()  # fmt: skip
    return [
        sys.executable, "-m", "virnucpro_monitor", "run", "--target", "long",
        "--commit", root, "--commits", f"{root}..HEAD", "--benchmark", "backfill",
        "--model", "esm2_t6_demo", "--weights", "synthetic", "--device", "cpu",
        "--dtype", "float32", "--protocol", str(protocol), "--db", url,
    ]  # fmt: skip


def num_stored(database: Path) -> int:
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        (number,) = connection.execute("SELECT count(*) FROM runs").fetchone()
    return int(number)


def table(database: Path) -> list[tuple[str, ...]]:
    """All that must be the same however often the runner was killed."""
    engine = open_engine(f"sqlite:///{database}", read_only=True)
    try:
        assert load_coverage(engine, "long").num_missing == 0
        return [
            (
                run.commit.hash,
                str(run.outcome),
                str(run.inherited_from),
                str(run.inherited_outcome),
                str(run.culprit),
                run.reason,
                run.configuration.digest,
                str(run.code_digest),
            )
            for run in load_runs(engine, target="long")
        ]
    finally:
        engine.dispose()


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_long_history_is_quick_and_survives_kills(
    history: tuple[Path, list[str]], tmp_path: Path
) -> None:
    folder, hashes = history
    calm = tmp_path / "calm" / "monitor.db"
    calm.parent.mkdir()
    command = prepare(folder, calm)
    start = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    taken_s = time.monotonic() - start
    assert done.returncode == 2, done.stderr[-2000:]
    assert taken_s < LIMIT_S
    expected = table(calm)
    assert [row[0] for row in expected] == hashes
    counts = {name: sum(row[1] == name for row in expected) for name in ("passed", "failed")}
    assert counts == {"passed": 15, "failed": 5}

    stormy = tmp_path / "stormy" / "monitor.db"
    stormy.parent.mkdir()
    command = prepare(folder, stormy)
    chance = random.Random(0)
    for number in range(NUM_KILLS):
        process = subprocess.Popen(
            command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True
        )
        # By what is stored, not by the clock: a start takes as long as the machine is busy.
        enough = (number + chance.random()) * 0.8 * NUM_COMMITS / NUM_KILLS
        while num_stored(stormy) < enough and process.poll() is None:
            time.sleep(0.02)
        time.sleep(chance.uniform(0, 0.3))
        assert process.poll() is None
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr[-2000:]
    assert table(stormy) == expected
