"""Heartbeats, leases, acknowledgements, judgements and bisections, alike on both databases."""

import dataclasses
import subprocess
import sys
import threading
import time
from datetime import timedelta

import pytest
from sqlalchemy import Engine

from tests.store.builders import (
    CONTENT,
    PROTOCOL,
    START,
    make_commit,
    make_figures,
    make_report,
    remove_run,
)
from virnucpro_monitor.errors import NotFoundError, StoreError
from virnucpro_monitor.records import (
    Acknowledgement,
    Bisection,
    BisectStep,
    Culprit,
    GateResult,
    Heartbeat,
    Judgement,
    Outcome,
)
from virnucpro_monitor.store.engine import open_engine
from virnucpro_monitor.store.health_reader import load_health, load_heartbeats
from virnucpro_monitor.store.notes_reader import (
    load_acknowledgements,
    load_bisections,
    load_judgements,
)
from virnucpro_monitor.store.owners import is_dead_here, new_owner
from virnucpro_monitor.store.writer import Writer


def test_a_heartbeat_keeps_the_last_exit_code(engine: Engine, writer: Writer) -> None:
    later = START + timedelta(hours=1)
    writer.heartbeat("a", "sample", "running", "commit 1", START, num_queued=4)
    writer.heartbeat("a", "sample", "finished", "4 passed", START, num_queued=0, exit_code=2)
    writer.heartbeat("a", "sample", "running", "commit 2", later)
    writer.heartbeat("b", "", "idle", "", START)
    assert load_heartbeats(engine) == [
        Heartbeat(
            host="a",
            target="sample",
            state="running",
            message="commit 2",
            at=later,
            num_queued=None,
            exit_code=2,
            finished_at=START,
        ),
        Heartbeat(host="b", target="", state="idle", message="", at=START),
    ]


def test_a_lease_has_one_owner_until_it_is_released(engine: Engine, writer: Writer) -> None:
    assert writer.acquire_lease("run", "first", 60)
    assert not writer.acquire_lease("run", "second", 60)
    assert writer.acquire_lease("another", "second", 60)
    before = {lease.name: lease for lease in load_health(engine).leases}
    assert {name: lease.owner for name, lease in before.items()} == {
        "another": "second",
        "run": "first",
    }
    assert writer.acquire_lease("run", "first", 120)  # renewed
    after = {lease.name: lease for lease in load_health(engine).leases}
    assert after["run"].expires_at > before["run"].expires_at
    assert not writer.release_lease("run", "second")
    assert writer.release_lease("run", "first")
    assert [lease.name for lease in load_health(engine).leases] == ["another"]
    assert writer.acquire_lease("run", "second", 60)


def test_a_lease_that_ran_out_is_free(writer: Writer) -> None:
    assert writer.acquire_lease("run", "dead", 0.05)
    time.sleep(0.1)
    assert writer.acquire_lease("run", "living", 60)
    assert not writer.acquire_lease("run", "dead", 60)


def test_a_lease_of_a_dead_process_of_this_host_is_free_at_once(writer: Writer) -> None:
    script = "from virnucpro_monitor.store.owners import new_owner; print(new_owner()); input()"
    other = subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert other.stdout is not None
    owner = other.stdout.readline().strip()
    assert writer.acquire_lease("run", owner, 600)
    assert not writer.acquire_lease("run", new_owner(), 600)
    other.kill()
    other.communicate()
    mine = new_owner()
    assert writer.acquire_lease("run", mine, 600)
    assert not writer.acquire_lease("run", new_owner(), 600)  # this process lives
    assert writer.release_lease("run", mine)


@pytest.mark.parametrize(
    ("place", "other"), [(0, "another-host"), (3, "1"), (4, "another-boot"), (4, "?")]
)
def test_a_lease_from_elsewhere_is_never_taken(place: int, other: str, writer: Writer) -> None:
    pieces = new_owner().split(":")
    pieces[1] = "4194304"  # no process has that
    assert is_dead_here(":".join(pieces))
    pieces[place] = other
    assert writer.acquire_lease("run", ":".join(pieces), 600)
    assert not writer.acquire_lease("run", new_owner(), 600)


