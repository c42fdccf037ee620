"""Processes that stand by give what fresh ones give, serve one commit, and know none before."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.runner.conftest import MakePlan
from tests.runner.tiny_target import HEALTHY, MODEL_FILE, TinyRepository
from virnucpro_monitor.errors import ProtocolError
from virnucpro_monitor.models.weights import resolve_weights
from virnucpro_monitor.records import Outcome, RunReport
from virnucpro_monitor.records.messages import Ended, Failed, Judged, MeasureJob, NearingEnd
from virnucpro_monitor.runner import crew as crew_module
from virnucpro_monitor.runner import first_passes, standby
from virnucpro_monitor.runner import workers as workers_module
from virnucpro_monitor.runner.ahead import recall, remember
from virnucpro_monitor.runner.capacity import Capacity, needed_gpu_bytes
from virnucpro_monitor.runner.cards import Card
from virnucpro_monitor.runner.checkout import Repository
from virnucpro_monitor.runner.client import WorkerPool
from virnucpro_monitor.runner.commits import run_commits
from virnucpro_monitor.runner.crew import Crew
from virnucpro_monitor.runner.decide import Work
from virnucpro_monitor.runner.dispatch import measure_job
from virnucpro_monitor.runner.gpu import GIB, Gpu
from virnucpro_monitor.runner.ledger import Ledger
from virnucpro_monitor.runner.plan import RunPlan
from virnucpro_monitor.runner.prepare import Prepared, prepare
from virnucpro_monitor.runner.seats import Seats
from virnucpro_monitor.runner.supervisor import descendants
from virnucpro_monitor.runner.worker import _load_ahead
from virnucpro_monitor.runner.workers import Workers
from virnucpro_monitor.validation import comparing, exact_model
from virnucpro_monitor.validation.oracle import prepare_oracle

HEALTHY_MODEL = HEALTHY[MODEL_FILE]


@pytest.fixture(scope="module")
def pool() -> Iterator[WorkerPool]:
    with WorkerPool() as pool:
        yield pool


@pytest.fixture
def plan(tiny: TinyRepository, make_plan: MakePlan) -> RunPlan:
    return make_plan([tiny.git("rev-parse", "HEAD")], timeout_s=60.0)


@pytest.fixture
def prepared(plan: RunPlan, pool: WorkerPool) -> Prepared:
    return prepare(plan, pool, "cpu", lambda _: None)


def test_no_commit_is_judged_by_limits_of_other_weights(plan: RunPlan, pool: WorkerPool) -> None:
    asked = plan.request
    setup = {"model": asked.model, "dtype": asked.dtype, "device": "cpu"}
    frozen = {**setup, "weights_digest": "e" * 64}
    content = {**plan.protocol.content, "calibrated": frozen}
    other = replace(plan, protocol=replace(plan.protocol, version="own", content=content))
    with pytest.raises(ProtocolError, match="Protocol own was calibrated for other weights"):
        prepare(other, pool, "cpu", lambda _: None)


def held_job(plan: RunPlan, prepared: Prepared, folder: Path) -> MeasureJob:
    return measure_job(plan, prepared, folder, "cpu", plan.benchmarks)


def server_of(pool: WorkerPool) -> int:
    assert pool._process is not None
    return pool._process.pid


def wait_for(condition: Any, timeout_s: float = 60.0) -> None:
    end = time.monotonic() + timeout_s
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)
    assert condition()


def told(report: RunReport) -> str:
    run = report.run
    return repr((run.commit.hash, run.outcome, run.culprit, run.gates, report.sequences))


@pytest.mark.usefixtures("shared_workers")
def test_commits_that_were_waited_for_give_what_fresh_ones_give(
    tiny: TinyRepository, make_plan: MakePlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashes = [
        tiny.git("rev-parse", "HEAD"),
        tiny.commit({MODEL_FILE: "import os\nprint(os.getcwd())\n" + HEALTHY_MODEL}),
        tiny.commit({MODEL_FILE: "raise RuntimeError('boom')\n" + HEALTHY_MODEL}),
        tiny.commit({MODEL_FILE: HEALTHY_MODEL + "# again\n"}),
    ]
    let_go, called = WorkerPool._let_go, []
    follow, heard_out = WorkerPool._follow, []

    def noting(self: WorkerPool, job: Any) -> Any:
        connection = let_go(self, job)
        called.append(connection is not None)
        return connection

    def following(self: WorkerPool, *arguments: Any, **named: Any) -> Any:
        heard_out.append((yield from follow(self, *arguments, **named)))
        return heard_out[-1]

    monkeypatch.setattr(WorkerPool, "_let_go", noting)
    monkeypatch.setattr(WorkerPool, "_follow", following)
    fresh = list(run_commits(make_plan(hashes, workers=1, standby=False, force=True)))
    assert not any(called)
    called.clear()
    waited_for = list(run_commits(make_plan(hashes, workers=1, force=True)))
    # The first has nobody to wait for it; after the third, which never got so far, nobody does.
    assert called[-4:] == [False, True, True, False]
    assert all(heard_out)  # none was begun anew
    assert [told(one) for one in waited_for] == [told(one) for one in fresh]
    assert "seat-" in waited_for[1].documents["output"]["text"]
    # What is kept for the start of a card is of no use to a CPU, and would look like a mark.
    assert not list(make_plan(hashes).cache_folder.glob("begun/prepared-*"))


def test_nothing_of_a_commit_is_there_before_it_is_called(
    plan: RunPlan, prepared: Prepared, pool: WorkerPool
) -> None:
    repository = plan.repository
    assert isinstance(repository, Repository)
    before = set(descendants(server_of(pool)))
    with repository.seat() as seat:
        job = held_job(plan, prepared, seat)
        pool.hold(job)
        wait_for(lambda: len(set(descendants(server_of(pool))) - before) >= 3)
        waiting = set(descendants(server_of(pool))) - before
        time.sleep(0.3)
        assert waiting <= set(descendants(server_of(pool)))
        assert not any(seat.iterdir())
        with repository.checkout(plan.commits[0].hash, seat) as (folder, _):
            assert folder == seat
            other = measure_job(plan, prepared, folder, "cpu", ())
            assert isinstance(list(pool.run(other))[-1], Ended)  # not what was held: another set
            assert pool.num_held("cpu") == 1
            *_, judged, ended = pool.run(job)
        assert isinstance(judged, Judged)
        assert judged.duration_s < 30
        assert ended == Ended(cause="exit", code=0, log=ended.log)
        assert pool.num_held("cpu") == 0
        wait_for(lambda: not waiting & set(descendants(server_of(pool))))


def test_who_died_while_waiting_costs_the_commit_nothing(
    plan: RunPlan, prepared: Prepared, pool: WorkerPool
) -> None:
    before = set(descendants(server_of(pool)))
    repository = plan.repository
    assert isinstance(repository, Repository)
    with repository.seat() as seat, repository.checkout(plan.commits[0].hash, seat):
        job = replace(held_job(plan, prepared, seat), reuse=None, probes=True)
        pool.hold(job)
        wait_for(lambda: len(set(descendants(server_of(pool))) - before) >= 3)
        for pid in set(descendants(server_of(pool))) - before:
            os.kill(pid, signal.SIGKILL)
        events = list(pool.run(job))
    assert isinstance(events[-2], Judged)
    assert NearingEnd(benchmark=len(job.benchmarks) - 1) in events[:-2]


def test_what_is_given_up_ends(plan: RunPlan, prepared: Prepared, pool: WorkerPool) -> None:
    before = set(descendants(server_of(pool)))
    repository = plan.repository
    assert isinstance(repository, Repository)
    with repository.seat() as seat:
        pool.hold(held_job(plan, prepared, seat))
        wait_for(lambda: len(set(descendants(server_of(pool))) - before) >= 3)
        pool.drop(str(seat))
        wait_for(lambda: set(descendants(server_of(pool))) <= before)
    assert pool.num_held("cpu") == 0


def test_a_commit_that_must_not_be_waited_for_is_begun_anew(
    tiny: TinyRepository, plan: RunPlan, prepared: Prepared, pool: WorkerPool
) -> None:
    """The status that a process leaves with once its commit has changed what a driver has read."""
    leaves = f"import os\nif 'seat-' in os.getcwd():\n    os._exit({standby.NEEDS_FRESH})\n"
    commit = tiny.commit({MODEL_FILE: leaves + HEALTHY_MODEL})
    repository = plan.repository
    assert isinstance(repository, Repository)
    with repository.seat() as seat, repository.checkout(commit, seat):
        job = held_job(plan, prepared, seat)
        pool.hold(job)
        events = list(pool.run(job))
    # Begun anew it does the same, and that is the commit's own affair then.
    assert not any(isinstance(event, (Judged, Failed)) for event in events)
    assert [(event.cause, event.code) for event in events if isinstance(event, Ended)] == [
        ("exit", standby.NEEDS_FRESH)
    ]


def test_a_pool_that_is_closed_begins_nothing_anew(
    tiny: TinyRepository, plan: RunPlan, prepared: Prepared
) -> None:
    commit = tiny.commit({MODEL_FILE: "import time\ntime.sleep(60)\n" + HEALTHY_MODEL})
    repository = plan.repository
    assert isinstance(repository, Repository)
    with (
        WorkerPool() as own,
        repository.seat() as seat,
        repository.checkout(commit, seat),
        ThreadPoolExecutor(1) as thread,
    ):
        job = held_job(plan, prepared, seat)
        own.hold(job)
        events = thread.submit(lambda: list(own.run(job)))
        wait_for(lambda: own.num_held("cpu") == 0)
        own.close()
        assert events.result(timeout=30) == [Ended(cause="lost", code=0, log="")]
        assert own._process is None


def test_variables_that_a_driver_reads_once_are_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    before = standby.read_at_start()
    monkeypatch.setenv("HOME", "/elsewhere")
    assert standby.read_at_start() == before
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    assert standby.read_at_start() != before


@pytest.mark.parametrize(("spare_bytes", "loads"), [(0, True), (-1, False)])
def test_a_judge_that_stands_by_loads_what_explains_a_failure_where_there_is_room(
    plan: RunPlan,
    prepared: Prepared,
    monkeypatch: pytest.MonkeyPatch,
    spare_bytes: int,
    loads: bool,
) -> None:
    job = measure_job(plan, prepared, Path("/nowhere"), "cuda:0", plan.benchmarks)
    needed_bytes = needed_gpu_bytes(Path(prepared.checkpoint))
    loaded: list[tuple[str, torch.device]] = []
    monkeypatch.setattr(
        torch.cuda, "mem_get_info", lambda _: (3 * needed_bytes + spare_bytes, 10 * needed_bytes)
    )
    monkeypatch.setattr(exact_model, "load_ahead", lambda *asked: loaded.append(asked))
    monkeypatch.setattr(comparing, "compare_ahead", lambda *_: None)
    thread = _load_ahead(job, ["oracle", "of another set"])
    assert thread is not None
    thread.join()
    assert loaded == ([("oracle", torch.device("cuda:0"))] if loads else [])


def test_a_trace_finds_the_model_that_was_loaded_ahead(
    plan: RunPlan, prepared: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    oracle = prepare_oracle(
        plan.request.model,
        resolve_weights(plan.request.model, "synthetic", cache_folder=plan.cache_folder),
        plan.benchmarks[0],
        cache_folder=plan.cache_folder,
    )
    exact_model._loaded.cache_clear()
    exact_model.load_ahead(oracle, torch.device("cpu"))
    monkeypatch.setattr(exact_model, "load_checkpoint", None)
    found = exact_model.oracle_model(oracle, torch.device("cpu"))
    assert found is not None
    assert found.model.num_layers == 6
    exact_model._loaded.cache_clear()


def test_the_word_to_go_is_a_byte_and_not_the_end_of_the_pipe() -> None:
    read, write = os.pipe()
    assert not standby.has_come(read)
    os.write(write, b"g")
    assert standby.has_come(read)
    assert standby.has_come(read)  # for each who waits
    os.read(read, 1)
    os.close(write)
    assert not standby.has_come(read)
    os.close(read)


def of_card(plan: RunPlan, cache: Path, **choices: Any) -> RunPlan:
    request = replace(plan.request, device="cuda")
    return replace(plan, request=request, cache_folder=cache, **choices)


FREE = Gpu("H200", "1", 140 * GIB, 139 * GIB, (), 0)


@pytest.mark.parametrize(
    ("second", "workers", "num_commits", "expected"),
    [
        (FREE, 3, 9, ["cuda:0", "cuda:1", "cuda:0"]),  # the first commit's card first
        (FREE, 3, 1, ["cuda:0"]),
        (FREE, 3, 0, []),
        (replace(FREE, processes=(2**30,)), 2, 9, ["cuda:0"] * 2),  # others compute there
        (None, 2, 9, ["cuda:0"] * 2),
    ],
)
def test_first_commits_are_waited_for_before_a_start_is_prepared(
    plan: RunPlan, prepared: Prepared, pool: WorkerPool, monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path, second: Gpu | None, workers: int, num_commits: int, expected: list[str],
) -> None:  # fmt: skip
    held: list[MeasureJob] = []
    monkeypatch.setattr(pool, "hold", held.append)
    on_cards = of_card(plan, tmp_path, workers=workers)
    cards = [Card(0, "cuda:0"), Card(1, "cuda:1")]
    seen = {"cuda:0": FREE, "cuda:1": second}

    def begin() -> dict[str, Gpu | None]:
        with Workers(on_cards, cards[0], pool=pool) as own:
            return own.begin_ahead(cards, num_commits, seen.get)

    assert begin() == {}  # nothing is known of such a start
    remember(on_cards, prepared)
    other = replace(on_cards, target=replace(plan.target, adapter="seed-interface+oracle=none"))
    assert recall(on_cards, pool, "cuda:0") == replace(prepared, device="cuda:0")
    assert recall(other, pool, "cuda:0") is None  # its oracle may be still to make
    assert begin() == seen
    assert [job.request.device for job in held] == expected
    # They are what the commits' jobs will be, where nothing has changed.
    assert held == [
        measure_job(on_cards, prepared, Path(job.checkout), job.request.device, plan.benchmarks)
        for job in held
    ]


@pytest.mark.parametrize("digest", ["as before", "of others"])
def test_who_was_started_for_other_weights_ends(
    plan: RunPlan, prepared: Prepared, pool: WorkerPool, monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path, digest: str,
) -> None:  # fmt: skip
    on_card = of_card(plan, tmp_path, workers=1)
    told = replace(prepared, device="cuda:0", weights_digest="as before")
    remember(on_card, told)
    dropped: list[str] = []
    monkeypatch.setattr(pool, "hold", lambda _: None)
    monkeypatch.setattr(pool, "drop", dropped.append)
    found = replace(told, weights_digest=digest)
    monkeypatch.setattr(workers_module, "prepare", lambda *_: found)
    card = Card(0, "cuda:0")
    with Workers(on_card, card, pool=pool) as own:
        own.begin_ahead([card], 1, lambda _: FREE)
        assert own.prepared(None, lambda _: None) is found
        assert len(dropped) == (digest == "of others")


def test_the_next_ones_get_ready_once_a_commit_has_loaded(
    plan: RunPlan, prepared: Prepared, pool: WorkerPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not before, when it starts on the card itself, nor only once its set is begun."""
    told: list[str] = []
    monkeypatch.setattr(workers_module, "prepare", lambda *_: prepared)
    monkeypatch.setattr(Seats, "keep_ready", lambda *_: told.append("get ready"))
    own_plan = replace(plan, standby=False)
    work = Work(commit=plan.commits[0], benchmarks=plan.benchmarks)
    ledger = Ledger((), plan.request, prepared.weights_digest, plan.protocol)
    with Workers(own_plan, Card(0, "cpu"), pool=pool) as own:
        reports = own.measure(
            work, ledger, None,  # type: ignore[arg-type]
            on_progress=lambda event: told.append(f"{event.done} of {event.total}"),
            on_nearing_end=print, say=print,
        )  # fmt: skip
        assert [report.run.outcome for report in reports] == [Outcome.PASSED]
    assert told[:2] == ["get ready", "0 of 3"]
    assert told[-1] == "3 of 3"


