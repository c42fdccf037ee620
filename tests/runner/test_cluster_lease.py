"""A Dask worker, and the card behind it, is one start's at a time."""

import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import distributed
import pytest

from tests.runner.clustered import READY, make_plan
from virnucpro_monitor.records import Failure, Outcome
from virnucpro_monitor.records.messages import Advanced, Ended, Failed, NearingEnd, PrepareJob
from virnucpro_monitor.records.progress import Progress
from virnucpro_monitor.runner import cluster_lease, cluster_pool, cluster_task
from virnucpro_monitor.runner.ahead import recall
from virnucpro_monitor.runner.client import WorkerPool
from virnucpro_monitor.runner.commits import run_commits
from virnucpro_monitor.runner.gpu import GIB, Gpu


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