def test_of_many_at_once_one_gets_the_lease(database_url: str) -> None:
    barrier = threading.Barrier(6)
    owners = []

    def try_it(owner: str) -> None:
        engine = open_engine(database_url)
        barrier.wait()
        if Writer(engine).acquire_lease("run", owner, 60):
            owners.append(owner)
        engine.dispose()

    threads = [threading.Thread(target=try_it, args=(f"runner-{i}",)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(owners) == 1


def test_two_runners_that_store_one_commit_leave_one_current_run(database_url: str) -> None:
    from virnucpro_monitor.store.reader import load_runs

    barrier = threading.Barrier(4)
    ids = []

    def store() -> None:
        engine = open_engine(database_url)
        barrier.wait()
        ids.append(Writer(engine).save_run(make_report(1)))
        engine.dispose()

    threads = [threading.Thread(target=store) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    engine = open_engine(database_url)
    assert len(ids) == 4
    assert len(load_runs(engine)) == 1
    assert sorted(run.id or 0 for run in load_runs(engine, all_attempts=True)) == sorted(ids)
    engine.dispose()


def test_acknowledgements_can_be_withdrawn(engine: Engine, writer: Writer) -> None:
    note = Acknowledgement(
        incident="sample/seed/0001",
        who="Ada",
        why="known, mended in the next release",
        scope="sample",
        created_at=START,
        expires_at=START + timedelta(days=14),
        reopen_if_worse_than=0.01,
    )
    first = writer.acknowledge(note)
    other = writer.acknowledge(dataclasses.replace(note, incident="other", expires_at=None))
    stored = load_acknowledgements(engine)
    assert stored[0] == dataclasses.replace(note, id=first)
    assert [one.id for one in stored] == [first, other]
    assert writer.withdraw_acknowledgements(note.incident, "Bob", START) == 1
    assert writer.withdraw_acknowledgements(note.incident, "Bob", START) == 0
    assert [one.id for one in load_acknowledgements(engine)] == [other]
    withdrawn = load_acknowledgements(engine, incident=note.incident, withdrawn=True)
    assert [(one.withdrawn_by, one.withdrawn_at) for one in withdrawn] == [("Bob", START)]


def test_an_acknowledgement_with_nan_is_refused(engine: Engine, writer: Writer) -> None:
    note = Acknowledgement(
        incident="x", who="Ada", why="?", created_at=START, reopen_if_worse_than=float("nan")
    )
    with pytest.raises(StoreError, match="reopen_if_worse_than of the acknowledgement is nan"):
        writer.acknowledge(note)
    assert load_acknowledgements(engine) == []


def test_a_run_can_be_judged_again(engine: Engine, writer: Writer) -> None:
    run_id = writer.save_run(make_report(1))
    strict = dataclasses.replace(
        PROTOCOL, version="2", digest="2" * 64, content={**CONTENT, "x": 1}
    )
    judgement = Judgement(
        run_id=run_id,
        protocol_version="2",
        protocol_digest=strict.digest,
        outcome=Outcome.FAILED,
        culprit=Culprit.UNPACKED,
        reason="The baseline is off.",
        figures=make_figures((1.0, 0.9, None)),
        gates=(GateResult(name="oracle", passed=False, value=2.0, limit=1.0, unit="ratio"),),
        judged_at=START,
    )
    writer.save_judgement(judgement, strict)
    assert load_judgements(engine, run_id) == [judgement]
    again = dataclasses.replace(judgement, reason="Judged once more.")
    writer.save_judgement(again, strict)
    assert load_judgements(engine, run_id) == [again]
    with pytest.raises(NotFoundError, match="no run 99"):
        writer.save_judgement(dataclasses.replace(judgement, run_id=99), strict)


def test_every_step_of_a_bisection_is_stored(engine: Engine, writer: Writer) -> None:
    run_id = writer.save_run(make_report(4))
    bisection = Bisection(
        target="sample",
        good=make_commit(0).hash,
        bad=make_commit(8).hash,
        benchmark="seed",
        gate="oracle",
        started_at=START,
    )
    steps = (
        BisectStep(step=0, commit=make_commit(4).hash, verdict="good", run_id=run_id, at=START),
        BisectStep(step=1, commit=make_commit(6).hash, verdict="skip", reused=True, at=START),
    )
    id_ = writer.start_bisection(bisection)
    for step in steps:
        writer.save_bisect_step(id_, step)
    assert load_bisections(engine, "sample") == [
        dataclasses.replace(bisection, id=id_, steps=steps)
    ]
    writer.finish_bisection(
        id_,
        first_bad=make_commit(7).hash,
        conclusion="0007 is the first bad one.",
        finished_at=START,
    )
    (found,) = load_bisections(engine, "sample")
    assert (found.first_bad, found.finished_at) == (make_commit(7).hash, START)
    remove_run(engine, run_id)
    (found,) = load_bisections(engine, "sample")
    assert [step.run_id for step in found.steps] == [None, None]
    with pytest.raises(NotFoundError, match="no bisection 99"):
        writer.finish_bisection(99, first_bad=None, conclusion="")
    with pytest.raises(NotFoundError, match="nobody"):
        writer.start_bisection(dataclasses.replace(bisection, target="nobody"))
