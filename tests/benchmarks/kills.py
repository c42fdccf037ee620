"""SIGKILL at random moments: what is stored in the end is what an undisturbed run stores.

    nice -n 19 python -m tests.benchmarks.kills --state FOLDER [--kills 200] [--seed 1]

In each round a start that measures a small history is killed a few times, each time after a random
while: the command itself, the fork server, a job's watcher, the judge, the target's process or all
of them; and in every second round, which stores in a PostgreSQL server of our own, that server with
all its processes. Before each kill the command is stopped and its SQLite file copied with a random
part of its log, as a power cut would leave it: the copy must open and check clean. Then the start
is repeated until it ends by itself, and its table of runs must be the undisturbed one's, with the
whole database checked, and no process, checkout, scratch folder or waiting result left.

What is killed are real processes with the product's own code. Only their start is cheap: each is
forked from this process, which has imported torch, and is no fresh interpreter.

`--state` keeps what was done, so that a later call goes on; the same seed gives the same moments
and victims. Ends with 1 where anything differed.
"""

import argparse
import json
import os
import random
import shutil
import signal
import struct
import subprocess
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any, NoReturn

from tests.runner.tiny_target import HEALTHY, MODEL_FILE, PADDED_WITH_CLS, TinyRepository
from tests.store.conftest import PostgresServer
from virnucpro_monitor.data.benchmarks import add_benchmark
from virnucpro_monitor.monitor.running import RunOptions, find_run_target, run_and_store
from virnucpro_monitor.monitor.verifying import check_everything
from virnucpro_monitor.runner import client, server
from virnucpro_monitor.runner.confinement import close_descriptors
from virnucpro_monitor.runner.containment import adopt_orphans
from virnucpro_monitor.runner.preloading import preload
from virnucpro_monitor.runner.supervisor import descendants
from virnucpro_monitor.settings import load_settings
from virnucpro_monitor.store.engine import create_database, open_engine
from virnucpro_monitor.store.reader import load_runs

KILLS_PER_ROUND = 5
MAX_STARTS = 8  # after the last kill of a round
LONGEST_S = 900.0  # of one start; a start that takes longer hangs
CLEARING_S = 60.0  # for what a killed start leaves to end
VICTIMS = ("command", "server", "watcher", "judge", "target", "all")
WAL_HEADER_BYTES = 32
FASTA = ">a\nMKTAYIAKQR\n>b\nVLSPADKTNVKAAWGKV\n>c\nMVHLT\n"


class Child:
    """A process forked from this one; it has of `subprocess.Popen` what `WorkerPool` asks of it."""

    def __init__(self, act: Callable[[], object], streams: tuple[int, int, int]) -> None:
        self.pid = os.fork()
        self.returncode: int | None = None
        if self.pid == 0:
            _become(act, streams)

    def poll(self) -> int | None:
        if self.returncode is None:
            with suppress(ChildProcessError):
                ended, status = os.waitpid(self.pid, os.WNOHANG)
                if ended:
                    self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def wait(self, timeout: float = LONGEST_S) -> int:
        end = time.monotonic() + timeout
        while self.poll() is None:
            if time.monotonic() > end:
                raise subprocess.TimeoutExpired("a forked process", timeout)
            time.sleep(0.01)
        assert self.returncode is not None
        return self.returncode


def _become(act: Callable[[], object], streams: tuple[int, int, int]) -> NoReturn:
    status = 1
    try:
        os.setsid()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        for number, descriptor in enumerate(streams):
            os.dup2(descriptor, number)
        close_descriptors(but=())  # as a new interpreter would hold none: locks, too
        act()
        status = 0
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def fork_server(
    _: object, *, stdin: int, stdout: IO[bytes], env: Mapping[str, str], **__: object
) -> Child:
    """In place of a new interpreter that is the fork server."""

    def act() -> None:
        os.environ.clear()
        os.environ.update(env)
        sys.argv = ["server"]
        server.main()

    return Child(act, (stdin, stdout.fileno(), stdout.fileno()))