def test_a_card_has_as_many_places_as_before_processes_stood_by_there(
    plan: RunPlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 32)
    checkpoint = tmp_path / "checkpoint"
    checkpoint.touch()
    now = replace(FREE, free_bytes=10 * GIB)
    arguments = (of_card(plan, tmp_path), [Card(0, "cuda:0")], 3, checkpoint, print)
    assert Capacity(*arguments, look=lambda _: now).most == 1
    assert Capacity(*arguments, look=lambda _: now, before=lambda _: FREE).most > 1


def test_two_starts_do_not_wait_for_what_stands_by_for_each_other(
    plan: RunPlan, tmp_path: Path
) -> None:
    """Each has processes on the card before its first commit, as cron begins both at once."""
    checkpoint = tmp_path / "checkpoint"
    checkpoint.touch()
    on_gpu = replace(plan, request=replace(plan.request, device="cuda:0"), gpu_wait_s=0.0)
    holds = {"one": 1, "other": 1}

    def look(_: str) -> Gpu:  # a container shows ids that are none of ours
        processes = tuple(2**30 + number for number in range(2 * sum(holds.values())))
        return replace(FREE, processes=processes)

    def capacity(name: str) -> Capacity:
        return Capacity(
            on_gpu, [Card(0, "cuda:0")], 3, checkpoint, print, look=look,
            held=lambda _: holds[name], give_way=lambda: holds.update({name: 0}),
        )  # fmt: skip

    one, other = capacity("one"), capacity("other")
    assert "2 other processes compute on it" in str(one.why_not([]))
    assert holds == {"one": 0, "other": 1}  # who waits holds nothing
    assert other.why_not([]) is None
    assert holds["other"] == 1  # and who need not wait keeps it
    holds["other"] = 0
    assert capacity("one").why_not([]) is None


