"""A Dask cluster gives what this host gives, once, whatever becomes of its workers."""

import logging
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import distributed
import pytest

from tests.runner.conftest import SMALL
from tests.runner.tiny_target import HEALTHY, MODEL_FILE, TinyRepository
from tests.store.builders import make_environment
from virnucpro_monitor.data.benchmarks import load_benchmark
from virnucpro_monitor.errors import ClusterError
from virnucpro_monitor.models.weights import synthesize
from virnucpro_monitor.records import ClusterHost, Failure, Outcome, Request, RunReport, Target
from virnucpro_monitor.records.messages import (
    Advanced,
    Ended,
    Failed,
    NearingEnd,
    PrepareJob,
    Ready,
    decode_ended,
    encode,
)
from virnucpro_monitor.records.progress import Progress
from virnucpro_monitor.runner import (
    cluster,
    cluster_files,
    cluster_lease,
    cluster_pool,
    cluster_task,
)
from virnucpro_monitor.runner.ahead import recall
from virnucpro_monitor.runner.checkout import Repository
from virnucpro_monitor.runner.client import WorkerPool
from virnucpro_monitor.runner.commits import run_commits
from virnucpro_monitor.runner.dispatch import measure_job
from virnucpro_monitor.runner.gpu import GIB, Gpu
from virnucpro_monitor.runner.plan import RunPlan
from virnucpro_monitor.runner.prepare import prepared_by
from virnucpro_monitor.validation.protocol import load_protocol

REQUEST = Request(model="esm2_t6_demo", weights="synthetic", device="cpu", dtype="float32")


@pytest.fixture
def plan(tmp_path: Path, cache_folder: Path, shared_workers: None) -> RunPlan:
    """Two commits, quick to measure."""
    return make_plan(tmp_path, cache_folder, 2)


def make_plan(tmp_path: Path, cache_folder: Path, num_commits: int) -> RunPlan:
    tiny = TinyRepository(tmp_path / "repository")
    for number in range(num_commits):
        tiny.commit({**HEALTHY, MODEL_FILE: f"{HEALTHY[MODEL_FILE]}\n# {number}\n"})
    target = Target(name="clustered", location=str(tiny.folder))
    repository = Repository.open(target.location, cache_folder)
    history = repository.history("HEAD")
    return RunPlan(
        target=target,
        repository=repository,
        commits=repository.commits(history, history),
        benchmarks=(SMALL,),
        request=REQUEST,
        protocol=load_protocol("1"),
        cache_folder=cache_folder,
        probes=False,
        force=True,
    )


@pytest.fixture(scope="module")
def dask() -> Iterator[Any]:
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as it:
        yield it


def cover(
    plan: RunPlan, dask: Any, on_hosts: cluster.OnHosts | None = None
) -> tuple[list[RunReport], list[str]]:
    said: list[str] = []
    over_dask = replace(plan, engine="dask", scheduler=dask.scheduler_address)
    return list(run_commits(over_dask, on_message=said.append, on_hosts=on_hosts)), said


def measures(report: RunReport) -> str:
    """What must not depend on where it was measured (times do); as text, NaN equals NaN."""
    run = report.run
    return repr((run.commit, run.outcome, run.culprit, run.gates, report.sequences))


def test_a_cluster_gives_the_bits_of_this_host_in_its_order(plan: RunPlan, dask: Any) -> None:
    seed = replace(plan, benchmarks=(load_benchmark("seed"),))
    here = list(run_commits(seed))
    hosts: list[tuple[ClusterHost, ...]] = []
    there, said = cover(seed, dask, hosts.append)
    assert [report.run.outcome for report in there] == [Outcome.PASSED] * 2
    (host,) = next(told for told in hosts if told and told[0].num_workers == 2)
    assert replace(host, utilisation=None) == ClusterHost(
        host=socket.gethostname(), card="", num_workers=2
    )
    assert host.utilisation is not None
    assert 0 <= host.utilisation <= 100
    assert [measures(report) for report in there] == [measures(report) for report in here]
    assert [report.run.commit.hash for report in there] == [one.hash for one in plan.commits]
    environment = there[0].run.environment
    assert environment is not None
    assert environment.host == "Dask cluster"
    assert said == []


