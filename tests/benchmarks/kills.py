"""SIGKILL at random moments: what is stored in the end is what an undisturbed run stores.

    nice -n 19 python -m tests.benchmarks.kills --state FOLDER [--kills 200] [--seed 1]

In each round a start of `virnucpro-monitor run --all` is killed a few times, each time after a
random while: the command itself, the fork server, a job's watcher, the judge, the target's process
or all of them. Before each kill the command is stopped and its database copied with a random part
of its log, as a power cut would leave it: the copy must open and check clean. Then the start is
repeated until it ends by itself, and its table of runs must be the undisturbed one's, with
`db check` clean and neither checkout nor scratch folder left.

`--state` keeps what was done, so that a later call goes on; the same seed gives the same moments
and victims. Ends with 1 where anything differed.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.runner.tiny_target import HEALTHY, MODEL_FILE, PADDED_WITH_CLS, TinyRepository
from virnucpro_monitor.monitor.verifying import check_everything
from virnucpro_monitor.runner.supervisor import descendants
from virnucpro_monitor.store.engine import open_engine
from virnucpro_monitor.store.reader import load_runs

KILLS_PER_ROUND = 5
MAX_STARTS = 8  # after the last kill of a round
VICTIMS = ("command", "server", "watcher", "judge", "target", "all")
FASTA = ">a\nMKTAYIAKQR\n>b\nVLSPADKTNVKAAWGKV\n>c\nMVHLT\n"


class Scene:
    """One folder with a repository, and starts of the command in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.repository = folder / "tiny"
        self.environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith("VIRNUCPRO_MONITOR_")},
            "XDG_DATA_HOME": str(folder / "data"),
            "XDG_CACHE_HOME": str(folder / "cache"),
            "PYTHONPATH": os.getcwd(),
            "OMP_NUM_THREADS": "1",
        }

    def set_up(self) -> None:
        if self.repository.exists():
            return
        tiny = TinyRepository(self.repository)
        tiny.commit(HEALTHY, "Add packed inference")
        tiny.commit({MODEL_FILE: PADDED_WITH_CLS}, "Pad with <cls>")
        tiny.commit({MODEL_FILE: "raise RuntimeError('boom')\n" + HEALTHY[MODEL_FILE]}, "Break")
        tiny.commit({MODEL_FILE: HEALTHY[MODEL_FILE] + "# mended\n"}, "Mend")
        fasta = self.folder / "small.fasta"
        fasta.write_text(FASTA)
        self.command("benchmark", "add", str(fasta), "--name", "small").wait()

    def command(self, *arguments: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-m", "virnucpro_monitor", *arguments],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.DEVNULL,
            stderr=(self.folder / "last_words").open("wb"),
            start_new_session=True,
        )

    def start(self, database: Path) -> subprocess.Popen[bytes]:
        return self.command(
            "run", "--target", str(self.repository), "--all", "--benchmark", "small",
            "--model", "esm2_t6_8M_UR50D", "--weights", "synthetic", "--device", "cpu",
            "--dtype", "float32", "--protocol", "1", "--workers", "1",
            "--db", f"sqlite:///{database}",
        )  # fmt: skip

    def table(self, database: Path) -> list[Any]:
        """What must be equal: commits with outcome, side, gates and figures but for the times."""
        engine = open_engine(f"sqlite:///{database}", read_only=True)
        found = []
        for run in load_runs(engine):
            figures = run.figures
            found.append(
                [
                    run.commit.hash,
                    str(run.outcome),
                    str(run.culprit),
                    [[gate.name, gate.passed, gate.value] for gate in run.gates],
                    figures and [figures.min_similarity, figures.num_failed],
                ]
            )
        engine.dispose()
        return found

    def left_over(self) -> list[str]:
        """Folders that no start may leave."""
        cache = self.folder / "cache" / "virnucpro-monitor"
        places = [*cache.glob("**/worktrees"), cache / "scratch"]
        return [str(one) for place in places if place.is_dir() for one in place.iterdir()]