@pytest.mark.parametrize(
    ("device", "free_gib", "num_to_come", "num_seats"),
    [
        ("cuda:0", 140, 0, 0),
        ("cuda:0", 140, 1, 1),
        ("cuda:0", 140, 2, 2),
        ("cuda:0", 140, 9, 3),  # one for each commit that has asked, and one ahead
        ("cuda:0", 5, 3, 0),
        ("cpu", 0, 3, 1),
    ],
)
def test_those_stand_by_that_a_card_has_room_for_and_commits_come_for(
    plan: RunPlan, prepared: Prepared, monkeypatch: pytest.MonkeyPatch,
    device: str, free_gib: int, num_to_come: int, num_seats: int,
) -> None:  # fmt: skip
    held: list[MeasureJob] = []
    monkeypatch.setattr(prepared.pool, "hold", held.append)
    seats = Seats(plan, look=lambda _: Gpu("H200", "1", 140 * GIB, free_gib * GIB, (), 0))
    seats.num_to_come = num_to_come
    for _ in range(2):
        seats.keep_ready(prepared, Card(0, device))
    assert [job.request.device for job in held] == [device] * num_seats
    with ExitStack() as stack:
        taken = [seats.take(Card(0, device), stack) for _ in range(4)]
        assert list(map(str, filter(None, taken))) == [job.checkout for job in held]
    seats.close()