def test_a_lost_worker_s_commit_is_measured_elsewhere(plan: RunPlan, dask: Any) -> None:
    with distributed.Client(dask, set_as_default=False) as client:
        killed: list[int] = []

        def kill() -> None:
            while not killed:
                for address, keys in client.processing().items():
                    jobs = [key for key in keys if key.startswith("virnucpro-monitor-")]
                    if any("-prepare-" not in key and "-place-" not in key for key in jobs):
                        killed.append(client.run(os.getpid, workers=[address])[address])
                        os.kill(killed[0], signal.SIGKILL)
                        return
                time.sleep(0.05)

        thread = threading.Thread(target=kill)
        thread.start()
        there, _ = cover(plan, dask)
        thread.join()
    assert killed
    assert [report.run.outcome for report in there] == [Outcome.PASSED] * 2
    assert len({report.run.commit.hash for report in there}) == 2


def test_a_worker_that_is_ours_before_its_lease_is_known_is_heard(
    dask: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit, heard = distributed.Client.submit, threading.Event()
    take = cluster_lease.Leases.take

    def late(client: Any, function: Any, *given: Any, **named: Any) -> Any:
        future = submit(client, function, *given, **named)
        if function is cluster_task.hold_place:
            assert heard.wait(30)
        return future

    def noted(leases: Any, key: str, said: str) -> str | None:
        found = take(leases, key, said)
        heard.set()
        return found

    monkeypatch.setattr(distributed.Client, "submit", late)
    monkeypatch.setattr(cluster_lease.Leases, "take", noted)
    with distributed.Client(dask, set_as_default=False) as client:
        leases = cluster_lease.Leases(client, cluster_task, "early", None)
        client.subscribe_topic("early", lambda event: leases.take(*event[1]))
        (address, *_) = client.scheduler_info(n_workers=-1)["workers"]
        leases.ask(address)
        assert leases.is_open(address)
        leases.close()


def test_workers_that_come_after_all_have_gone_go_on(
    plan: RunPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster_pool, "LOOK_S", 0.5)
    alone = replace(plan, workers=1)
    with (
        distributed.LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=":0") as dask,
        distributed.Client(dask, set_as_default=False) as client,
    ):
        (first,) = client.scheduler_info(n_workers=-1)["workers"]
        over_dask = replace(alone, engine="dask", scheduler=dask.scheduler_address)
        reports = run_commits(over_dask)
        found = [next(reports)]
        os.kill(client.run(os.getpid)[first], signal.SIGKILL)  # and its nanny starts another
        found += reports
        assert list(client.scheduler_info(n_workers=-1)["workers"]) != [first]
    assert [report.run.outcome for report in found] == [Outcome.PASSED] * 2


def test_a_host_that_shares_no_folder_is_sent_the_code_and_the_weights(
    plan: RunPlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = tmp_path / "own.pt"
    synthesize(REQUEST.model, checkpoint, seed=1)
    monkeypatch.setenv("VIRNUCPRO_MONITOR_CACHE_DIR", str(tmp_path / "theirs"))
    look = cluster_task.look_around
    monkeypatch.setattr(
        cluster_task, "look_around", lambda *given: replace(look(*given), shares=False)
    )
    own = replace(plan, request=replace(plan.request, weights=str(checkpoint)))
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=1, processes=False, dashboard_address=":0"
    ) as dask:
        there, said = cover(own, dask)
    cluster_task.end_pools()
    assert said == []
    assert [report.run.outcome for report in there] == [Outcome.PASSED] * 2
    assert there[0].run.configuration.weights == checkpoint.name
    (sent,) = (tmp_path / "theirs" / "sent").glob(f"*/{checkpoint.name}")
    assert sent.read_bytes() == checkpoint.read_bytes()
    assert [measures(report) for report in there] == [
        measures(report) for report in run_commits(own)
    ]


def test_releases_have_a_fork_server_of_their_own_at_a_dask_worker(
    plan: RunPlan, tmp_path: Path
) -> None:
    """What it imports for them would be told of another target's runs."""
    with WorkerPool() as pool:
        prepared = prepared_by(READY, plan, pool, "cpu")
    commit = measure_job(plan, prepared, tmp_path, "cpu", plan.benchmarks)
    own = replace(commit, python="/environment/bin/python")
    release = replace(own, adapter="hf-esmc")
    usual = cluster_task._pool(None)
    assert [cluster_task._pool(None, one) is usual for one in (commit, own, release)] == [
        True, True, False,
    ]  # fmt: skip
    assert cluster_task._pool(None, release) is cluster_task._pool(None, release)
    cluster_task.end_pools()