class Scene:
    """One folder with a repository, and starts of the runner in it."""

    def __init__(self, folder: Path, postgres: PostgresServer) -> None:
        self.folder = folder
        self.repository = folder / "tiny"
        self.postgres = postgres

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
        add_benchmark(fasta, "small")

    def start(self, url: str) -> Child:
        def act() -> None:
            os.chdir(self.folder)
            vars(client)["subprocess"] = SimpleNamespace(
                Popen=fork_server, TimeoutExpired=subprocess.TimeoutExpired
            )
            settings = load_settings(
                db=url,
                benchmark=["small"],
                model="esm2_t6_8M_UR50D",
                weights="synthetic",
                device="cpu",
                dtype="float32",
                workers=1,
            )
            target = find_run_target(settings, str(self.repository))
            run_and_store(settings, target, RunOptions(everything=True, probes=False))

        last_words = (self.folder / "last_words").open("wb")
        with last_words, open(os.devnull, "rb") as nothing:
            said = last_words.fileno()
            return Child(act, (nothing.fileno(), said, said))

    def last_words(self) -> str:
        return (self.folder / "last_words").read_text(errors="replace")[-2000:]

    def new_database(self, url: str) -> None:
        """Let there be none of that name, or an empty one on the server."""
        if url.startswith("sqlite"):
            for end in ("", "-wal", "-shm"):
                Path(f"{path_of(url)}{end}").unlink(missing_ok=True)
            return
        name = url.rpartition("/")[2]
        self.postgres.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        self.postgres.execute(f"CREATE DATABASE {name}")
        create_database(url)

    def table(self, url: str) -> list[Any]:
        """What must be equal: commits with outcome, side, gates and figures but for the times."""
        engine = open_engine(url, read_only=True)
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

    def kill_database(self) -> None:
        """Kill PostgreSQL with all its processes, and start it again."""
        first = postmaster_of(self.postgres)
        for pid in (first, *descendants(first)):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        end = time.monotonic() + CLEARING_S
        while Path(f"/proc/{first}").exists() and time.monotonic() < end:
            reap()
            time.sleep(0.01)
        self.postgres.start()

    def left_over(self) -> list[str]:
        """Processes, folders and files that no start may leave, once they had time to end."""
        end = time.monotonic() + CLEARING_S
        while (found := self._left_over()) and time.monotonic() < end:
            reap()
            time.sleep(0.1)
        return found

    def _left_over(self) -> list[str]:
        cache, data = (self.folder / one / "virnucpro-monitor" for one in ("cache", "data"))
        places = [*cache.glob("**/worktrees"), cache / "scratch", cache / "begun"]
        files = [one for place in places if place.is_dir() for one in place.iterdir()]
        files = [one for one in files if not one.is_dir() or any(one.iterdir())]
        files += data.glob("spool/**/*.json")
        return [*map(str, files), *(f"process {pid}" for pid in self.ours())]

    def ours(self) -> list[int]:
        """All processes below this one but the database's."""
        first = postmaster_of(self.postgres)
        outside = {first, *descendants(first)}
        return [pid for pid in descendants(os.getpid()) if pid not in outside]


def path_of(url: str) -> Path:
    return Path(url.removeprefix("sqlite:///"))


def postmaster_of(postgres: PostgresServer) -> int:
    return int((postgres.data / "postmaster.pid").read_text().split()[0])


def reap() -> None:
    """Take leave of orphans that have come to this process."""
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def children(pid: int) -> list[int]:
    found: list[int] = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):
            found += map(int, path.read_text().split())
    return sorted(found)


def victims_of(command: int, kind: str) -> list[int]:
    """Ids of the processes to kill; none where such a one does not run now.

    command - server - watcher - judge, and the target's, as a rule below another that reaps.
    """
    if kind == "command":
        return [command]
    if kind == "all":
        return [command, *descendants(command)]
    servers = [one for one in children(command) if not is_git(one)]
    watchers = children(servers[-1]) if servers else []
    working = children(watchers[-1]) if watchers else []
    found = {"server": servers, "watcher": watchers, "judge": working[:1], "target": working[1:]}
    pids = found[kind][-1:]
    if kind == "target" and pids:
        pids = descendants(pids[0])[:1] or pids
    return pids


def is_git(pid: int) -> bool:
    with suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text().startswith("git")
    return False


def power_cut(url: str, copy: Path, chosen: random.Random) -> list[str] | None:
    """What is wrong with a copy that lacks a random part of the log's tail; None without a file.

    What of the log a checkpoint has begun to carry over is on the disk by then, and stays.
    """
    database = path_of(url)
    log = database.with_name(f"{database.name}-wal")
    if not url.startswith("sqlite") or not database.exists() or not database.stat().st_size:
        return None
    shutil.copyfile(database, copy)
    content = log.read_bytes() if log.exists() else b""
    safe = min(synced_bytes(content, database.with_name(f"{database.name}-shm")), len(content))
    kept = content[: chosen.randint(safe, len(content))]
    copy.with_name(f"{copy.name}-wal").write_bytes(kept)
    try:
        return list(check_everything(f"sqlite:///{copy}").problems)
    finally:
        for path in (copy, *(copy.with_name(f"{copy.name}{end}") for end in ("-wal", "-shm"))):
            path.unlink(missing_ok=True)


def synced_bytes(log: bytes, index: Path) -> int:
    """How much of an SQLite log a checkpoint has made sure of before it wrote to the database."""
    if len(log) < WAL_HEADER_BYTES or not index.exists():
        return 0
    (page_bytes,) = struct.unpack(">I", log[8:12])
    (attempted,) = struct.unpack("=I", index.read_bytes()[128:132])  # nBackfillAttempted
    return int(WAL_HEADER_BYTES + attempted * (24 + page_bytes)) if attempted else 0