def test_a_commit_that_begins_finds_one_ready_and_two_that_get_ready(
    plan: RunPlan, prepared: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One commit at a time: what it takes was asked for while the third before it was measured."""
    held: list[MeasureJob] = []
    monkeypatch.setattr(prepared.pool, "hold", held.append)
    seats = Seats(plan, look=lambda _: FREE)
    seats.num_to_come = 9
    card, standing_by = Card(0, "cuda:0"), []
    with ExitStack() as stack:
        for number_taken in (0, 1, 2, 3, 4):
            assert bool(seats.take(card, stack)) is (number_taken > 0)
            seats.keep_ready(prepared, card)
            standing_by.append(len(held) - number_taken)
    assert standing_by == [2, 3, 3, 3, 3]
    seats.close()


def test_a_card_is_not_busy_with_who_stands_by(plan: RunPlan, tmp_path: Path) -> None:
    """In a container NVML tells process ids that are none of ours to see."""
    checkpoint = tmp_path / "checkpoint"
    checkpoint.touch()
    on_gpu = replace(plan, request=replace(plan.request, device="cuda:0"), gpu_wait_s=0.0)
    for held, expected in ((2, None), (1, "2 other processes compute on it")):
        processes = (2**30, 2**30 + 1, 2**30 + 2, 2**30 + 3)
        card = Gpu("H200", "1", 140 * GIB, 140 * GIB, processes, 0)
        said: list[str] = []
        capacity = Capacity(
            on_gpu, [Card(0, "cuda:0")], 3, checkpoint, said.append,
            look=lambda _, card=card: card, held=lambda _, held=held: held,
        )  # fmt: skip
        reason = capacity.why_not([])
        assert (reason is None) is (expected is None)
        assert expected is None or expected in str(reason)


@pytest.mark.parametrize(
    "device",
    [torch.device("cpu"), pytest.param(torch.device("cuda:0"), marks=pytest.mark.gpu)],
    ids=str,
)
def test_the_first_passes_leave_no_memory_and_draw_nothing(
    device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_card = device.type == "cuda"
    if not on_card:
        monkeypatch.setattr(first_passes, "_PACKED", (16,))
    drawn = torch.get_rng_state()
    if on_card:
        torch.cuda.synchronize(device)
        torch.cuda.empty_cache()  # of what the tests before this one left
        drawn_there, reserved = torch.cuda.get_rng_state(device), torch.cuda.memory_reserved(device)
    dtype = torch.float16 if on_card else torch.float32
    first_passes.run_first_passes("esm2_t6_8M_UR50D", device, dtype, lambda: False)
    assert torch.equal(torch.get_rng_state(), drawn)
    if on_card:
        assert torch.equal(torch.cuda.get_rng_state(device), drawn_there)
        assert torch.cuda.memory_reserved(device) <= reserved


IMPORTS_NOTHING = """
import sys
from virnucpro_monitor.runner.preloading import preload
preload()
import torch
from virnucpro_monitor.runner import first_passes
first_passes._PACKED = (16,)
before = set(sys.modules)
first_passes.run_first_passes(
    "esm2_t6_demo", torch.device("cpu"), torch.float32, lambda: False
)
print(sorted({name.partition(".")[0] for name in set(sys.modules) - before} - {"torch"}))
"""


def test_first_passes_import_nothing_that_a_commit_would_not() -> None:
    """It would hold the commit up, and be told as a package of its own."""
    done = subprocess.run(
        [sys.executable, "-c", IMPORTS_NOTHING], capture_output=True, text=True, check=False
    )
    assert done.stdout == "[]\n", done.stderr


def test_first_passes_end_once_the_commit_has_come(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own load what they have not, and it would wait for them."""
    passed: list[int] = []
    monkeypatch.setattr(first_passes, "_ALONE", (8, 8))
    monkeypatch.setattr(
        first_passes, "_as_packed", lambda _layer, _shape, length, *_: passed.append(length)
    )
    model, device = "esm2_t6_8M_UR50D", torch.device("cpu")
    first_passes.run_first_passes(model, device, torch.float32, lambda: len(passed) == 2)
    assert passed == list(first_passes._PACKED[:2])


def test_the_next_commit_begins_once_the_last_nears_its_end(
    plan: RunPlan, prepared: Prepared
) -> None:
    """Three are under way in one place then, and no fourth, however near its end the last is."""
    works = [
        Work(commit=plan.commits[0], benchmarks=plan.benchmarks, code_digest=str(number))
        for number in range(4)
    ]
    one = replace(plan, workers=1)
    capacity = Capacity(one, [Card(0, "cpu")], 4, Path(prepared.checkpoint), print)
    judge, end = threading.Semaphore(0), threading.Event()

    def measure(_: Work, __: Any, on_nearing_end: Any, ___: Any) -> Iterator[RunReport]:
        assert judge.acquire(timeout=10)
        on_nearing_end()
        assert end.wait(10)  # the next ones begin before this one ends
        return iter(())

    with Crew(capacity, 4, measure, end.set) as crew:
        for number, work in enumerate(works[:3]):
            assert crew.has_room_for(work)
            crew.start(number, work)
            assert not crew.has_room_for(works[3])
            judge.release()
            assert crew.next_event() == (number, crew_module.LeavesPlace())
        assert not crew.has_room_for(works[3])
        assert capacity.free_card([Card(0, "cpu")]) is None
        assert capacity.free_card([Card(0, "cpu")], [Card(0, "cpu")]) == Card(0, "cpu")
        end.set()
        assert {crew.next_event()[0] for _ in range(3)} == {0, 1, 2}
        assert not crew.active
        assert not crew.nearing_end
        assert crew.has_room_for(works[3])