def victims_of(command: int, kind: str) -> list[int]:
    """Ids of the processes to kill; none where such a one does not run now."""
    below = sorted(descendants(command), key=lambda pid: len(descendants(pid)), reverse=True)
    below = [pid for pid in below if "runner.server" in _command_line(pid)]
    if kind == "command":
        return [command]
    if kind == "all":
        return [command, *below]
    place = {"server": 0, "watcher": 1, "judge": -2, "target": -1}[kind]
    enough = len(below) > (abs(place) + 2 if place < 0 else place)
    return [below[place]] if enough else []


def _command_line(pid: int) -> str:
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    return ""


def power_cut(database: Path, copy: Path, chosen: random.Random) -> list[str]:
    """What is wrong with a copy that lacks a random part of the log's tail."""
    log = database.with_name(f"{database.name}-wal")
    if not database.exists() or not database.stat().st_size:
        return []
    shutil.copyfile(database, copy)
    content = log.read_bytes() if log.exists() else b""
    kept = content[: chosen.randrange(len(content) + 1)]
    copy.with_name(f"{copy.name}-wal").write_bytes(kept)
    try:
        return list(check_everything(f"sqlite:///{copy}").problems)
    finally:
        for path in (copy, *(copy.with_name(f"{copy.name}{end}") for end in ("-wal", "-shm"))):
            path.unlink(missing_ok=True)


def play(scene: Scene, number: int, seed: int, whole_s: float, expected: list[Any]) -> Any:
    """One round; JSON values, of which "wrong" is empty where all is well."""
    chosen = random.Random(f"{seed} {number}")
    database = scene.folder / f"round_{number}.db"
    killed: list[str] = []
    wrong: list[str] = []
    while len(killed) < KILLS_PER_ROUND:
        process = scene.start(database)
        deadline = time.monotonic() + chosen.uniform(0.5, 1.2 * whole_s)
        kind = chosen.choice(VICTIMS)
        while process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        pids = victims_of(process.pid, kind) if process.poll() is None else []
        if pids:
            os.kill(process.pid, signal.SIGSTOP)
            copied = power_cut(database, scene.folder / f"cut_{number}.db", chosen)
            wrong += [f"power cut before killing {kind}: {one}" for one in copied]
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            with suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGCONT)
            killed.append(kind)
        elif process.poll() is not None:
            # It was done before: what is stored is measured again from nothing.
            for end in ("", "-wal", "-shm"):
                database.with_name(f"{database.name}{end}").unlink(missing_ok=True)
        process.wait(timeout=3600)
    for _ in range(MAX_STARTS):
        process = scene.start(database)
        process.wait(timeout=3600)
        if "not_run" not in {row[1] for row in scene.table(database)}:
            break
    if scene.table(database) != expected:
        wrong.append(f"the table differs: {scene.table(database)}")
    wrong += list(check_everything(f"sqlite:///{database}").problems)
    wrong += [f"{left} was left" for left in scene.left_over()]
    return {"round": number, "killed": killed, "wrong": wrong}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--state", type=Path, required=True)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    given.state.mkdir(parents=True, exist_ok=True)
    scene = Scene(given.state.resolve())
    scene.set_up()
    notes = given.state / f"seed_{given.seed}.json"
    state = json.loads(notes.read_text()) if notes.exists() else {"rounds": []}
    if "expected" not in state:
        scene.start(scene.folder / "warm.db").wait()  # weights and oracle are made here
        begun = time.monotonic()
        scene.start(scene.folder / "undisturbed.db").wait()
        state["whole_s"] = time.monotonic() - begun
        state["expected"] = scene.table(scene.folder / "undisturbed.db")
        notes.write_text(json.dumps(state))
    while sum(len(one["killed"]) for one in state["rounds"]) < given.kills:
        number = len(state["rounds"])
        done = play(scene, number, given.seed, state["whole_s"], state["expected"])
        state["rounds"].append(done)
        notes.write_text(json.dumps(state))
        print(f"round {number}: {', '.join(done['killed'])}: {done['wrong'] or 'nothing wrong'}")
    wrong = [one for done in state["rounds"] for one in done["wrong"]]
    kills = sum(len(one["killed"]) for one in state["rounds"])
    print(f"{kills} kills in {len(state['rounds'])} rounds, {len(wrong)} things wrong")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