def test_what_measures_is_not_told_what_dask_set_for_its_workers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given = {"OMP_NUM_THREADS": "1", "MALLOC_TRIM_THRESHOLD_": "65536", "MKL_NUM_THREADS": "7"}
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    worker = SimpleNamespace(nanny="tcp://127.0.0.1:1")
    monkeypatch.setattr(distributed, "get_worker", lambda: worker)
    started: list[dict[str, str]] = []

    def start(*_: Any, env: dict[str, str], **__: Any) -> Any:
        started.append(env)
        return SimpleNamespace(poll=lambda: None, kill=lambda: None, wait=lambda **_: 0)

    monkeypatch.setattr(subprocess, "Popen", start)
    cluster_task._pool(None).start()
    cluster_task.end_pools()
    assert {name: value for name, value in started[0].items() if name in given} == {
        "MKL_NUM_THREADS": "7"  # somebody else's choice
    }


def test_a_damaged_piece_is_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIRNUCPRO_MONITOR_CACHE_DIR", str(tmp_path))
    assert cluster_task.keep_piece("0" * 64, "w.pt", 0, b"") == ""
    cluster_task.keep_piece("0" * 64, "w.pt", 0, b"abc")
    with pytest.raises(OSError, match="arrived damaged"):
        cluster_task.keep_piece("0" * 64, "w.pt", 3, b"")
    assert not list(tmp_path.rglob("*w.pt*"))


def test_a_job_that_keeps_taking_its_worker_down_is_given_up(dask: Any) -> None:
    job = PrepareJob(
        request=replace(REQUEST, model="no such model"),
        cache_folder="unused", benchmarks=(), timeout_s=60.0, num_threads=1,
    )  # fmt: skip
    with distributed.Client(dask, set_as_default=False) as client:
        paths = cluster_task.Paths(device="cpu")

        def do() -> list[bytes]:
            future = client.submit(
                cluster_task.do_job, encode(job), paths, None, "given-up", None, "one job",
                key="its first future", pure=False,
            )  # fmt: skip
            lines: list[bytes] = future.result(timeout=120)
            future.release()
            while client.futures:
                time.sleep(0.05)
            return lines

        causes = [decode_ended(do()[-1]).cause for _ in range(3)]
    assert causes == ["exit", "exit", "lost"]


def test_a_dask_worker_of_another_version_is_left_out(
    plan: RunPlan, dask: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster_task, "source_digest", lambda: "another")
    with pytest.raises(ClusterError, match="install this version of virnucpro-monitor"):
        cover(plan, dask)


def test_cards_are_asked_for_by_their_resource(plan: RunPlan, dask: Any) -> None:
    on_cards = replace(plan, request=replace(plan.request, device="cuda"))
    with pytest.raises(ClusterError, match=r"start them with --resources GPU=1"):
        cover(on_cards, dask)


@pytest.mark.parametrize(
    ("scheduler", "sentence"),
    [
        ("", "give --scheduler"),
        ("tcp://127.0.0.1:9", "No Dask scheduler answers at"),
        ("tcp://127.0.0.1", "No Dask scheduler answers at"),  # its client would take 20 s to end
    ],
)
def test_no_scheduler_is_one_sentence(
    plan: RunPlan, scheduler: str, sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "CONNECT_S", 0.5)
    with pytest.raises(ClusterError, match=sentence):
        list(run_commits(replace(plan, engine="dask", scheduler=scheduler)))


