"""A Dask cluster gives what this host gives, once, whatever becomes of its workers."""

import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import distributed
import pytest

from tests.runner.clustered import REQUEST, make_plan
from virnucpro_monitor.data.benchmarks import load_benchmark
from virnucpro_monitor.errors import ClusterError
from virnucpro_monitor.models.weights import synthesize
from virnucpro_monitor.records import ClusterHost, Outcome, RunReport
from virnucpro_monitor.runner import cluster, cluster_calls, cluster_pool, cluster_task
from virnucpro_monitor.runner.cluster_calls import workers_of
from virnucpro_monitor.runner.commits import run_commits
from virnucpro_monitor.runner.plan import RunPlan


@pytest.fixture
def plan(tmp_path: Path, cache_folder: Path, shared_workers: None) -> RunPlan:
    """Two commits, quick to measure."""
    return make_plan(tmp_path, cache_folder, 2)


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


@pytest.mark.parametrize("address", ["another", "the same"])
def test_workers_that_come_after_all_have_gone_go_on(
    plan: RunPlan, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    monkeypatch.setattr(cluster_pool, "LOOK_S", 0.5)
    monkeypatch.setattr(cluster_pool, "LOST_S", 300.0)  # a busy host is slow to start another
    alone = replace(plan, workers=1)
    with (
        distributed.LocalCluster(
            n_workers=1, threads_per_worker=1, dashboard_address=":0",
            worker_port=port if address == "the same" else 0,
        ) as dask,
        distributed.Client(dask, set_as_default=False) as client,
    ):  # fmt: skip
        (first,) = workers_of(client) or ()
        over_dask = replace(alone, engine="dask", scheduler=dask.scheduler_address)
        reports = run_commits(over_dask)
        found = [next(reports)]
        os.kill(client.run(os.getpid)[first], signal.SIGKILL)  # and its nanny starts another
        found += reports
        assert (list(workers_of(client) or ()) == [first]) is (address == "the same")
    assert [report.run.outcome for report in found] == [Outcome.PASSED] * 2


def test_a_start_begins_though_its_worker_s_first_word_is_lost(
    plan: RunPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    subscribe, lost = distributed.Client.subscribe_topic, []

    def lossy(client: Any, topic: str, handler: Any) -> None:
        def handle(event: Any) -> None:
            if topic.startswith("virnucpro-monitor-") and "leased" in event[1] and not lost:
                lost.append(event)
            else:
                handler(event)

        subscribe(client, topic, handle)

    monkeypatch.setattr(distributed.Client, "subscribe_topic", lossy)
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=1, dashboard_address=":0"
    ) as dask:
        there, said = cover(replace(plan, commits=plan.commits[:1]), dask)
    assert lost
    assert [report.run.outcome for report in there] == [Outcome.PASSED]
    assert said == []


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


def test_a_dask_worker_of_another_version_is_left_out(
    plan: RunPlan, dask: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster_task, "source_digest", lambda: "another")
    with pytest.raises(ClusterError, match="install this version of virnucpro-monitor"):
        cover(plan, dask)


def test_cards_are_asked_for_by_their_resource(plan: RunPlan, dask: Any) -> None:
    on_cards = replace(plan, request=replace(plan.request, device="cuda"))
    with pytest.raises(ClusterError, match=r"with a card: start some, .* --resources GPU=1"):
        cover(on_cards, dask)


@pytest.mark.parametrize("device", ["cuda", "cuda:0", "cuda:1", "cuda:0,1"])
def test_a_device_s_number_is_said_not_to_count_on_a_cluster(
    plan: RunPlan, monkeypatch: pytest.MonkeyPatch, device: str
) -> None:
    """But for the one that is asked for where none is."""

    def nobody(*_: Any) -> None:
        raise ClusterError("nobody")

    monkeypatch.setattr(cluster, "connect", nobody)
    said: list[str] = []
    on_card = replace(plan, request=replace(REQUEST, device=device), scheduler="tcp://one:1")
    with pytest.raises(ClusterError, match="nobody"):
        cluster.Cluster(on_card, said.append)
    line = f"On a cluster each worker has a card: --device {device} is taken for cuda there."
    assert said == ([] if device in ("cuda", "cuda:0") else [line])


@pytest.mark.parametrize(
    ("visible", "devices"),
    [
        (None, ["cuda:0", "cuda:1"]),
        ("2,3", ["cuda:0", "cuda:1"]),
        ("2", ["cuda:0", "cuda:0"]),
        ("2,", ["cuda:0", "cuda:0"]),
    ],
)
def test_dask_workers_of_a_host_share_the_cards_that_they_see(
    plan: RunPlan, visible: str | None, devices: list[str]
) -> None:
    own = object.__new__(cluster.Cluster)
    own._plan = replace(plan, request=replace(REQUEST, device="cuda"))
    own._threads, own._cards = {}, {}
    own._present = lambda: {"tcp://one": {}, "tcp://two": {}}  # type: ignore[method-assign]
    places = [
        cluster_task.Place(address=one, host="host", sources="", visible=visible, shares=True)
        for one in ("tcp://one", "tcp://two")
    ]
    assert [own._device(place) for place in places] == devices


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


@pytest.mark.parametrize(
    ("device", "words"),
    [
        ("cpu", "has no worker: start some, as with dask worker {}."),
        (
            "cuda",
            "has no worker with a card: start some, as with dask worker {} --resources GPU=1.",
        ),
    ],
)
def test_a_cluster_without_a_worker_says_how_to_start_one(
    plan: RunPlan, device: str, words: str
) -> None:
    with distributed.LocalCluster(n_workers=0, dashboard_address=":0") as empty:
        address = empty.scheduler_address
        request = replace(plan.request, device=device)
        with pytest.raises(ClusterError) as raised:
            list(run_commits(replace(plan, request=request, engine="dask", scheduler=address)))
    assert str(raised.value) == f"The Dask cluster at {address} {words.format(address)}"


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


SCHEDULER = """
import distributed
if __name__ == "__main__":
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=1, dashboard_address=":0"
    ) as dask:
        print(dask.scheduler_address, flush=True)
        input()
"""


@pytest.fixture
def apart(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A scheduler with a worker, in a process that may be stopped, and its address."""
    script = tmp_path / "scheduler.py"
    script.write_text(SCHEDULER)
    with subprocess.Popen(
        [sys.executable, script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        yield process, process.stdout.readline().strip()
        process.send_signal(signal.SIGCONT)
        process.communicate("\n", timeout=60)


def test_a_scheduler_that_falls_silent_ends_the_start(
    plan: RunPlan, apart: tuple[subprocess.Popen[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    process, address = apart
    reports = run_commits(replace(plan, engine="dask", scheduler=address, workers=1))
    assert next(reports).run.outcome is Outcome.PASSED
    process.send_signal(signal.SIGSTOP)
    for module, name in (
        (cluster_pool, "LOST_S"), (cluster_pool, "LOOK_S"), (cluster, "CONNECT_S"),
        (cluster_calls, "CALL_S"),
    ):  # fmt: skip
        monkeypatch.setattr(module, name, 2.0)
    with pytest.raises(ClusterError, match="goes on from there"):
        list(reports)


def test_workers_that_are_looked_at_count_as_left(
    plan: RunPlan, dask: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That takes long where a host imports everything for the first time."""
    over_dask = replace(plan, engine="dask", scheduler=dask.scheduler_address)
    with closing(cluster.Cluster(over_dask, lambda _: None)) as ours:
        newcomers = dict(ours._joining)
        ours._joining.clear()
        ours._looked_at.clear()
        assert not ours.is_any_left()
        left: list[bool | None] = []

        def look(client: Any, address: str, *_: Any) -> Any:
            left.append(ours.is_any_left())
            raise ConnectionError("it has left the cluster")

        monkeypatch.setattr(cluster, "result_of", look)
        assert ours.newcomers() == []
        assert left == [True] * len(newcomers)
        assert not ours.is_any_left()


def test_a_line_to_the_scheduler_that_broke_once_is_lost(plan: RunPlan, dask: Any) -> None:
    """Dask's client finds another one, over which nothing comes of what was asked for."""
    over_dask = replace(plan, engine="dask", scheduler=dask.scheduler_address)
    with closing(cluster.Cluster(over_dask, lambda _: None)) as ours:
        assert not ours.is_cut_off()
        before = ours.client.scheduler_comm
        ours.client.loop.add_callback(before.comm.abort)
        end = time.monotonic() + 30
        while ours.client.scheduler_comm in (before, None) or ours.client.status != "running":
            assert time.monotonic() < end
            time.sleep(0.02)
        assert ours.is_cut_off()
