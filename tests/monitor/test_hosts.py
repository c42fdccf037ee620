"""Where the work is: what was measured on which card, and how this host's cards are now."""

import os
import socket
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.store.builders import BENCHMARK, TARGET, make_environment, make_report
from virnucpro_monitor.cli.status import describe_status
from virnucpro_monitor.monitor.hosts import load_hosts
from virnucpro_monitor.monitor.status import load_status
from virnucpro_monitor.records import ClusterHost, HostCards, WorkHost
from virnucpro_monitor.runner.gpu import GIB, Gpu
from virnucpro_monitor.store.engine import Engine, ensure_database, open_engine
from virnucpro_monitor.store.writer import Writer

NOW = datetime.now(UTC)
HERE = socket.gethostname()
CARDS = {
    "cuda:0": Gpu("H200", "575", 140 * GIB, 1 * GIB, (1,), 90),
    "cuda:1": Gpu("H200", "575", 140 * GIB, 140 * GIB, (), 30),
    "cuda:2": Gpu("A100", "575", 80 * GIB, 80 * GIB, (), None),
}


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    """Two commits of 3 s and 5 s on this host's H200, one of 60 s on the CPU of another."""
    url = f"sqlite:///{tmp_path / 'monitor.db'}"
    ensure_database(url)
    engine = open_engine(url)
    writer = Writer(engine)
    writer.save_target(TARGET)
    for number, host, gpu, duration_s in (
        (0, HERE, "H200", 3.0), (1, HERE, "H200", 5.0), (2, "far", None, 60.0),
    ):  # fmt: skip
        report = make_report(number)
        run = replace(
            report.run,
            environment=make_environment(host=host, gpu=gpu),
            duration_s=duration_s,
            started_at=NOW - timedelta(days=3 - number),
        )
        writer.save_run(replace(report, run=run))
    writer.heartbeat(HERE, TARGET.name, "running", "at work", num_queued=7)
    writer.heartbeat("idle", TARGET.name, "finished", "done", num_queued=0)
    return engine


def test_hosts_say_their_queue_their_cards_and_what_a_commit_costs(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "getloadavg", lambda: (2.0, 0.0, 0.0))
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    far, here, idle = load_hosts(engine, TARGET.name, look=CARDS.get, count=lambda: 3)
    assert (here.host, here.is_here, here.num_queued) == (HERE, True, 7)
    assert here.cards == (
        HostCards(card="H200", num_cards=2, utilisation=60, num_commits=2,
                  seconds_per_commit=4.0, last_at=NOW - timedelta(days=2)),
        HostCards(card="", num_cards=1, utilisation=50),
        HostCards(card="A100", num_cards=1),
    )  # fmt: skip
    assert (far.host, far.is_here, far.num_queued) == ("far", False, None)
    assert [(one.card, one.num_cards, one.seconds_per_commit) for one in far.cards] == [
        ("", None, 60.0)
    ]
    assert (idle.host, idle.num_queued, idle.cards) == ("idle", 0, ())
    assert load_hosts(engine, "another target", look=CARDS.get, count=lambda: 3) == ()


def test_commits_that_were_measured_at_once_share_the_time(engine: Engine) -> None:
    for number, started_s, duration_s in (
        (3, 0.0, 4.0),
        (4, 2.0, 4.0),
        (5, 3.0, 1.0),
        (6, 9.0, 4.0),
    ):
        report = make_report(number)
        started_at = NOW - timedelta(hours=1) + timedelta(seconds=started_s)
        run = replace(
            report.run,
            environment=make_environment(host="four at once", gpu="H200"),
            duration_s=duration_s,
            started_at=started_at,
        )
        Writer(engine).save_run(replace(report, run=run))
    (found,) = (one for one in load_hosts(engine, TARGET.name) if one.host == "four at once")
    (card,) = found.cards  # from 0 to 6 s and from 9 to 13 s: 10 s for 4 commits
    assert (card.num_commits, card.seconds_per_commit) == (4, 2.5)
    assert card.last_at == NOW - timedelta(hours=1) + timedelta(seconds=9)


def test_a_cluster_has_its_runner_s_queue_and_its_hosts_while_that_is_at_work(
    engine: Engine,
) -> None:
    writer = Writer(engine)
    members = (
        ClusterHost(host="node1", card="", num_workers=2, utilisation=93),
        ClusterHost(host="node2", card="H200", num_workers=4),
    )
    writer.heartbeat("head", TARGET.name, "running", "at work", num_queued=3, cluster=members)

    def found() -> dict[str, WorkHost]:
        return {host.host: host for host in load_hosts(engine, TARGET.name, look=CARDS.get)}

    *_, one, two = found().values()
    cluster = found()["Dask cluster"]
    assert (cluster.host, cluster.num_queued, cluster.cards) == ("Dask cluster", 3, ())
    assert (one.host, one.cards) == (
        "Dask cluster: node1", (HostCards(card="", num_cards=1, utilisation=93),)
    )  # fmt: skip
    assert (two.host, two.cards) == (
        "Dask cluster: node2", (HostCards(card="H200", num_cards=4),)
    )  # fmt: skip
    assert [one.is_here, two.is_here] == [False, False]
    long_ago = NOW - timedelta(hours=2)  # a runner that was killed says "running" for ever
    writer.heartbeat("head", TARGET.name, "running", "", long_ago, num_queued=3, cluster=members)
    assert (found()["Dask cluster"], one.host in found()) == (cluster, False)
    writer.heartbeat("head", TARGET.name, "finished", "done", num_queued=0, cluster=members)
    assert found()["Dask cluster"] == replace(cluster, num_queued=0)
    assert [name for name in found() if name.startswith("Dask cluster: ")] == []


def test_a_card_that_has_gone_since_is_told_and_status_shows_it_in_a_line(engine: Engine) -> None:
    (here,) = (one for one in load_hosts(engine, look=lambda _: None) if one.is_here)
    assert [(one.card, one.num_cards) for one in here.cards] == [("H200", 0), ("", 1)]
    lines = describe_status(load_status(engine, TARGET))
    assert "host        far: CPU, 60.0 s a commit" in lines
    (line,) = (line for line in lines if HERE in line)
    assert "7 commits waiting; H200" in line
    assert "4.0 s a commit" in line
    assert BENCHMARK.name not in line