def test_another_service_in_place_of_the_scheduler_is_one_sentence(
    plan: RunPlan,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

        def greet() -> None:
            with server.accept()[0] as caller:
                caller.sendall(b"SSH-2.0-OpenSSH_9.2p1\r\n")  # Dask takes it for a length
                while caller.recv(4096):
                    pass

        thread = threading.Thread(target=greet)
        thread.start()
        with pytest.raises(
            ClusterError, match=f"No Dask scheduler answers at tcp://127.0.0.1:{port}"
        ):
            list(run_commits(replace(plan, engine="dask", scheduler=f"tcp://127.0.0.1:{port}")))
        thread.join()


def test_a_worker_s_address_in_place_of_the_scheduler_s_is_one_sentence(
    plan: RunPlan, dask: Any
) -> None:
    address = dask.workers[0].worker_address
    with pytest.raises(ClusterError, match=f"No Dask scheduler answers at {address}"):
        list(run_commits(replace(plan, engine="dask", scheduler=address)))


def test_a_scheduler_that_goes_ends_the_start_and_keeps_what_was_measured(
    plan: RunPlan, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(cluster_pool, "LOST_S", 1.0)
    monkeypatch.setattr(cluster, "CONNECT_S", 1.0)
    dask: Any = distributed.LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=":0")
    over_dask = replace(plan, engine="dask", scheduler=dask.scheduler_address, workers=1)
    reports = run_commits(over_dask)
    first = next(reports)
    dask.close()
    with pytest.raises(ClusterError, match="goes on from there"):
        list(reports)
    assert not [one for one in caplog.records if one.name == "distributed.client"]
    assert not logging.getLogger("distributed.client").isEnabledFor(logging.ERROR)
    rest = list(run_commits(replace(plan, force=False), known=[first.run]))
    assert first.run.outcome is Outcome.PASSED
    assert {report.run.commit.hash for report in (first, *rest)} == {
        one.hash for one in plan.commits
    }


class StandInCluster:
    """A cluster of two Dask workers, of which the second says what a test has it say."""

    name = "Dask cluster"
    shares_folder = True

    def __init__(self, answers: dict[str, Ready]) -> None:
        self.places = dict.fromkeys(answers)
        self.client = SimpleNamespace(status="running")
        self.left_out: list[str] = []
        self.num_awaited = len(answers)
        self._new = list(answers)
        self._answers = answers

    def submit(self, job: Any, address: str | None = None) -> Any:
        lines = [encode(self._answers[address or ""]), encode(Ended(cause="exit", code=0, log=""))]
        return SimpleNamespace(
            key="job", status="finished", done=lambda: True, result=lambda timeout: lines
        )

    def forget(self, future: Any) -> None:
        pass

    def tell_hosts(self) -> None:
        pass

    def use(self, address: str, ready: Ready) -> None:
        pass

    def next_progress(self, key: str) -> None:
        return None

    def is_stranded(self, future: Any) -> bool:
        return True

    def is_any_left(self) -> bool:
        return False

    def newcomers(self) -> list[str]:
        new, self._new = self._new, []
        return new

    def leave_out(self, address: str, why: str) -> None:
        self.left_out.append(f"{address}: {why}")
        self.places.pop(address)


READY = Ready(
    weights_digest="1" * 64,
    checkpoint="/w.pt",
    regression="/r.pt",
    torch_home="/home",
    environment=make_environment(host="one", torch="2.11.0", gpu="H200"),
    installed={},
)
PREPARE = PrepareJob(
    request=REQUEST, cache_folder="unused", benchmarks=(), timeout_s=60.0, num_threads=1
)


@pytest.mark.parametrize(
    ("other", "sentence"),
    [
        (replace(READY, environment=replace(READY.environment, torch="2.10.0")),
         "its torch is 2.10.0, not 2.11.0 as elsewhere"),
        (replace(READY, environment=replace(READY.environment, gpu="A100")),
         "its gpu is A100, not H200 as elsewhere"),
        (replace(READY, weights_digest="2" * 64), "its weights are not those of the others"),
    ],
)  # fmt: skip
def test_a_dask_worker_with_another_torch_card_or_weights_is_left_out_and_the_rest_goes_on(
    other: Ready, sentence: str
) -> None:
    stand_in = StandInCluster({"tcp://one": READY, "tcp://two": other})
    pool = cluster_pool.ClusterPool(cast(Any, stand_in))
    ready, ended = pool.run(PREPARE)
    pool.close()
    assert stand_in.left_out == [f"tcp://two: {sentence}"]
    assert list(stand_in.places) == ["tcp://one"]
    assert isinstance(ready, Ready)
    assert ready.environment.host == stand_in.name
    assert ended == Ended(cause="exit", code=0, log="")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            "Error during deserialization of the task graph. This frequently\noccurs if the "
            "Scheduler and Client have different environments.\nFor more information, see\n"
            "https://docs.dask.org/en/stable/deployment-considerations.html#consistent-software\n",
            "RuntimeError: Error during deserialization of the task graph. This frequently occurs "
            "if the Scheduler and Client have different environments",
        ),
        (
            "Task 'x' died four times. The last worker was tcp://10.0.0.1:4000.",
            "RuntimeError: Task 'x' died four times",
        ),
        ("no answer of tcp://10.0.0.1:4000", "RuntimeError: no answer of tcp://10.0.0.1:4000"),
    ],
)
def test_what_dask_could_not_begin_is_told_and_not_where_to_read_of_it(
    text: str, told: str
) -> None:
    ended = Ended(cause="lost", code=0, log=cluster_pool._as_log(RuntimeError(text)))
    assert cluster_pool._why([ended]) == told
    assert ended.log.startswith(text)


