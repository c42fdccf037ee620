"""A card that has no memory left before any commit. The CPU stands in for cards."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.runner.conftest import MODEL, SMALL, MakePlan
from tests.runner.tiny_target import TinyRepository
from virnucpro_monitor.errors import CardMemoryError, DeviceError
from virnucpro_monitor.models import devices
from virnucpro_monitor.records import Request
from virnucpro_monitor.records.messages import PrepareJob, Refused, Said
from virnucpro_monitor.runner import worker, workers
from virnucpro_monitor.runner.cards import Card
from virnucpro_monitor.runner.client import WorkerPool
from virnucpro_monitor.runner.gpu import GIB, Gpu
from virnucpro_monitor.runner.plan import RunPlan
from virnucpro_monitor.runner.prepare import Prepared, prepare
from virnucpro_monitor.runner.workers import Workers

CARDS = (Card(0, "cuda:0"), Card(1, "cuda:1"))
FULL = "cuda:0 has no memory left to compute the oracle on: free some there, or name another card."


@pytest.mark.parametrize(
    ("error", "refused"),
    [
        (torch.OutOfMemoryError("CUDA out of memory."), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED"), True),
        (RuntimeError("CUDA error: an illegal memory access"), False),
    ],
)
def test_an_oracle_that_finds_no_memory_on_its_card_is_refused_in_a_sentence(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: Exception, refused: bool
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(devices, "checked_device", lambda _: None)
    monkeypatch.setattr(worker, "_yardstick", fail)
    request = Request(model=MODEL, weights="synthetic", device="cuda:0")
    job = PrepareJob(
        request=request, cache_folder=str(tmp_path), benchmarks=(SMALL,), timeout_s=9, num_threads=1
    )
    said: list[Said] = []
    if refused:
        worker._prepare(job, said.append)
        assert said == [Refused(error="CardMemoryError", message=FULL)]
    else:
        with pytest.raises(type(error), match="illegal memory access"):
            worker._prepare(job, said.append)


@pytest.fixture
def on_cards(tiny: TinyRepository, make_plan: MakePlan) -> RunPlan:
    plan = make_plan([tiny.git("rev-parse", "HEAD")], gpu_wait_s=0.1)
    return replace(plan, request=replace(plan.request, device="cuda:0,1"))


@pytest.fixture
def fill(monkeypatch: pytest.MonkeyPatch, on_cards: RunPlan) -> Callable[..., list[str]]:
    """Have cards without memory for so many attempts each; gives the cards that are tried."""

    def of(**attempts: int) -> list[str]:
        tried: list[str] = []

        def prepare_on_cpu(plan: RunPlan, pool: Any, device: str, *others: Any) -> Prepared:
            tried.append(device)
            if tried.count(device) <= attempts.get(device.replace(":", "_"), 0):
                raise CardMemoryError(FULL.replace("cuda:0", device))
            on_cpu = replace(plan, request=replace(plan.request, device="cpu"))
            return prepare(on_cpu, pool, "cpu", *others)

        monkeypatch.setattr(workers, "prepare", prepare_on_cpu)
        return tried

    return of


@pytest.fixture
def pool() -> Iterator[WorkerPool]:
    with WorkerPool() as pool:
        yield pool


def set_up(plan: RunPlan, pool: WorkerPool, said: list[str]) -> None:
    first, *others = CARDS
    with Workers(plan, first, pool=pool, others=others, say=said.append) as own:
        own.prepared(None, lambda _: None)


@pytest.mark.usefixtures("shared_workers")
def test_what_finds_no_memory_on_the_first_card_is_computed_on_the_next(
    on_cards: RunPlan, fill: Callable[..., list[str]], pool: WorkerPool
) -> None:
    tried, said = fill(cuda_0=9), list[str]()
    set_up(on_cards, pool, said)
    assert (tried, said) == (["cuda:0", "cuda:1"], [])


@pytest.mark.parametrize("frees", [True, False])
def test_where_all_cards_are_full_one_is_waited_for(
    on_cards: RunPlan,
    fill: Callable[..., list[str]],
    pool: WorkerPool,
    monkeypatch: pytest.MonkeyPatch,
    frees: bool,
) -> None:
    tried, said = fill(cuda_0=1, cuda_1=9), list[str]()
    free_gib = {"cuda:0": [0, 30 if frees else 0], "cuda:1": [1, 1, 1]}

    def look(device: str) -> Gpu:
        left = free_gib[device]
        free = left.pop(0) if len(left) > 1 else left[0]
        return Gpu("H200", "575", 140 * GIB, free * GIB, (), 0)

    monkeypatch.setattr(workers, "find_gpu", look)
    why = "1.0 GiB of its memory are free, 2.0 GiB are needed."
    if frees:
        set_up(on_cards, pool, said)
        assert tried == ["cuda:0", "cuda:1", "cuda:0"]
    else:
        with pytest.raises(DeviceError) as raised:
            set_up(on_cards, pool, said)
        full = FULL.replace("cuda:0", "cuda:1")
        assert str(raised.value) == f"The GPU cuda:0,1 is busy: {why} {full}"
        assert tried == ["cuda:0", "cuda:1"]
    assert said == [f"Waiting for cuda:0,1: {why}"]
