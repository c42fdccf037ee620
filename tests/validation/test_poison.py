"""Memory that nobody wrote shows NaN, and afterwards is left alone again."""

import sys

import pytest
import torch

from virnucpro_monitor.validation.poison import poisoned, zeroed

CPU = torch.device("cpu")
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="takes glibc")


@pytest.mark.parametrize("elements", [300, 5_000, 3_000_000])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_what_is_not_written_holds_nan(elements: int, dtype: torch.dtype) -> None:
    with poisoned(CPU) as possible:
        assert possible
        rows = torch.empty(elements, dtype=dtype)
        like = torch.empty_like(torch.ones(elements, dtype=dtype))
        written = torch.ones(elements, dtype=dtype) * 2
    assert bool(rows.isnan().all())
    assert bool(like.isnan().all())
    assert bool((written == 2).all())


def test_zeros_in_its_place() -> None:
    with zeroed(CPU):
        assert bool((torch.empty(100_000) == 0).all())


def test_a_device_without_a_way_says_so() -> None:
    with poisoned(torch.device("meta")) as possible:
        assert not possible


def test_on_a_gpu_exactly_the_free_blocks_of_the_stream_are_filled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By a made-up allocator: what is asked of it, not what a card does."""
    mib = 1 << 20

    def segment(kind: str, blocks: list[tuple[int, str]], **other: object) -> dict[str, object]:
        facts = {"device": 1, "stream": 7, "segment_type": kind, "segment_pool_id": (0, 0)}
        return {**facts, "blocks": [{"size": s, "state": t} for s, t in blocks], **other}

    segments = [
        segment("large", [(20 * mib, "inactive"), (2 * mib, "active_allocated")]),
        segment("small", [(mib + 512, "inactive"), (1024, "active_pending_free")]),
        segment("large", [(40 * mib, "inactive")], device=0),
        segment("large", [(60 * mib, "inactive")], stream=8),
        segment("large", [(80 * mib, "inactive")], segment_pool_id=(0, 3)),
    ]
    asked: list[int] = []

    class Stream:
        cuda_stream = 7

    def full(size: tuple[int, ...], value: float, **_: object) -> None:
        assert value != value
        asked.append(4 * size[0])

    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: Stream())
    monkeypatch.setattr(torch.cuda, "memory_snapshot", lambda: segments)
    monkeypatch.setattr(torch, "full", full)
    with poisoned(torch.device("cuda", 1)) as possible:
        assert possible
    assert asked == [20 * mib, mib, 512]


@pytest.mark.gpu
def test_freed_memory_of_a_gpu_holds_nan() -> None:
    device = torch.device("cuda:0")
    for elements in (100, 300_000, 30_000_000):
        freed = torch.ones(elements, device=device)
        del freed
        reserved = torch.cuda.memory_reserved(device)
        with poisoned(device):
            assert torch.cuda.memory_reserved(device) == reserved
            assert bool(torch.empty(elements, device=device).isnan().all())
