"""SIGKILL of a cluster's workers and scheduler at random moments changes nothing in what is stored.

    python -m tests.benchmarks.cluster_kills [--kills 50] [--commits 40] [--seed 1]

Real Dask processes and the runner's own engine, order and database; the measuring alone is a
stand-in, which replays verdicts of two commits that were measured for real, after a random while.
A scheduler and two workers are killed again and again and, as a service manager would, started
anew; a start whose scheduler has gone is repeated. Each time that a history is covered its table of
runs (commit, outcome, side, gates, every sequence's measures) must be the undisturbed one's, each
run there once. Ends with 1 where anything differed.
"""

import argparse
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

STAND_IN = "STAND_IN_FOLDER"
KINDS = ("healthy", "broken", "error")
KIND_FILE = "kind.txt"
BETWEEN_KILLS_S = (1.0, 8.0)  # a worker takes about three until it can be used again
VICTIMS = ("worker", "worker", "worker", "nanny", "scheduler")


class StandIn:
    """What a worker pool says of a job, without doing it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._held: set[str] = set()

    def start(self) -> None:
        """There is no process to start."""

    def hold(self, job: Any) -> None:
        self._held.add(job.checkout)

    def drop(self, checkout: str) -> None:
        self._held.discard(checkout)

    def num_held(self, _: str) -> int:
        return len(self._held)

    def run(self, job: Any, *, cancel: threading.Event) -> Iterator[Any]:
        from virnucpro_monitor.records.messages import Advanced, Ended, MeasureJob, decode_said

        name = "ready"
        if isinstance(job, MeasureJob):
            end = time.monotonic() + random.uniform(0.1, 0.6)
            while time.monotonic() < end and not cancel.is_set():
                yield Advanced(benchmark=0, done=1, total=3)
                time.sleep(0.05)
            name = Path(job.checkout, KIND_FILE).read_text(encoding="utf-8").strip()
        yield decode_said(self._folder.joinpath(name).read_bytes())
        yield Ended(cause="exit", code=0, log="")


def dask_setup(_: Any) -> None:
    """In a Dask worker (`--preload`): let it measure by the stand-in."""
    from virnucpro_monitor.runner import cluster_task

    pool: Any = StandIn(Path(os.environ[STAND_IN]))
    cluster_task._pool = lambda *_: pool


class Cluster:
    """A scheduler and two workers with their nannies, each started again once it has gone."""

    def __init__(self, folder: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        self.address = f"tcp://127.0.0.1:{port}"
        environment = {
            **os.environ, STAND_IN: str(folder), "PYTHONPATH": os.getcwd(), "OMP_NUM_THREADS": "1",
        }  # fmt: skip
        base = [sys.executable, "-m", "distributed.cli.dask_scheduler"]
        worker = [sys.executable, "-m", "distributed.cli.dask_worker", self.address]
        worker += [
            "--nthreads",
            "1",
            "--no-dashboard",
            "--preload",
            "tests.benchmarks.cluster_kills",
        ]
        self._commands = {
            "scheduler": [*base, "--host", "127.0.0.1", "--port", str(port), "--no-dashboard"],
            "nanny 1": worker,
            "nanny 2": worker,
        }
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._folder, self._environment = folder, environment
        self.keep_up()

    def keep_up(self) -> None:
        for name, command in self._commands.items():
            process = self._processes.get(name)
            if process is None or process.poll() is not None:
                with (self._folder / f"{name}.log").open("ab") as log:
                    self._processes[name] = subprocess.Popen(
                        command, stdout=log, stderr=log, env=self._environment, cwd=self._folder
                    )

    def kill(self, victim: str) -> bool:
        """Kill one of that kind; False where none is up."""
        from virnucpro_monitor.runner.supervisor import descendants

        if victim == "scheduler":
            pids = [self._processes["scheduler"].pid]
        else:
            nannies = [self._processes[name].pid for name in ("nanny 1", "nanny 2")]
            pids = nannies
            if victim == "worker":
                pids = [pid for one in nannies for pid in descendants(one) if _is_worker(pid)]
        if not pids:
            return False
        with suppress(ProcessLookupError):
            os.kill(random.choice(pids), signal.SIGKILL)
        return True

    def close(self) -> None:
        from virnucpro_monitor.runner.supervisor import descendants

        for process in self._processes.values():
            for pid in (*descendants(process.pid), process.pid):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            process.wait()


def _is_worker(pid: int) -> bool:
    with suppress(OSError):
        return b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()
    return False


def record(plan: Any, folder: Path) -> None:
    """Measure a healthy and a broken commit for real, and keep what was said."""
    from virnucpro_monitor.records import Failure
    from virnucpro_monitor.records.messages import Failed, Judged, PrepareJob, encode
    from virnucpro_monitor.runner.client import WorkerPool
    from virnucpro_monitor.runner.dispatch import measure_job
    from virnucpro_monitor.runner.prepare import prepare

    with WorkerPool() as pool:
        prepared = prepare(plan, pool, "cpu", lambda _: None)
        job = PrepareJob(
            request=plan.request, cache_folder=str(plan.cache_folder), benchmarks=plan.benchmarks,
            timeout_s=600.0, num_threads=plan.num_threads,
        )  # fmt: skip
        folder.joinpath("ready").write_bytes(encode(next(iter(pool.run(job)))))
        for kind, commit in zip(KINDS, plan.commits, strict=False):
            with plan.repository.checkout(commit.hash) as (checkout, _):
                measuring = measure_job(plan, prepared, checkout, "cpu", plan.benchmarks)
                said = next(one for one in pool.run(measuring) if isinstance(one, (Judged, Failed)))
            assert (kind == "error") is isinstance(said, Failed), kind
            if isinstance(said, Failed):
                failure = Failure(kind=said.failure.kind, message=said.failure.message)
                said = replace(said, failure=failure)
            folder.joinpath(kind).write_bytes(encode(said))


def make_plan(folder: Path, num_commits: int) -> Any:
    from tests.runner.conftest import SMALL
    from tests.runner.tiny_target import HEALTHY, MODEL_FILE, PADDED_WITH_CLS, TinyRepository
    from virnucpro_monitor.records import Request, Target
    from virnucpro_monitor.runner.checkout import Repository
    from virnucpro_monitor.runner.plan import RunPlan
    from virnucpro_monitor.validation.protocol import load_protocol

    tiny = TinyRepository(folder / "tiny")
    models = {
        "healthy": HEALTHY[MODEL_FILE],
        "broken": PADDED_WITH_CLS,
        "error": "raise RuntimeError('boom')\n",
    }
    for number in range(num_commits):
        kind = KINDS[number % len(KINDS)]
        model = f"{models[kind]}# {number}\n"
        tiny.commit({**HEALTHY, MODEL_FILE: model, KIND_FILE: f"{kind}\n"}, f"Change {number}")
    target = Target(name="tiny", location=str(tiny.folder))
    repository = Repository.open(target.location, folder / "cache")
    history = repository.history("HEAD")
    return RunPlan(
        target=target,
        repository=repository,
        commits=repository.commits(history, history),
        benchmarks=(SMALL,),
        request=Request(model="esm2_t6_8M_UR50D", weights="synthetic"),
        protocol=load_protocol(),
        cache_folder=folder / "cache",
        probes=False,
        num_threads=1,
        engine="dask",
    )


def cover(plan: Any, database: str, say: Callable[[str], None]) -> None:
    """One start: what is not known yet is measured and stored."""
    from virnucpro_monitor.monitor.sink import Sink
    from virnucpro_monitor.runner.commits import run_commits
    from virnucpro_monitor.runner.selection import Selection

    with Sink(database, plan.target, say=say) as sink:
        known = sink.known_runs()
        begun = False
        for report in run_commits(plan, known=known, on_message=say):
            if not begun:
                sink.begin(Selection(plan.commits, plan.commits))
                begun = True
            sink.save(report)


def table(database: str) -> list[str]:
    """All runs that count, oldest commit first, without times."""
    from virnucpro_monitor.store.engine import open_engine
    from virnucpro_monitor.store.reader import load_runs, load_sequences

    engine = open_engine(database, read_only=True)
    rows = []
    for run in load_runs(engine, target="tiny"):
        assert run.id is not None
        results = load_sequences(engine, run.id)
        rows.append(
            repr((run.commit.hash, run.outcome, run.culprit, run.reason, run.gates, results))
        )
    engine.dispose()
    return rows


def main() -> None:
    from virnucpro_monitor.errors import ClusterError
    from virnucpro_monitor.runner import cluster, cluster_pool

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--commits", type=int, default=40)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    random.seed(given.seed)
    cluster_pool.LOST_S, cluster.CONNECT_S = 2.0, 5.0
    wrong: list[str] = []
    killed: list[str] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        plan = make_plan(folder, given.commits)
        record(plan, folder)
        dask = Cluster(folder)
        plan = replace(plan, scheduler=dask.address)
        said: list[str] = []

        def until_done(database: str) -> int:
            starts = 0
            while True:
                starts += 1
                try:
                    cover(plan, database, said.append)
                except ClusterError as error:
                    print(f"{len(killed)} kills: {error}", flush=True)
                    time.sleep(0.5)
                    continue
                if not any("not_run" in row for row in table(database)):
                    return starts

        over = threading.Event()

        def kill() -> None:
            while len(killed) < given.kills and not over.wait(random.uniform(*BETWEEN_KILLS_S)):
                victim = random.choice(VICTIMS)
                if dask.kill(victim):
                    killed.append(victim)

        def keep() -> None:
            while not over.wait(0.3):
                dask.keep_up()

        try:
            threading.Thread(target=keep).start()
            undisturbed = f"sqlite:///{folder / 'undisturbed.db'}"
            until_done(undisturbed)
            expected = table(undisturbed)
            assert len(expected) == given.commits
            killer = threading.Thread(target=kill)
            killer.start()
            number = 0
            while killer.is_alive():
                database = f"sqlite:///{folder / f'{number}.db'}"
                before = len(killed)
                starts = until_done(database)
                found = table(database)
                differing = sum(one != other for one, other in zip(found, expected, strict=False))
                if differing or len(found) != len(expected):
                    wrong.append(f"history {number}: {differing} of {len(found)} runs differ")
                number += 1
                print(
                    f"history {number}: {len(killed) - before} kills, {starts} starts, "
                    f"{len(found)} runs, {differing} differ",
                    flush=True,
                )
            killer.join()
        finally:
            over.set()
            time.sleep(1)  # whoever keeps them up sees it
            dask.close()
    kinds = ", ".join(f"{killed.count(one)} {one}" for one in dict.fromkeys(killed))
    print(f"{len(killed)} kills ({kinds}) in {number} histories: {wrong or 'nothing differed'}")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
