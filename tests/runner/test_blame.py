"""Whose doing a failure on a card was. The CPU stands in for the card."""

import os
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.runner.conftest import MakePlan
from tests.runner.tiny_target import HEALTHY, MODEL_FILE, TinyRepository
from virnucpro_monitor.records import Failure, Outcome, RunReport
from virnucpro_monitor.records.messages import Ended, Failed, MeasureJob
from virnucpro_monitor.runner import commits, dispatch, workers
from virnucpro_monitor.runner.blame import CARD_GONE, CARD_UNUSABLE, Blame, Strikes
from virnucpro_monitor.runner.cards import Card
from virnucpro_monitor.runner.client import WorkerPool
from virnucpro_monitor.runner.commits import run_commits
from virnucpro_monitor.runner.decide import Work
from virnucpro_monitor.runner.gpu import GIB, Gpu
from virnucpro_monitor.runner.plan import RunPlan
from virnucpro_monitor.runner.prepare import Prepared, prepare

THERE = Gpu("H200", "575", 100 * GIB, 90 * GIB, (), 0)


def failed(kind: str, message: str, *, ours: bool = False) -> Failed:
    failure = Failure(kind=kind, message=message, traceback="there")
    return Failed(
        benchmark=0, failure=failure, ours=ours, started_at=datetime.now(UTC), duration_s=1.0
    )


def filled(others_gib: int, processes: tuple[int, ...]) -> Gpu:
    held = (20 * GIB, *[others_gib * GIB] * (len(processes) - 1))
    return Gpu("H200", "575", 100 * GIB, 0, processes, 0, held)


@pytest.mark.parametrize(
    ("gpu", "blamed"),
    [
        (filled(79, (os.getpid(), 12345678)), True),  # 21 GiB are left to us
        (filled(70, (os.getpid(), 12345678)), False),  # the commit took more than it is given
        (filled(79, (os.getpid(),)), False),
        (filled(79, (12345677, 12345678)), False),  # a container: nobody knows who is who
        (None, False),
    ],
)
def test_who_fills_a_card_in_mid_run_is_blamed_for_it(
    tmp_path: Path, gpu: Gpu | None, blamed: bool
) -> None:
    checkpoint = tmp_path / "weights.pt"
    with checkpoint.open("wb") as file:
        file.truncate(4 * GIB)  # it is given 4 x (4 + 2) GiB
    event = failed("out_of_memory", "CUDA out of memory.")
    told = Blame("cuda:0", checkpoint, told=False, look=lambda _: gpu).of(event)
    assert (told.ours, told.failure.kind == "machine") == (blamed, blamed)
    assert told.failure.traceback == "there"
    if blamed:
        assert "other processes hold 79.0 of its 100.0 GiB" in told.failure.message
    else:
        assert told == event
    assert Blame("cpu", checkpoint, told=False, look=lambda _: gpu).of(event) == event


GONE = (
    "cuda:1 has gone, which this commit was measured on (RuntimeError: CUDA error: unspecified "
    "launch failure). The next start tries again."
)
KEPT = (
    "cuda:1 cannot be used (RuntimeError: No CUDA GPUs are available). The next start tries again."
)


@pytest.mark.parametrize(
    ("gpu", "told", "event", "message"),
    [
        (None, True, failed("exception", "RuntimeError: CUDA error: unspecified launch failure"),
         GONE),
        (None, False, failed("exception", "RuntimeError: CUDA error: unspecified launch failure"),
         None),  # NVML is missing
        (THERE, True, failed("exception", "RuntimeError: CUDA error: unspecified launch failure"),
         None),
        (None, True, failed("import", "No module named 'a'"), None),
        (THERE, True, failed("machine", "RuntimeError: No CUDA GPUs are available", ours=True),
         KEPT),
        (THERE, True, failed("machine", "OSError: [Errno 28] No space left on device", ours=True),
         None),
    ],
)  # fmt: skip
def test_a_card_that_has_gone_or_is_kept_by_others_is_named(
    tmp_path: Path, gpu: Gpu | None, told: bool, event: Failed, message: str | None
) -> None:
    found = Blame("cuda:1", tmp_path, told=told, look=lambda _: gpu).of(event)
    if message is None:
        assert found == event
    else:
        kind = CARD_GONE if message == GONE else CARD_UNUSABLE
        failure = replace(event.failure, kind=kind, message=message)
        assert found == replace(event, ours=True, failure=failure)


