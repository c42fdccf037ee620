"""What runs in a Dask worker."""

import os
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import distributed
import pytest

from tests.runner.clustered import READY, REQUEST, make_plan
from virnucpro_monitor.records import Failure
from virnucpro_monitor.records.messages import Ended, Failed, PrepareJob, decode_ended, encode
from virnucpro_monitor.runner import cluster_files, cluster_lease, cluster_task, cluster_tenure
from virnucpro_monitor.runner.blame import Blame
from virnucpro_monitor.runner.client import WorkerPool
from virnucpro_monitor.runner.cluster_calls import workers_of
from virnucpro_monitor.runner.dispatch import measure_job
from virnucpro_monitor.runner.gpu import GIB, Glances, Gpu
from virnucpro_monitor.runner.prepare import prepared_by


def test_releases_have_a_fork_server_of_their_own_at_a_dask_worker(
    tmp_path: Path, cache_folder: Path
) -> None:
    """What it imports for them would be told of another target's runs."""
    plan = make_plan(tmp_path, cache_folder, 1)
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


def test_a_job_that_keeps_taking_its_worker_down_is_given_up(dask: Any) -> None:
    job = PrepareJob(
        request=replace(REQUEST, model="no such model"),
        cache_folder="unused", benchmarks=(), timeout_s=60.0, num_threads=1,
    )  # fmt: skip
    with distributed.Client(dask, set_as_default=False) as client:
        paths = cluster_task.Paths(device="cpu")
        (address, *_) = sorted(workers_of(client) or ())
        leases = cluster_lease.Leases(client, cluster_tenure, "given-up-leases", None)
        leases.ask(address)
        while not leases.is_open(address):
            time.sleep(0.05)

        def do() -> list[bytes]:
            future = client.submit(
                cluster_task.do_job, encode(job), paths, None, "given-up", None, "one job",
                leases.tenure_at(address), key="its first future", pure=False, workers=[address],
            )  # fmt: skip
            lines: list[bytes] = future.result(timeout=120)
            future.release()
            while "its first future" in client.futures:
                time.sleep(0.05)
            return lines

        causes = [decode_ended(do()[-1]).cause for _ in range(3)]
        leases.close()
    assert causes == ["exit", "exit", "lost"]


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


@pytest.mark.parametrize("gone", [True, False])
@pytest.mark.parametrize("crashes", [True, False])
def test_a_failure_on_a_dask_worker_s_card_is_told_with_its_name_there(
    tmp_path: Path, cache_folder: Path, monkeypatch: pytest.MonkeyPatch, gone: bool, crashes: bool
) -> None:
    """The start knows neither which card it was nor whether that is still there."""
    seen = None if gone else Gpu("H200", "575", 140 * GIB, 140 * GIB, (), 0)
    monkeypatch.setattr(cluster_task, "find_gpu", lambda _: Gpu("H200", "575", 1, 1, (), 0))
    monkeypatch.setattr(cluster_task, "Blame", partial(Blame, look=lambda _: seen))
    monkeypatch.setattr(cluster_task, "_told", set())
    monkeypatch.setattr(socket, "gethostname", lambda: "node3")
    checkpoint = tmp_path / "weights.pt"
    checkpoint.touch()
    cluster_task.room_for("cuda:1", str(checkpoint))
    plan = make_plan(tmp_path, cache_folder, 1)
    with WorkerPool() as pool:
        prepared = replace(prepared_by(READY, plan, pool, "cpu"), checkpoint=str(checkpoint))
    job = measure_job(plan, prepared, tmp_path, "cuda:1", plan.benchmarks)
    failure = Failure(kind="exception", message="RuntimeError: CUDA error: unknown, on cuda:0")
    failed = Failed(
        benchmark=0, failure=failure, started_at=datetime.now(UTC), duration_s=1.0, packages=("a",)
    )
    ended = Ended(cause="exit", code=0, log="printed")
    if crashes:
        ended = replace(ended, cause="signal", code=6)
    told = list(cluster_task._blamed(job, [ended] if crashes else [failed, ended]))
    assert told[-1] == ended
    if crashes and not gone:
        assert told == [ended]
        return
    (said, _) = told
    assert isinstance(said, Failed)
    text = "RuntimeError: CUDA error: unknown, on cuda:1"
    if crashes:
        text = "The process was ended by signal SIGABRT before it gave a result"
    if not gone:
        assert said == replace(failed, failure=replace(failure, message=text))
        return
    assert (said.ours, said.failure.kind, said.benchmark) == (True, "card", 0)
    assert said.failure.message == (
        f"cuda:1 of node3 has gone, which this commit was measured on ({text}). "
        "The next start tries again."
    )


def test_those_who_stand_by_at_once_are_let_in_by_one_look_at_their_card(
    tmp_path: Path, cache_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NVML may wait for seconds while processes start CUDA, and all else that a worker does."""
    looks: list[str] = []

    def look(device: str) -> Gpu:
        looks.append(device)
        return Gpu("H200", "575", 140 * GIB, 140 * GIB, (), 0)

    pool = SimpleNamespace(hold=lambda _: None, drop=lambda _: None, num_held=lambda _: 1)
    monkeypatch.setattr(cluster_task, "_glance", Glances(look))
    monkeypatch.setattr(cluster_task, "_pool", lambda *_: pool)
    monkeypatch.setitem(cluster_tenure._tenures, "ours", cluster_tenure.Tenure("lease"))
    checkpoint = tmp_path / "weights.pt"
    checkpoint.touch()
    plan = make_plan(tmp_path, cache_folder, 1)
    with WorkerPool() as own:
        prepared = prepared_by(READY, plan, own, "cpu")
    paths = cluster_task.Paths(device="cuda:1", checkpoint=str(checkpoint))
    for number in range(4):
        folder = tmp_path / str(number)
        job = measure_job(plan, prepared, folder, "cuda:1", plan.benchmarks)
        assert cluster_task.hold_job(encode(job), paths, "ours", None, False)
    assert looks == ["cuda:1"]
    assert len(cluster_tenure._tenures["ours"].seats) == 4