def test_what_a_killed_dask_worker_left_of_a_commit_goes_with_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    leaves = """
import os, pathlib
from virnucpro_monitor.runner import cluster_task
with cluster_task._temporary() as folder:
    pathlib.Path(folder, "model.py").touch()
    os._exit(9)
"""
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    subprocess.run([sys.executable, "-c", leaves], env=environment, check=False)
    (left,) = tmp_path.glob("*/model.py")
    with cluster_task._temporary() as folder:
        assert not left.exists()
        assert list(tmp_path.iterdir()) != []
        assert Path(folder).parent == tmp_path
    assert list(tmp_path.iterdir()) == []


def test_of_three_dask_workers_the_odd_one_is_left_out_though_it_is_the_first() -> None:
    odd = replace(READY, environment=replace(READY.environment, torch="2.10.0"))
    stand_in = StandInCluster({"tcp://a": odd, "tcp://b": READY, "tcp://c": READY})
    pool = cluster_pool.ClusterPool(cast(Any, stand_in))
    ready, _ = pool.run(PREPARE)
    pool.close()
    assert stand_in.left_out == ["tcp://a: its torch is 2.10.0, not 2.11.0 as elsewhere"]
    assert isinstance(ready, Ready)
    assert ready.environment.torch == "2.11.0"


class OnCard:
    """A worker pool whose commits near their end at once, and end when the next has begun."""

    def __init__(self, num_commits: int) -> None:
        self.num_commits = num_commits
        self.running: set[str] = set()
        self.begun: list[str] = []
        self.most = 0
        self.held: set[str] = set()
        self.from_held = 0
        self.held_at_prepare = 0

    def start(self) -> None: ...

    def close(self) -> None: ...

    def hold(self, job: Any) -> None:
        self.held.add(job.checkout)

    def drop(self, checkout: str) -> None:
        self.held.discard(checkout)

    def num_held(self, _: str) -> int:
        return len(self.held)

    def run(self, job: Any, *, cancel: threading.Event) -> Iterator[Any]:
        if isinstance(job, PrepareJob):
            self.held_at_prepare = len(self.held)
            yield replace(READY, checkpoint=__file__)
        else:
            self.from_held += job.checkout in self.held
            self.drop(job.checkout)
            self.running.add(job.checkout)
            self.begun.append(job.checkout)
            self.most = max(self.most, len(self.running))
            place = len(self.begun)
            yield Advanced(benchmark=0, done=1, total=2)
            time.sleep(0.3)  # a task of others is noticed meanwhile
            yield NearingEnd(benchmark=0)
            end = time.monotonic() + 0.6
            while len(self.begun) == place < self.num_commits and time.monotonic() < end:
                time.sleep(0.01)
            self.running.discard(job.checkout)
            yield Failed(
                benchmark=0,
                failure=Failure(kind="import", message="boom"),
                started_at=datetime.now(UTC),
                duration_s=1.0,
            )
        yield Ended(cause="exit", code=0, log="")


def others_task() -> tuple[int, int]:
    """(processes of ours on the card, commits begun so far)."""
    pool: Any = cluster_task._pool(None)
    return len(pool.running) + len(pool.held), len(pool.begun)


