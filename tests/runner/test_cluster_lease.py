"""A Dask worker, and the card behind it, is one start's at a time."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import distributed
import pytest

from tests.runner.clustered import READY, REQUEST, make_plan
from virnucpro_monitor.records import Failure, Outcome
from virnucpro_monitor.records.messages import (
    Advanced,
    Ended,
    Failed,
    NearingEnd,
    PrepareJob,
    encode,
)
from virnucpro_monitor.records.progress import Progress
from virnucpro_monitor.runner import cluster_lease, cluster_pool, cluster_task, cluster_tenure
from virnucpro_monitor.runner.ahead import recall
from virnucpro_monitor.runner.client import WorkerPool
from virnucpro_monitor.runner.cluster_calls import workers_of
from virnucpro_monitor.runner.commits import run_commits
from virnucpro_monitor.runner.gpu import GIB, Gpu


class StandInClient:
    """A Dask client on whose leases a test says what it likes."""

    status = "running"

    def __init__(self) -> None:
        self.asked: list[str] = []  # keys of leases, oldest first
        self.left: list[str] = []
        self.say: Any = None

    def subscribe_topic(self, topic: str, handler: Any) -> None:
        self.say = lambda *word: handler((0.0, word))

    def submit(self, *_: Any, key: str, **__: Any) -> Any:
        self.asked.append(key)
        return SimpleNamespace(done=lambda: key in self.left, cancel=lambda: None)

    def run(self, _: Any, leases: list[str], **__: Any) -> dict[str, Any]:
        self.left += leases
        return {}


class Told:
    """Leases of a stand-in client, and the workers that have become ours, each time."""

    def __init__(self) -> None:
        self.client = StandInClient()
        self.ours: list[str] = []
        self.leases = cluster_lease.Leases(
            self.client, cluster_tenure, "topic", None, self.ours.append
        )

    def ask(self, address: str = "one") -> str:
        self.leases.ask(address)
        return self.client.asked[-1]


def test_a_word_may_be_said_again_and_is_taken_once() -> None:
    told = Told()
    key = told.ask()
    assert not told.leases.is_open("one")
    for _ in range(3):
        told.client.say(key, "first", "leased")
        assert told.leases.tenure_at("one") == "first"
    assert told.ours == ["one"]


def test_a_worker_that_others_wait_for_is_not_open_again_by_an_old_word() -> None:
    told = Told()
    key = told.ask()
    for word in ("leased", "wanted", "leased"):
        told.client.say(key, "first", word)
    assert not told.leases.is_open("one")
    told.leases.tend(["one"], lambda _: True)
    assert told.client.asked == [key]  # it is busy
    told.leases.tend(["one"], lambda _: False)
    told.client.say(key, "first", "leased")  # on its way while it was let go
    assert len(told.client.asked) == 2
    assert not told.leases.is_open("one")


def test_the_first_word_heard_may_be_that_others_wait() -> None:
    told = Told()
    told.client.say(told.ask(), "first", "wanted")
    assert not told.leases.is_open("one")
    told.leases.tend(["one"], lambda _: False)
    assert len(told.client.asked) == 2


def test_a_word_that_comes_after_its_worker_has_left_is_nobody_s() -> None:
    told = Told()
    key = told.ask()
    told.leases.tend([], lambda _: False)
    told.client.say(key, "first", "leased")
    assert told.ours == []
    assert not told.leases.is_open("one")
    told.ask()  # it is back
    told.client.say(key, "first", "leased")
    assert not told.leases.is_open("one")


def test_a_tenure_that_another_has_followed_stays_over() -> None:
    """Dask begins a lease anew where its worker has died, in a process that knows nothing of us."""
    told = Told()
    key = told.ask()
    for tenure in ("first", "second", "first"):
        told.client.say(key, tenure, "leased")
    assert told.leases.tenure_at("one") == "second"
    assert told.ours == ["one", "one"]  # what stood by in the first has gone
    told.leases.is_over("second")
    told.client.say(key, "second", "leased")
    assert not told.leases.is_open("one")
    told.client.say(key, "third", "leased")
    assert told.leases.tenure_at("one") == "third"


JOB = encode(
    PrepareJob(request=REQUEST, cache_folder="unused", benchmarks=(), timeout_s=60.0, num_threads=1)
)


def until(is_so: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.02)


@contextmanager
def one_card(threads: int) -> Iterator[tuple[Any, Any]]:
    """A cluster whose one worker, with one card, is in this process, and a client of it."""
    with (
        distributed.LocalCluster(
            n_workers=1, threads_per_worker=threads, processes=False, resources={"GPU": 1},
            dashboard_address=":0",
        ) as dask,
        distributed.Client(dask, set_as_default=False) as client,
    ):  # fmt: skip
        yield dask, client


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A client of a cluster whose one worker, with one card, is in this process."""

    def run(*_: Any, **__: Any) -> Iterator[Ended]:
        yield Ended(cause="exit", code=0, log="")

    monkeypatch.setattr(cluster_task, "_pool", lambda *_: SimpleNamespace(run=run))
    with one_card(threads=2) as (_, client):
        yield client


def leases_of(client: Any, topic: str) -> tuple[cluster_lease.Leases, str]:
    """The leases of a start that has asked for the one worker, and that one's address."""
    leases = cluster_lease.Leases(client, cluster_tenure, topic, {"GPU": 1.0})
    (address,) = workers_of(client) or ()
    leases.ask(address)
    return leases, address


