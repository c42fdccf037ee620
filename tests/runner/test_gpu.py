import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from virnucpro_monitor.runner.gpu import GIB, Glances, Gpu, count_gpus, find_gpu, wait_for_gpu

FREE = Gpu("H200", "575", 100 * GIB, 90 * GIB, (), 0)
BUSY = Gpu("H200", "575", 100 * GIB, 90 * GIB, (12345678, 12345679), 99)
FULL = Gpu("H200", "575", 100 * GIB, 1 * GIB, (), 0)


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def wait(
    states: list[Gpu | None], limit_s: float = 60.0, needed: int = 0
) -> tuple[str | None, float]:
    clock = Clock()
    left = list(states)

    def look(_: str) -> Gpu | None:
        return left.pop(0) if len(left) > 1 else left[0]

    reason = wait_for_gpu(
        "cuda:0",
        limit_s=limit_s,
        needed_bytes=needed,
        look=look,
        sleep=clock.sleep,
        clock=lambda: clock.now,
    )
    return reason, clock.now


def test_a_free_or_unknown_gpu_is_used_at_once() -> None:
    assert wait([FREE]) == (None, 0.0)
    assert wait([None]) == (None, 0.0)


def test_a_busy_gpu_is_waited_for() -> None:
    assert wait([BUSY, BUSY, FREE]) == (None, 30.0)


def test_after_the_limit_the_reason_is_told() -> None:
    reason, waited = wait([BUSY], limit_s=120.0)
    assert waited == 120.0
    assert reason == "The GPU cuda:0 was busy for 2 min: 2 other processes compute on it."


def test_too_little_memory_counts_as_busy() -> None:
    reason, _ = wait([FULL], needed=2 * GIB)
    assert reason is not None
    assert "1.0 GiB of its memory are free, 2.0 GiB are needed" in reason
    assert wait([FULL], needed=GIB // 2) == (None, 0.0)


def test_a_worker_of_our_own_is_nobody_else() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as worker:
        ours = Gpu("H200", "575", 100 * GIB, 90 * GIB, (worker.pid,), 50)
        assert ours.why_busy(0) is None
        assert ours.why_busy(0, num_processes=1) is None


def test_a_container_shows_our_workers_under_ids_of_the_host() -> None:
    assert BUSY.why_busy(0, num_processes=2) is None
    assert BUSY.why_busy(0, num_processes=1) == "1 other process computes on it"


def test_a_card_is_looked_at_once_for_commits_that_begin_together() -> None:
    now, looked = [10.0], list[str]()

    def look(device: str) -> None:
        looked.append(device)

    glances = Glances(look, fresh_s=1.0, clock=lambda: now[0])
    for device in ("cuda:0", "cuda:1", "cuda:0", "cuda:1"):
        glances(device)
    assert looked == ["cuda:0", "cuda:1"]
    now[0] += 1.1
    glances("cuda:0")
    assert looked == ["cuda:0", "cuda:1", "cuda:0"]


class Nvml:
    """A driver's NVML with three cards: two alike, and one that is lost between them."""

    class NVMLError(Exception):
        pass

    uuids = ("GPU-8932f937-d72c", "GPU-lost", "GPU-8932f999-0bb1")

    def __getattr__(self, name: str) -> Any:
        return lambda *_: SimpleNamespace(total=GIB, free=GIB, gpu=0)

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return len(self.uuids)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> str:  # noqa: N802
        if index not in (0, 2):
            raise self.NVMLError
        return self.uuids[index]

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:  # noqa: N802
        return self.nvmlDeviceGetHandleByIndex((*self.uuids, uuid).index(uuid))

    def nvmlDeviceGetUUID(self, handle: str) -> str:  # noqa: N802
        return handle

    def nvmlDeviceGetName(self, handle: str) -> str:  # noqa: N802
        return f"card {handle}"

    def nvmlSystemGetDriverVersion(self) -> str:  # noqa: N802
        return "575"

    def nvmlDeviceGetComputeRunningProcesses(self, _: str) -> list[Any]:  # noqa: N802
        return []


FIRST, _, THIRD = Nvml.uuids


@pytest.mark.parametrize(
    ("visible", "cards"),
    [
        (None, [FIRST, None, THIRD]),
        ("2,0", [THIRD, FIRST]),
        (f"{THIRD},{FIRST}", [THIRD, FIRST]),
        ("GPU-8932f99,GPU-8932f937", [THIRD, FIRST]),  # by their beginnings
        ("GPU-8932", [None]),  # of two cards
        ("0,-1,2", [FIRST]),
        ("0,", [FIRST]),
        ("0,0", []),
        ("9,0", [None, None]),  # CUDA shows none behind one that is not there
        ("", []),
    ],
)
def test_cards_are_counted_and_looked_at_as_cuda_shows_them(
    monkeypatch: pytest.MonkeyPatch, visible: str | None, cards: list[str | None]
) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", Nvml())
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert count_gpus() == len(cards)
    seen = [find_gpu(f"cuda:{place}") for place in range(len(cards) + 1)]
    names = [None if uuid is None else f"card {uuid}" for uuid in cards]
    assert [gpu and gpu.name for gpu in seen] == [*names, None]