def test_a_card_s_next_commit_begins_early_and_no_foreign_task_beside_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others' tasks that ask for a card get it between two of our commits."""
    plan = make_plan(tmp_path, tmp_path / "cache", 4)
    on_card = replace(plan, request=replace(plan.request, device="cuda"))
    pool = OnCard(4)
    monkeypatch.setattr(cluster_task, "_pool", lambda *_: pool)
    monkeypatch.setattr(cluster_task, "TENURE_S", 0.0)
    monkeypatch.setattr(cluster_pool, "LOOK_S", 0.3)
    card = Gpu("H200", "1", 140 * GIB, 140 * GIB, (), 0)
    monkeypatch.setattr(cluster_task, "find_gpu", lambda _: card)
    monkeypatch.setattr(cluster_task, "needed_gpu_bytes", lambda _: GIB)
    monkeypatch.setattr(cluster_task, "has_room_beside", lambda *_: True)
    with (
        distributed.LocalCluster(
            n_workers=1, threads_per_worker=1, processes=False, resources={"GPU": 1},
            dashboard_address=":0",
        ) as dask,
        distributed.Client(dask, set_as_default=False) as other,
    ):  # fmt: skip
        theirs: list[Any] = []

        def progress(event: Progress) -> None:
            if event.phase == "validating" and not theirs:
                theirs.append(other.submit(others_task, resources={"GPU": 1}))

        over_dask = replace(on_card, engine="dask", scheduler=dask.scheduler_address)
        found = list(run_commits(over_dask, on_progress=progress))
        num_beside, num_begun = theirs[0].result(timeout=10)
        assert pool.held_at_prepare == 0
        num_from_held = pool.from_held
        again = list(run_commits(replace(over_dask, commits=plan.commits[:1])))
    assert [report.run.outcome for report in found] == [Outcome.ERROR] * 4
    assert len(set(pool.begun)) == len(pool.begun) == 5
    assert pool.most == 2  # on one place, with one thread
    assert num_from_held >= 1
    assert [report.run.outcome for report in again] == [Outcome.ERROR]
    recalled = recall(on_card, WorkerPool(), "cuda:0")  # by a start of this host's own engine
    assert recalled is not None
    assert recalled.surroundings.environment.host == socket.gethostname()
    assert pool.held_at_prepare == 1  # a start like the last one begins before it is prepared
    assert pool.from_held == num_from_held + 1
    assert not pool.held
    assert num_beside == 0
    assert 0 < num_begun < 4


def test_a_commit_s_files_arrive_as_they_are_with_links_that_lead_out(tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    for folder in (here / "package", here / ".git", there):
        folder.mkdir(parents=True)
    (here / "package" / "model.py").write_text("x = 1\n")
    (here / "package" / "model.py").chmod(0o755)
    (here / "outside").symlink_to("/usr/share/no such file")
    (here / ".git" / "HEAD").write_text("ref")
    cluster_files.unpack_checkout(cluster_files.pack_checkout(here), there)
    assert sorted(path.relative_to(there).as_posix() for path in there.rglob("*")) == [
        "outside", "package", "package/model.py",
    ]  # fmt: skip
    assert os.readlink(there / "outside") == "/usr/share/no such file"
    assert (there / "package" / "model.py").read_text() == "x = 1\n"
    assert (there / "package" / "model.py").stat().st_mode & 0o777 == 0o755


def test_a_start_whose_workers_have_all_gone_ends_with_a_sentence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cluster_pool, "LOOK_S", 0.01)
    monkeypatch.setattr(cluster_pool, "LOST_S", 0.1)
    stand_in = StandInCluster({"tcp://one": READY})
    waiting = SimpleNamespace(key="job", status="pending", done=lambda: False)
    monkeypatch.setattr(stand_in, "submit", lambda *_: waiting)
    with pytest.raises(ClusterError, match="No worker of the Dask cluster is left"):
        list(cluster_pool.ClusterPool(cast(Any, stand_in)).run(PREPARE))


@pytest.mark.parametrize("status", ["pending", "lost"])
def test_a_result_that_goes_with_its_worker_is_waited_for_no_longer(
    monkeypatch: pytest.MonkeyPatch, status: str
) -> None:
    """Dask takes such a task, which was done, for one that waits for its worker."""
    monkeypatch.setattr(cluster_pool, "LOOK_S", 0.01)
    stand_in = StandInCluster({"tcp://one": READY})
    monkeypatch.setattr(stand_in, "is_any_left", lambda: True)
    future = SimpleNamespace(key="job", status="finished")
    future.done = lambda: future.status == "finished"

    def result(timeout: float) -> None:
        future.status = status
        time.sleep(timeout)
        raise TimeoutError

    future.result = result
    monkeypatch.setattr(stand_in, "submit", lambda *_: future)
    *_, ended = cluster_pool.ClusterPool(cast(Any, stand_in)).run(PREPARE)
    assert stand_in.left_out == ["tcp://one: it has left the cluster"]
    assert ended == Ended(cause="lost", code=0, log="it has left the cluster")
