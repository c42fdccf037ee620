"""Which Dask workers measure, and how long one is waited for."""

import time
from dataclasses import replace
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tests.runner.clustered import READY, REQUEST
from virnucpro_monitor.errors import ClusterError
from virnucpro_monitor.records import Failure
from virnucpro_monitor.records.messages import Ended, Failed, PrepareJob, Ready, encode
from virnucpro_monitor.runner import cluster_pool


class StandInCluster:
    """A cluster of two Dask workers, of which the second says what a test has it say."""

    name = "Dask cluster"
    shares_folder = True

    def __init__(self, answers: dict[str, Ready]) -> None:
        self.places = dict.fromkeys(answers)
        self.left_out: list[str] = []
        self.names: list[str] = []
        self.num_awaited = len(answers)
        self._new = list(answers)
        self._answers = answers

    def submit(self, job: Any, address: str, *, name: str) -> Any:
        self.names.append(name)
        lines = [encode(self._answers[address]), encode(Ended(cause="exit", code=0, log=""))]
        return SimpleNamespace(
            key="job", status="finished", done=lambda: True, result=lambda timeout: lines
        )

    def is_cut_off(self) -> bool:
        return False

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

    def has_left(self, address: str) -> bool:
        return True

    def is_any_left(self) -> bool | None:
        return False

    def newcomers(self) -> list[str]:
        new, self._new = self._new, []
        return new

    def leave_out(self, address: str, why: str) -> None:
        self.left_out.append(f"{address}: {why}")
        self.places.pop(address)


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
        (replace(READY, weights_digest="0" * 64), 
         "its weights are 000000000000, not 111111111111 as elsewhere"),
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


def test_of_three_dask_workers_the_odd_one_is_left_out_though_it_is_the_first() -> None:
    odd = replace(READY, environment=replace(READY.environment, torch="2.10.0"))
    stand_in = StandInCluster({"tcp://a": odd, "tcp://b": READY, "tcp://c": READY})
    pool = cluster_pool.ClusterPool(cast(Any, stand_in))
    ready, _ = pool.run(PREPARE)
    pool.close()
    assert stand_in.left_out == ["tcp://a: its torch is 2.10.0, not 2.11.0 as elsewhere"]
    assert isinstance(ready, Ready)
    assert ready.environment.torch == "2.11.0"


def test_of_as_many_dask_workers_of_two_kinds_the_same_kind_measures_in_each_start() -> None:
    """Their addresses change, and a start that takes the other kind measures everything anew."""
    other = replace(READY, environment=replace(READY.environment, gpu="A100"))
    kinds: list[str | None] = []
    for first, second in ((READY, other), (other, READY)):
        stand_in = StandInCluster({"tcp://a": first, "tcp://b": second})
        pool = cluster_pool.ClusterPool(cast(Any, stand_in))
        ready, _ = pool.run(PREPARE)
        pool.close()
        assert isinstance(ready, Ready)
        assert len(stand_in.left_out) == 1
        kinds.append(ready.environment.gpu)
    assert kinds == ["H200", "H200"]


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


def test_a_start_whose_workers_have_all_gone_ends_with_a_sentence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cluster_pool, "LOOK_S", 0.01)
    monkeypatch.setattr(cluster_pool, "LOST_S", 0.1)
    stand_in = StandInCluster({"tcp://one": READY})
    waiting = SimpleNamespace(key="job", status="pending", done=lambda: False)
    monkeypatch.setattr(stand_in, "submit", lambda *_, **__: waiting)
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
    monkeypatch.setattr(stand_in, "submit", lambda *_, **__: future)
    *_, ended = cluster_pool.ClusterPool(cast(Any, stand_in)).run(PREPARE)
    assert stand_in.left_out == ["tcp://one: it has left the cluster"]
    assert ended == Ended(cause="lost", code=0, log="it has left the cluster")


@pytest.mark.parametrize(
    "trouble", [{"is_any_left": lambda: None}, {"is_cut_off": lambda: True}], ids=["silent", "cut"]
)
def test_a_start_whose_scheduler_says_nothing_more_ends_with_a_sentence(
    monkeypatch: pytest.MonkeyPatch, trouble: dict[str, Any]
) -> None:
    """Be it that it has fallen silent, or that there is another one at its address by now."""
    monkeypatch.setattr(cluster_pool, "LOOK_S", 0.01)
    monkeypatch.setattr(cluster_pool, "LOST_S", 0.1)
    stand_in = StandInCluster({"tcp://one": READY})
    for name, function in trouble.items():
        monkeypatch.setattr(stand_in, name, function)
    waiting = SimpleNamespace(key="job", status="pending", done=lambda: False)
    monkeypatch.setattr(stand_in, "submit", lambda *_, **__: waiting)
    with pytest.raises(ClusterError, match="The Dask scheduler has gone"):
        list(cluster_pool.ClusterPool(cast(Any, stand_in)).run(PREPARE))


