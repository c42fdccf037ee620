"""Comparing beside the passes gives what comparing after each of them gives."""

import threading
from typing import Any

import pytest
import torch

from tests.validation.conftest import SEQUENCES, FakeSubject, make_benchmark
from virnucpro_monitor.validation import comparing, measure

BENCHMARK = make_benchmark(SEQUENCES)


def faulty() -> FakeSubject:
    """Off by more the later a token comes in its pack, of two sequences each."""
    fake = FakeSubject(slots=2)
    fake.on_packed = lambda rows, pack, layer: rows + torch.arange(len(rows))[:, None].cos()
    return fake


def test_a_pack_is_compared_beside_the_next_ones_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    first = measure.measure(faulty(), BENCHMARK, None)
    threads = set[str]()
    compare = comparing._compare

    def noted(*arguments: Any) -> Any:
        threads.add(threading.current_thread().name.partition("_")[0])
        return compare(*arguments)

    monkeypatch.setattr(comparing, "_compare", noted)
    monkeypatch.setattr(measure, "_is_beside", lambda _: True)
    beside = measure.measure(faulty(), BENCHMARK, None)
    assert threads == {"compare"}
    assert len(beside.batches) == 3
    assert beside.sequences == first.sequences
    assert beside.packs.not_finite == first.packs.not_finite
    assert (beside.pooled.packed == first.pooled.packed).all()
    assert [one.result for one in beside.worst] == [one.result for one in first.worst]


@pytest.mark.parametrize("place", [0, -1])
def test_what_comparing_raises_is_raised(place: int, monkeypatch: pytest.MonkeyPatch) -> None:
    compare, fails = comparing._compare, [False] * 3
    fails[place] = True

    def failing(*arguments: Any) -> Any:
        if fails.pop(0):
            raise torch.OutOfMemoryError("no room to compare")
        return compare(*arguments)

    monkeypatch.setattr(comparing, "_compare", failing)
    monkeypatch.setattr(measure, "_is_beside", lambda _: True)
    with pytest.raises(torch.OutOfMemoryError, match="to compare"):
        measure.measure(faulty(), BENCHMARK, None)
