"""Out of memory halves the packs of a validation and is said in its verdict."""

from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import torch

from tests.validation.conftest import FakeSubject
from virnucpro_monitor.records import BenchmarkSet, Outcome, Protocol
from virnucpro_monitor.runner.reuse import ReusingSubject
from virnucpro_monitor.validation.memory import SMALLEST_BUDGET
from virnucpro_monitor.validation.oracle import Oracle
from virnucpro_monitor.validation.subject import Layers, PackedBatch
from virnucpro_monitor.validation.validate import validate_subject

ASKED = 8 * SMALLEST_BUDGET


class SmallMemory:
    """A subject whose device has room for `room` tokens; everything else is the real one's."""

    def __init__(self, subject: Any, room: int) -> None:
        self._subject = subject
        self.room = room
        self.token_budget = ASKED
        self.budgets: list[int] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._subject, name)

    def pack(
        self, sequences: Sequence[tuple[str, str]], *, per_call: int | None = None
    ) -> Iterator[PackedBatch]:
        self.budgets.append(self.token_budget)
        return self._subject.pack(sequences, per_call=per_call)

    def embed_packed_layers(self, batch: PackedBatch, layers: Sequence[int]) -> Layers:
        if self.token_budget > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return self._subject.embed_packed_layers(batch, layers)


@pytest.mark.parametrize("reused", [False, True], ids=["plain", "with a reused baseline"])
def test_packs_are_halved_until_they_fit(
    subject: Any, benchmark_set: BenchmarkSet, oracle: Oracle, protocol: Protocol, reused: bool
) -> None:
    small = SmallMemory(subject, room=2 * SMALLEST_BUDGET)
    judged = ReusingSubject(small, {}, {}) if reused else small
    verdict = validate_subject(judged, benchmark_set, oracle=oracle, protocol=protocol)
    assert verdict.outcome is Outcome.PASSED
    assert small.budgets[:3] == [8192, 4096, 2048]
    assert verdict.documents["memory"] == {"asked_tokens": 8192, "used_tokens": 2048}
    assert "packs of 8,192 tokens, measured with 2,048." in verdict.reason
    assert len(verdict.sequences) == len(benchmark_set.sequences)


def test_what_fits_is_not_mentioned(
    subject: Any, benchmark_set: BenchmarkSet, oracle: Oracle, protocol: Protocol
) -> None:
    verdict = validate_subject(
        SmallMemory(subject, room=ASKED), benchmark_set, oracle=oracle, protocol=protocol
    )
    assert "memory" not in verdict.documents
    assert "memory" not in verdict.reason


def test_what_cannot_be_halved_is_raised(
    subject: Any, benchmark_set: BenchmarkSet, oracle: Oracle, protocol: Protocol
) -> None:
    small = SmallMemory(subject, room=0)
    with pytest.raises(torch.OutOfMemoryError):
        validate_subject(small, benchmark_set, oracle=oracle, protocol=protocol)
    assert small.budgets == [8192, 4096, 2048, 1024]


def test_the_smallest_packs_are_not_tried_again(
    fake: FakeSubject, benchmark_set: BenchmarkSet, protocol: Protocol
) -> None:
    calls = []
    fake.token_budget = 2 * SMALLEST_BUDGET - 1

    def run_out(rows: torch.Tensor, batch: PackedBatch, layer: int) -> torch.Tensor:
        calls.append(batch)
        raise torch.OutOfMemoryError("CUDA out of memory")

    fake.on_packed = run_out
    with pytest.raises(torch.OutOfMemoryError):
        validate_subject(fake, benchmark_set, oracle=None, protocol=protocol)
    assert len(calls) == 1
