"""Whose doing a failure on a card was. The CPU stands in for the card."""

import os
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.runner.conftest import MakePlan
from tests.runner.tiny_target import TinyRepository
from virnucpro_monitor.records import Failure, Outcome
from virnucpro_monitor.records.messages import Ended, Failed, MeasureJob
from virnucpro_monitor.runner import dispatch, workers
from virnucpro_monitor.runner.blame import CARD_GONE, Blame
from virnucpro_monitor.runner.client import WorkerPool
from virnucpro_monitor.runner.commits import run_commits
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
        kind = CARD_GONE if message == GONE else "machine"
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
