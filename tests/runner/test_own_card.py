"""A process that measures sees its own card alone; what is told and stored names the user's."""

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tests.runner.conftest import MODEL, MakePlan
from tests.runner.tiny_target import HEALTHY, MODEL_FILE, TinyRepository
from virnucpro_monitor.errors import DeviceError
from virnucpro_monitor.records import Failure, Outcome, Request
from virnucpro_monitor.records.messages import (
    DescribeJob,
    Ended,
    Failed,
    MeasureJob,
    PrepareJob,
    decode_job,
)
from virnucpro_monitor.runner import gpu, isolating, workers
from virnucpro_monitor.runner.client import WorkerPool
from virnucpro_monitor.runner.commits import run_commits
from virnucpro_monitor.runner.confined_cuda import Found
from virnucpro_monitor.runner.dispatch import measure_job
from virnucpro_monitor.runner.gpu import find_gpu
from virnucpro_monitor.runner.own_card import on_own_card, own_card
from virnucpro_monitor.runner.plan import RunPlan
from virnucpro_monitor.runner.prepare import Prepared, prepare

SetVisible = Callable[[str | None], dict[str, str]]


@pytest.fixture
def set_visible(monkeypatch: pytest.MonkeyPatch) -> SetVisible:
    """Give this process an environment of its own, with `CUDA_VISIBLE_DEVICES` as asked."""

    def give(visible: str | None) -> dict[str, str]:
        others = {name: it for name, it in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"}
        own = others if visible is None else {**others, "CUDA_VISIBLE_DEVICES": visible}
        monkeypatch.setattr(os, "environ", own)
        return own

    return give


@pytest.mark.parametrize(
    ("visible", "device", "own"),
    [
        (None, "cuda:1", "1"),
        (None, "cuda", "0"),
        ("2,3", "cuda:1", "3"),
        ("GPU-8932f937, GPU-d72cf5b1", "cuda:1", "GPU-d72cf5b1"),
        ("MIG-1234,MIG-5678", "cuda:0", "MIG-1234"),
        ("2,3", "cuda:2", ""),
        (" 2 , 03", "cuda:1", "3"),
        ("2,3,", "cuda:2", ""),
        ("2,-1,3", "cuda:1", ""),
        ("2,-1,3", "cuda:2", ""),
        ("2,GPU-8932f937,3", "cuda:2", ""),
        ("GPU-8932f937,MIG-1234", "cuda:1", ""),
        ("2,2", "cuda:0", ""),
        ("NoDevFiles", "cuda:0", ""),
        ("", "cuda:0", ""),
    ],
)
def test_a_card_is_the_one_that_was_meant_among_those_visible(
    set_visible: SetVisible, visible: str | None, device: str, own: str
) -> None:
    set_visible(visible)
    assert own_card(device) == {"CUDA_VISIBLE_DEVICES": own}
    assert own_card("cpu") == {}


def job_on(device: str, kind: type[MeasureJob | DescribeJob], **fields: Any) -> Any:
    common = {"cache_folder": "/cache", "timeout_s": 60.0, "num_threads": 1}
    request = Request(model=MODEL, weights="synthetic", device=device)
    return kind(request=request, python=sys.executable, **common, **fields)


@pytest.mark.parametrize("visible", [None, "0,5"])
def test_a_process_on_its_own_card_has_another_job_and_the_same_card(
    set_visible: SetVisible, monkeypatch: pytest.MonkeyPatch, visible: str | None
) -> None:
    class Nvml:
        """Names each card by how it was asked for."""

        NVMLError = ZeroDivisionError

        def __getattr__(self, name: str) -> Any:
            return lambda *_: SimpleNamespace(total=1, free=1, gpu=0)

        def nvmlDeviceGetHandleByIndex(self, index: int) -> str:  # noqa: N802
            return f"card {index}"

        def nvmlDeviceGetName(self, handle: str) -> str:  # noqa: N802
            return handle

        def nvmlSystemGetDriverVersion(self) -> str:  # noqa: N802
            return "575"

        def nvmlDeviceGetComputeRunningProcesses(self, _: str) -> list[Any]:  # noqa: N802
            return []

    monkeypatch.setitem(sys.modules, "pynvml", Nvml())
    place = set_visible(visible)
    before = dict(place)
    asked = job_on("cuda:1", DescribeJob)
    seen = find_gpu("cuda:1")
    assert seen is not None
    assert seen.name == ("card 1" if visible is None else "card 5")
    job = on_own_card(asked)
    assert job == replace(asked, request=replace(asked.request, device="cuda:0"))
    assert find_gpu(job.request.device) == seen
    assert find_gpu("cuda:1") is None
    assert {name for name in place if place[name] != before.get(name)} == {"CUDA_VISIBLE_DEVICES"}


def test_who_prepares_or_measures_on_a_cpu_stays_as_he_is(set_visible: SetVisible) -> None:
    place = set_visible("2,3")
    before = dict(place)
    preparing = PrepareJob(
        request=Request(model=MODEL, weights="synthetic", device="cuda:1"),
        cache_folder="/cache", benchmarks=(), timeout_s=60.0, num_threads=1,
    )  # fmt: skip
    for job in (preparing, job_on("cpu", DescribeJob)):
        assert on_own_card(job) is job
    assert place == before


_TELLS = """#!/bin/sh
cat
echo
echo "sees $CUDA_VISIBLE_DEVICES by $CUDA_DEVICE_ORDER"
"""


@pytest.fixture
def teller(tmp_path: Path) -> str:
    """An interpreter that prints its job and which cards it sees, and ends."""
    path = tmp_path / "python"
    path.write_text(_TELLS)
    path.chmod(0o755)
    return str(path)


@pytest.fixture(params=[True, False], ids=["forked", "spawned"])
def pool(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[WorkerPool]:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-8932f937,GPU-d72cf5b1")
    monkeypatch.delenv("CUDA_DEVICE_ORDER", raising=False)
    with WorkerPool(fork=request.param) as pool:
        yield pool


def test_each_job_s_processes_see_their_own_card(
    tiny: TinyRepository, make_plan: MakePlan, pool: WorkerPool, teller: str
) -> None:
    plan = make_plan([tiny.git("rev-parse", "HEAD")])
    prepared = prepare(plan, pool, "cpu", lambda _: None)
    measuring = measure_job(plan, prepared, tiny.folder, "cuda:1", plan.benchmarks)
    describing = job_on("cuda:1", DescribeJob)
    for asked in (measuring, describing):
        asked = replace(asked, python=teller, confine=False)
        *_, ended = pool.run(asked)
        assert isinstance(ended, Ended)
        job, sees, *_ = (line for line in ended.log.splitlines() if line)
        assert sees == "sees GPU-d72cf5b1 by PCI_BUS_ID"
        assert decode_job(job.encode()) == replace(
            asked, request=replace(asked.request, device="cuda:0")
        )


def test_one_card_that_starts_under_confinement_speaks_for_all(
    set_visible: SetVisible, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that does not start may not be there, and says nothing of the others."""
    tried: list[str] = []

    def trying(*_: Any, variables: Mapping[str, str], **__: Any) -> Any:
        card = variables["CUDA_VISIBLE_DEVICES"]
        tried.append(card)
        return SimpleNamespace(found=lambda: Found(starts=card != "7"))

    for name, value in (("_trial", None), ("_confined_cuda", None), ("_tried", set())):
        monkeypatch.setattr(isolating, name, value)
    monkeypatch.setattr(isolating, "try_confined", trying)
    set_visible("7,8,9")
    jobs = [SimpleNamespace(
        request=SimpleNamespace(device=f"cuda:{place}"),
        confine=True, network=False, cache_folder="/cache", hidden=(),
    ) for place in range(3)]  # fmt: skip
    begin, wait = isolating.begin_trial, isolating.wait_for_trial
    for job in (jobs[0], jobs[0]):
        begin(job)  # type: ignore[arg-type]
        wait(job)  # type: ignore[arg-type]
    assert isolating._confined_cuda == Found(starts=False)
    begin(jobs[0])  # type: ignore[arg-type]
    isolating._tried.clear()
    begin(jobs[0])  # type: ignore[arg-type]
    wait(jobs[1])  # type: ignore[arg-type]  # it came while another card was tried
    begin(jobs[2])  # type: ignore[arg-type]
    wait(jobs[2])  # type: ignore[arg-type]
    assert isolating._confined_cuda == Found(starts=True)
    assert tried == ["7", "7", "8"]


@pytest.mark.usefixtures("shared_workers")
def test_a_failure_names_the_card_that_was_asked_for(
    tiny: TinyRepository, make_plan: MakePlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = make_plan([tiny.git("rev-parse", "HEAD")], standby=False)
    on_card = replace(plan, request=replace(plan.request, device="cuda:1"))
    run = WorkerPool.run

    def prepare_on_cpu(_: RunPlan, pool: Any, device: str, *others: Any) -> Prepared:
        assert device == "cuda:1"
        return prepare(plan, pool, "cpu", *others)

    def fails(self: WorkerPool, job: Any, *others: Any, **named: Any) -> Iterator[Any]:
        if not isinstance(job, MeasureJob):
            yield from run(self, job, *others, **named)
            return
        said = "OutOfMemoryError: CUDA out of memory. GPU 0 has a total capacity of 139.80 GiB."
        failure = Failure(kind="out_of_memory", message=said)
        yield Failed(benchmark=0, failure=failure, started_at=datetime.now(UTC), duration_s=1.0)
        yield Ended(cause="exit", code=0, log="")

    monkeypatch.setattr(workers, "prepare", prepare_on_cpu)
    monkeypatch.setattr(WorkerPool, "run", fails)
    (report,) = run_commits(on_card)
    told = "OutOfMemoryError: CUDA out of memory. GPU 1 has a total capacity of 139.80 GiB."
    assert report.failure == Failure(kind="out_of_memory", message=told)
    assert (report.run.reason, report.run.configuration.device) == (told, "cuda")


_TELLS_ITS_CARDS = """
import torch
print("sees", torch.cuda.device_count(), torch.cuda.get_device_properties(0).uuid)
"""
_NAMES_NO_CARD = _TELLS_ITS_CARDS + HEALTHY[MODEL_FILE].replace(
    ".to(device)", ".to('cuda')"
).replace("dtype=torch.long)", "dtype=torch.long, device='cuda')")


@pytest.mark.gpu
@pytest.mark.parametrize("standby", [False, True], ids=["fresh", "stood by"])
def test_a_start_on_the_last_card_measures_there_and_says_so(
    tiny: TinyRepository, make_plan: MakePlan, standby: bool
) -> None:
    """Each process sees that one alone: so a commit that names no card runs where it was sent."""
    import pynvml

    last = torch.cuda.device_count() - 1
    hashes = [tiny.commit({MODEL_FILE: f"{_NAMES_NO_CARD}# {number}\n"}) for number in range(2)]
    request = Request(model=MODEL, weights="synthetic", device=f"cuda:{last}")
    plan = make_plan(hashes, request=request, standby=standby, workers=1, gpu_wait_s=0.0)
    reports = list(run_commits(plan))
    pynvml.nvmlInit()
    try:
        handle = gpu._handle(pynvml, last)
        uuid = gpu._text(pynvml.nvmlDeviceGetUUID(handle)).removeprefix("GPU-")
        name = gpu._text(pynvml.nvmlDeviceGetName(handle))
    finally:
        pynvml.nvmlShutdown()
    for report in reports:
        assert report.run.outcome is Outcome.PASSED
        assert f"sees 1 {uuid}" in report.documents["output"]["text"].splitlines()
        assert report.run.configuration.device == "cuda"
        assert report.run.environment is not None
        assert report.run.environment.gpu == name


@pytest.mark.gpu
def test_a_card_that_is_not_there_is_named_beside_those_that_are(
    tiny: TinyRepository, make_plan: MakePlan
) -> None:
    count = torch.cuda.device_count()
    request = Request(model=MODEL, weights="synthetic", device=f"cuda:{count}")
    with pytest.raises(DeviceError, match=f"There is no cuda:{count}: PyTorch sees {count} CUDA"):
        list(run_commits(make_plan([tiny.git("rev-parse", "HEAD")], request=request)))