def play(scene: Scene, number: int, seed: int, whole_s: float, expected: list[Any]) -> Any:
    """One round; JSON values, of which "wrong" is empty where all is well."""
    chosen = random.Random(f"{seed} {number}")
    url = f"sqlite:///{scene.folder}/round_{number}.db"
    victims: tuple[str, ...] = VICTIMS
    if number % 2:
        url, victims = f"{scene.postgres.url}/round_{number}", (*VICTIMS, "database")
    scene.new_database(url)
    killed: list[str] = []
    wrong: list[str] = []
    copies = 0
    while len(killed) < KILLS_PER_ROUND:
        process = scene.start(url)
        moment = time.monotonic() + chosen.uniform(0.0, 1.1 * whole_s)
        kind = chosen.choice(victims)
        pids: list[int] = []
        while process.poll() is None and not pids:
            time.sleep(0.002)
            if time.monotonic() > moment:  # or as soon as there is such a process
                pids = [process.pid] if kind == "database" else victims_of(process.pid, kind)
        if pids and kind == "database":
            scene.kill_database()
        elif pids:
            os.kill(process.pid, signal.SIGSTOP)
            copied = power_cut(url, scene.folder / f"cut_{number}.db", chosen)
            copies += copied is not None
            wrong += [f"power cut before killing {kind}: {one}" for one in copied or ()]
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            with suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGCONT)
        if pids:
            killed.append(kind)
        else:  # It was done before: what is stored is measured again from nothing.
            scene.new_database(url)
        wrong += wait_for(process)
    for _ in range(MAX_STARTS):
        process = scene.start(url)
        wrong += wait_for(process)
        if process.returncode == 0 and "not_run" not in {row[1] for row in scene.table(url)}:
            break
    else:
        wrong.append(f"no start ended well: {scene.last_words()}")
    if scene.table(url) != expected:
        wrong.append(f"the table differs: {scene.table(url)}")
    wrong += list(check_everything(url).problems)
    wrong += [f"{left} was left" for left in scene.left_over()]
    if not wrong:
        scene.new_database(url)
    return {"round": number, "killed": killed, "copies": copies, "wrong": wrong}


def wait_for(process: Child) -> list[str]:
    """Wait for a start, and end one that hangs."""
    try:
        process.wait()
    except subprocess.TimeoutExpired:
        for pid in (process.pid, *descendants(process.pid)):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return ["a start hung"]
    return []


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--state", type=Path, required=True)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    folder = given.state.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    for name in [one for one in os.environ if one.startswith("VIRNUCPRO_MONITOR_")]:
        del os.environ[name]
    os.environ |= {"XDG_DATA_HOME": f"{folder}/data", "XDG_CACHE_HOME": f"{folder}/cache"}
    os.environ |= {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    preload()
    adopt_orphans()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("Ended by a signal."))
    with PostgresServer() as postgres:
        scene = Scene(folder, postgres)
        scene.set_up()
        try:
            play_all(scene, folder / f"seed_{given.seed}.json", given.seed, given.kills)
        finally:
            for pid in scene.ours():
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


def play_all(scene: Scene, notes: Path, seed: int, kills: int) -> None:
    state = json.loads(notes.read_text()) if notes.exists() else {"rounds": []}
    if "expected" not in state:
        url = f"sqlite:///{scene.folder}/undisturbed.db"
        for _ in range(2):  # weights and oracle are made by the first
            scene.new_database(url)
            begun = time.monotonic()
            if scene.start(url).wait() != 0:
                sys.exit(f"An undisturbed start failed: {scene.last_words()}")
            state["whole_s"] = time.monotonic() - begun
        state["expected"] = scene.table(url)
        notes.write_text(json.dumps(state))
    while sum(len(one["killed"]) for one in state["rounds"]) < kills:
        number = len(state["rounds"])
        done = play(scene, number, seed, state["whole_s"], state["expected"])
        state["rounds"].append(done)
        notes.write_text(json.dumps(state))
        told = f"round {number}: {', '.join(done['killed'])}: {done['wrong'] or 'nothing wrong'}"
        print(told, flush=True)
    wrong = [one for done in state["rounds"] for one in done["wrong"]]
    kinds = Counter(kind for done in state["rounds"] for kind in done["killed"])
    copies = sum(done["copies"] for done in state["rounds"])
    print(
        f"{kinds.total()} kills in {len(state['rounds'])} rounds "
        f"({', '.join(f'{number} of {kind}' for kind, number in kinds.most_common())}), "
        f"{copies} power-cut copies, {len(wrong)} things wrong"
    )
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