@pytest.mark.usefixtures("shared_workers")
@pytest.mark.parametrize("crashes", [False, True])
@pytest.mark.parametrize("gone", [False, True])
def test_a_commit_whose_card_goes_is_tried_again_by_the_next_start(
    tiny: TinyRepository,
    make_plan: MakePlan,
    monkeypatch: pytest.MonkeyPatch,
    crashes: bool,
    gone: bool,
) -> None:
    plan = make_plan([tiny.git("rev-parse", "HEAD")], standby=False)
    on_card = replace(plan, request=replace(plan.request, device="cuda:1"))
    run = WorkerPool.run

    def prepare_on_cpu(_: RunPlan, pool: Any, device: str, *others: Any) -> Prepared:
        prepared = prepare(plan, pool, "cpu", *others)
        told = replace(prepared.surroundings.environment, gpu="H200")
        return replace(prepared, surroundings=replace(prepared.surroundings, environment=told))

    def fails(self: WorkerPool, job: Any, *others: Any, **named: Any) -> Iterator[Any]:
        if not isinstance(job, MeasureJob):
            yield from run(self, job, *others, **named)
        elif crashes:
            yield Ended(cause="signal", code=6, log="")
        else:
            yield failed("exception", "RuntimeError: CUDA error: unspecified launch failure")
            yield Ended(cause="exit", code=0, log="")

    monkeypatch.setattr(workers, "prepare", prepare_on_cpu)
    monkeypatch.setattr(WorkerPool, "run", fails)
    look = partial(Blame, look=lambda _: None if gone else THERE)
    monkeypatch.setattr(dispatch, "Blame", look)
    (report,) = run_commits(on_card)
    said = "The process was ended by signal SIGABRT before it gave a result."
    if not crashes:
        said = "RuntimeError: CUDA error: unspecified launch failure"
    assert report.failure is not None
    if gone:
        assert (report.run.outcome, report.failure.kind) == (Outcome.NOT_RUN, CARD_GONE)
        assert report.run.reason == (
            f"cuda:1 has gone, which this commit was measured on ({said.rstrip('.')}). "
            "The next start tries again."
        )
    else:
        assert (report.run.outcome, report.run.reason) == (Outcome.ERROR, said)


def test_a_card_is_left_out_after_two_commits_without_a_verdict_between() -> None:
    one, two = Card(0, "cuda:0"), Card(1, "cuda:1")
    unusable, other = (Failure(kind=kind, message="") for kind in (CARD_UNUSABLE, "import"))
    strikes = Strikes()
    told = [
        strikes.is_out(one, "a", unusable),
        strikes.is_out(one, "a", unusable),  # its second set
        strikes.is_out(two, "b", unusable),
        strikes.is_out(one, "c", None),  # a verdict
        strikes.is_out(one, "d", unusable),
        strikes.is_out(one, "e", other),
    ]
    assert told == [False] * 6
    assert strikes.is_out(one, "f", unusable)
    assert strikes.is_out(one, "g", unusable)  # it was on its way


@pytest.mark.usefixtures("shared_workers")
@pytest.mark.parametrize("num_cards", [1, 2])
def test_a_card_that_cannot_be_used_does_not_take_all_commits(
    tiny: TinyRepository, make_plan: MakePlan, monkeypatch: pytest.MonkeyPatch, num_cards: int
) -> None:
    """It fails each at once, and so would be the one that is free."""
    hashes = [tiny.commit({MODEL_FILE: f"{HEALTHY[MODEL_FILE]}# {it}\n"}) for it in range(5)]
    (healthy,) = run_commits(make_plan(hashes[:1]))
    plan = make_plan(hashes, workers=num_cards)
    on_cards = replace(plan, request=replace(plan.request, device="cuda:0,1"))
    monkeypatch.setattr(
        workers, "prepare", lambda _, pool, device, *others: prepare(plan, pool, "cpu", *others)
    )
    cards = (Card(0, "cuda:0"), Card(1, "cuda:1"))[-num_cards:]
    monkeypatch.setattr(commits, "find_cards", lambda *_: cards)
    used: list[str] = []

    def measure(_: Any, work: Work, *__: object, **___: object) -> Iterator[RunReport]:
        assert work.card is not None
        used.append(work.card.device)
        run, failure = replace(healthy.run, commit=work.commit), None
        if work.card.device == "cuda:1":
            failure = Failure(kind=CARD_UNUSABLE, message=KEPT)
            run = replace(run, outcome=Outcome.NOT_RUN)
        else:
            time.sleep(0.2)
        yield replace(healthy, run=run, failure=failure)

    monkeypatch.setattr(workers.Workers, "measure", measure)
    said: list[str] = []
    reports = list(run_commits(on_cards, on_message=said.append))
    if num_cards == 2:
        assert used.count("cuda:1") == 2
        assert said == ["cuda:1 cannot be used: going on without it."]
        assert sum(report.run.outcome is Outcome.PASSED for report in reports) == 3
    else:
        assert (used, said) == (["cuda:1"] * 5, [])
