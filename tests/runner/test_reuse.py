from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from virnucpro_monitor.data.benchmarks import benchmark_digest
from virnucpro_monitor.records import BenchmarkSet, ProteinSequence
from virnucpro_monitor.runner import reuse
from virnucpro_monitor.runner.reuse import SAMPLE_SIZE, reuse_unpacked
from virnucpro_monitor.validation.subject import Layers, embed_unpacked
from virnucpro_monitor.validation.tokens import encode

SEQUENCES = tuple(
    ProteinSequence(id=f"s{number}", residues="MKTAYIAKQR"[: 1 + number % 10] + "A" * number)
    for number in range(60)
)
BENCHMARK = BenchmarkSet(
    name="many", version=1, digest=benchmark_digest(SEQUENCES), sequences=SEQUENCES
)


class CountingSubject:
    """Embeds by a table, and counts."""

    model_name = "m"
    num_layers = 2
    dtype = torch.float32
    device = torch.device("cpu")
    backend = "own"

    def __init__(self, factor: float = 1.0) -> None:
        self.factor = factor
        self.calls = 0

    def embed_unpacked_layers(self, tokens: torch.Tensor, layers: Sequence[int]) -> Layers:
        self.calls += 1
        return {layer: self.factor * tokens[:, None].float().repeat(1, 3) for layer in layers}


def embed_all(subject: CountingSubject, folder: Path | None) -> list[torch.Tensor]:
    with reuse_unpacked(subject, BENCHMARK, str(folder) if folder else None) as judged:  # type: ignore[arg-type]
        return [embed_unpacked(judged, encode(one.residues)) for one in SEQUENCES]


def test_an_unchanged_baseline_costs_a_sample_only(tmp_path: Path) -> None:
    first, second = CountingSubject(), CountingSubject()
    before, after = embed_all(first, tmp_path), embed_all(second, tmp_path)
    assert first.calls == 60
    assert second.calls == SAMPLE_SIZE
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))


def test_the_time_of_the_unpacked_side_is_that_of_passes_alone(tmp_path: Path) -> None:
    embed_all(CountingSubject(), tmp_path)
    again: Any = CountingSubject()
    with reuse_unpacked(again, BENCHMARK, str(tmp_path)) as judged:
        assert isinstance(judged, reuse.ReusingSubject)
        tokens = [encode(one.residues) for one in SEQUENCES]
        found = [judged.reused_rows(one) or pytest.fail("not reused") for one in tokens]
        assert judged.reused_rows(encode("W")) is None
    assert judged.reuses
    expected = [embed_unpacked(CountingSubject(), one) for one in tokens]  # type: ignore[arg-type]
    assert all(torch.equal(rows, own) for (rows, _), own in zip(found, expected, strict=True))
    timed = [spent for _, spent in found if spent is not None]
    assert len(timed) == again.calls == SAMPLE_SIZE
    assert min(timed) > 0


def test_what_is_read_ahead_is_not_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reuse.read_ahead(BENCHMARK, None)
    reuse.read_ahead(BENCHMARK, str(tmp_path))  # nothing is there yet
    embed_all(CountingSubject(), tmp_path)
    reuse.read_ahead(BENCHMARK, str(tmp_path))
    monkeypatch.setattr(torch, "load", None)
    again = CountingSubject()
    embed_all(again, tmp_path)
    assert again.calls == SAMPLE_SIZE


def test_a_changed_baseline_is_computed_and_kept_in_its_place(tmp_path: Path) -> None:
    embed_all(CountingSubject(), tmp_path)
    changed = CountingSubject(factor=1.0000001)
    rows = embed_all(changed, tmp_path)
    assert changed.calls >= 60
    assert torch.equal(rows[0], embed_unpacked(CountingSubject(1.0000001), encode("M")))
    again = CountingSubject(factor=1.0000001)
    embed_all(again, tmp_path)
    assert again.calls == SAMPLE_SIZE


def test_a_torn_file_is_computed_anew(tmp_path: Path) -> None:
    embed_all(CountingSubject(), tmp_path)
    (path,) = tmp_path.glob("*.pt")
    path.write_bytes(path.read_bytes()[:100])
    subject = CountingSubject()
    embed_all(subject, tmp_path)
    assert subject.calls == 60


def test_what_is_too_large_to_keep_is_neither_held_nor_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reuse, "MAX_STORED_BYTES", 5000)
    subject: Any = CountingSubject()
    with reuse_unpacked(subject, BENCHMARK, str(tmp_path)) as judged:
        for one in SEQUENCES:
            embed_unpacked(judged, encode(one.residues))
        assert isinstance(judged, reuse.ReusingSubject)
        assert not judged.computed
        assert not judged.reuses
    assert not list(tmp_path.glob("*.pt"))


def test_reuse_can_be_turned_off() -> None:
    subject = CountingSubject()
    embed_all(subject, None)
    assert subject.calls == 60


@pytest.mark.parametrize("layer", [0, 1])
def test_hidden_layers_are_always_computed(tmp_path: Path, layer: int) -> None:
    embed_all(CountingSubject(), tmp_path)
    subject = CountingSubject()
    with reuse_unpacked(subject, BENCHMARK, str(tmp_path)) as judged:  # type: ignore[arg-type]
        before = subject.calls
        embed_unpacked(judged, encode("M"), layer)
        assert subject.calls == before + 1


def test_a_full_disk_costs_time_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fill_up(content: object, path: Path) -> None:
        with open("/dev/full", "wb") as full:
            torch.serialization.save(content, full)

    monkeypatch.setattr(reuse.torch, "save", fill_up)
    assert len(embed_all(CountingSubject(), tmp_path)) == 60
    assert list(tmp_path.iterdir()) == []
