"""What runs in a Dask worker."""

import os
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import distributed
import pytest

from tests.runner.clustered import READY, REQUEST, make_plan
from virnucpro_monitor.records.messages import PrepareJob, decode_ended, encode
from virnucpro_monitor.runner import cluster_files, cluster_lease, cluster_task, cluster_tenure
from virnucpro_monitor.runner.client import WorkerPool
from virnucpro_monitor.runner.cluster_calls import workers_of
from virnucpro_monitor.runner.dispatch import measure_job
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