def do_job(client: Any, tenure: str) -> list[bytes]:
    given = JOB, cluster_task.Paths(device="cpu"), None, "topic", None, tenure, tenure
    lines: list[bytes] = client.submit(cluster_task.do_job, *given, pure=False).result(timeout=30)
    return lines


def test_a_word_that_is_lost_is_said_again(card: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster_tenure, "REPEAT_S", 0.1)
    heard: list[str] = []
    take = cluster_lease.Leases._take

    def lossy(leases: Any, *word: str) -> None:
        heard.append(word[2])
        if len(heard) > 2:
            take(leases, *word)

    monkeypatch.setattr(cluster_lease.Leases, "_take", lossy)
    leases, address = leases_of(card, "lossy")
    until(lambda: leases.is_open(address))
    assert heard[:3] == ["leased"] * 3
    leases.close()


def test_a_worker_that_is_ours_before_its_lease_is_known_is_heard(
    card: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster_tenure, "REPEAT_S", 600.0)
    submit, heard = distributed.Client.submit, threading.Event()
    take = cluster_lease.Leases._take

    def late(client: Any, function: Any, *given: Any, **named: Any) -> Any:
        future = submit(client, function, *given, **named)
        if function is cluster_tenure.hold_place:
            assert heard.wait(30)
        return future

    def noted(leases: Any, *word: str) -> None:
        take(leases, *word)
        heard.set()

    monkeypatch.setattr(distributed.Client, "submit", late)
    monkeypatch.setattr(cluster_lease.Leases, "_take", noted)
    leases, address = leases_of(card, "early")
    assert leases.is_open(address)
    leases.close()


def test_a_job_begins_in_the_tenure_that_it_names_or_not_at_all(card: Any) -> None:
    """A start may take a worker for its own that has been another's for a while."""
    first, address = leases_of(card, "first")
    until(lambda: first.is_open(address))
    before = first.tenure_at(address)
    assert len(do_job(card, before)) == 1
    assert do_job(card, "") == []
    card.run(lambda: next(iter(cluster_tenure._tenures.values())).over.set())
    second, _ = leases_of(card, "second")
    until(lambda: second.is_open(address))
    assert first.tenure_at(address) == before
    assert do_job(card, before) == []
    assert not cluster_task.hold_job(JOB, cluster_task.Paths(device="cpu"), before, None, False)
    assert len(do_job(card, second.tenure_at(address))) == 1
    first.is_over(before)
    assert not first.is_open(address)
    second.close()
    first.close()
    until(lambda: not cluster_tenure._tenures)


def test_a_tenure_s_end_leaves_its_successor_s_alone(card: Any) -> None:
    """Without a card two may overlap: the first waits for what it had begun."""
    key, tenures = "virnucpro-monitor-place-", cluster_tenure._tenures
    futures = [
        card.submit(cluster_tenure.hold_place, "topic", key=f"{key}{one}", pure=False)
        for one in range(2)
    ]
    until(lambda: len(tenures) == 2)
    first = next(one for one in tenures.values() if one.lease == f"{key}0")
    first.running.add("a job")
    card.run(cluster_tenure.leave_place, [f"{key}0"])
    until(lambda: len(tenures) == 1)
    assert not futures[0].done()  # the card is not free yet
    first.running.clear()
    futures[0].result(timeout=30)
    ((name, second),) = tenures.items()
    assert second.lease == f"{key}1"
    assert cluster_tenure.tenure_of(name) is second
    card.run(cluster_tenure.leave_place, [f"{key}1"])
    futures[1].result(timeout=30)
    assert not tenures


class OnCard:
    """A worker pool whose commits near their end at once, and end when the next has begun.

    While others wait for the card none begins.
    """

    def __init__(self, num_commits: int) -> None:
        self.num_commits = num_commits
        self.running: set[str] = set()
        self.begun: list[str] = []
        self.most = 0
        self.held: set[str] = set()
        self.from_held = 0
        self.held_at_prepare = 0
        self.others_wait = False

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
            end = time.monotonic() + 3
            while len(self.begun) == place < self.num_commits and not self.others_wait:
                if time.monotonic() > end:  # it came for a place that was asked for anew meanwhile
                    break
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
    pool.others_wait = False
    return len(pool.running) + len(pool.held), len(pool.begun)


def test_a_card_s_next_commit_begins_early_and_no_foreign_task_beside_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others' tasks that ask for a card get it between two of our commits."""
    plan = make_plan(tmp_path, tmp_path / "cache", 4)
    on_card = replace(plan, request=replace(plan.request, device="cuda"))
    pool = OnCard(4)
    monkeypatch.setattr(cluster_task, "_pool", lambda *_: pool)
    monkeypatch.setattr(cluster_tenure, "TENURE_S", 0.0)
    monkeypatch.setattr(cluster_pool, "LOOK_S", 0.3)
    card = Gpu("H200", "1", 140 * GIB, 140 * GIB, (), 0)
    monkeypatch.setattr(cluster_task, "find_gpu", lambda _: card)
    monkeypatch.setattr(cluster_task, "needed_gpu_bytes", lambda _: GIB)
    monkeypatch.setattr(cluster_task, "has_room_beside", lambda *_: True)
    with one_card(threads=1) as (dask, other):
        theirs: list[Any] = []

        def progress(event: Progress) -> None:
            if event.phase == "validating" and not theirs:
                pool.others_wait = True
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