def test_a_job_that_its_place_lets_not_begin_is_begun_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """The start has taken an old word for a new one."""
    stand_in = StandInCluster({})
    answers = [[], [encode(Ended(cause="exit", code=0, log=""))]]
    submitted: list[tuple[str, str]] = []
    refused: list[Any] = []

    def submit(_: Any, place: str, *, name: str) -> Any:
        submitted.append((place, name))
        lines = answers[len(submitted) - 1]
        return SimpleNamespace(
            key=f"job {len(submitted)}", status="finished", done=lambda: True,
            result=lambda timeout: lines,
        )  # fmt: skip

    monkeypatch.setattr(stand_in, "submit", submit)
    monkeypatch.setattr(stand_in, "open_place", lambda at: at, raising=False)
    monkeypatch.setattr(stand_in, "was_refused", refused.append, raising=False)
    pool = cluster_pool.ClusterPool(cast(Any, stand_in))
    (ended,) = pool.run(cast(Any, "a job"), at="tcp://one")
    assert ended == Ended(cause="exit", code=0, log="")
    assert submitted == [("tcp://one", ""), ("tcp://one", "job 1")]
    assert [one.key for one in refused] == ["job 1"]


@pytest.mark.parametrize(
    ("kind", "why"),
    [("card", "its card has gone"), ("weights", "its weights have changed"), ("machine", None)],
)
def test_a_dask_worker_that_can_measure_no_more_gets_no_further_commit(
    monkeypatch: pytest.MonkeyPatch, kind: str, why: str | None
) -> None:
    """Its commits would fail at once, so that all that wait would be given to it."""
    stand_in = StandInCluster({"tcp://one": READY, "tcp://two": READY})
    failure = Failure(kind=kind, message="cuda:0 of one has gone.")
    failed = Failed(
        benchmark=0, failure=failure, ours=True, started_at=datetime.now(UTC), duration_s=1.0
    )
    ended = Ended(cause="exit", code=0, log="")

    def submit(_: Any, place: str, *, name: str) -> Any:
        return SimpleNamespace(
            key=name, status="finished", done=lambda: True,
            result=lambda timeout: [encode(failed), encode(ended)],
        )  # fmt: skip

    monkeypatch.setattr(stand_in, "submit", submit)
    monkeypatch.setattr(stand_in, "open_place", lambda at: at, raising=False)
    accepted: list[Any] = []
    pool = cluster_pool.ClusterPool(cast(Any, stand_in))
    for _ in range(2):  # another one was on its way
        told = list(pool.run(cast(Any, "a job"), accepted.append, at="tcp://one"))
        assert told == [failed, ended]
    assert accepted == [failed, failed]
    assert stand_in.left_out == ([f"tcp://one: {why}"] if why else [])
    assert len(stand_in.places) == (1 if why else 2)


def test_a_worker_that_let_nothing_begin_is_prepared_once_it_is_ours_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It has come back at its old address, in a process that knows nothing of us."""
    stand_in = StandInCluster({"tcp://one": READY})
    prepare, refused = stand_in.submit, []

    def submit(job: Any, address: str, *, name: str) -> Any:
        future = prepare(job, address, name=name)
        if not refused:
            future.result = lambda timeout: []
        return future

    monkeypatch.setattr(stand_in, "submit", submit)
    monkeypatch.setattr(stand_in, "was_refused", refused.append, raising=False)
    monkeypatch.setattr(stand_in, "has_left", lambda _: False)
    new = iter([["tcp://one"], ["tcp://one"]])
    monkeypatch.setattr(stand_in, "newcomers", lambda: next(new, []))
    pool = cluster_pool.ClusterPool(cast(Any, stand_in))
    ready, ended = pool.run(PREPARE)
    pool.close()
    assert len(refused) == 1
    assert isinstance(ready, Ready)
    assert ended == Ended(cause="exit", code=0, log="")
    assert stand_in.left_out == []
    assert stand_in.names == ["", "job"]  # a place that it takes down each time is given up
