"""Where a neighbour's residues reach a sequence."""

import itertools

import pytest

from tests.validation.conftest import FakeSubject
from virnucpro_monitor.validation.leak_trace import trace_leak

PAIRS = [("a", "MKTAYIAK"), ("b", "DERKH"), ("c", "AILVFMWP")]


def leaking(fake: FakeSubject, layer_from: int, rows_of: slice, share: float):
    """Each sequence but the last receives a share of the next one's second row."""

    def leak(rows, pack, layer):
        rows = rows.clone()
        bounds = pack.cu_seqlens.tolist()
        for start, end in itertools.pairwise(bounds[:-1]):
            if layer >= layer_from:
                rows[start:end][rows_of] += share * rows[end + 1]
        return rows

    fake.on_packed = leak
    (pack,) = fake.pack(PAIRS)
    return trace_leak(fake, pack)


@pytest.mark.parametrize(
    ("layer", "where"), [(0, "at the embedding"), (1, "in layer 1"), (2, "after the last layer")]
)
def test_the_layer_is_named_however_small_the_leak(
    fake: FakeSubject, layer: int, where: str
) -> None:
    found = leaking(fake, layer, slice(None), 1e-5)
    assert found is not None
    assert found.layer == layer
    assert found.signature.name == "leak"
    assert found.signature.text == f"a neighbour's residues reach a sequence {where}"
    assert 0 < found.size < 1e-3


def test_a_row_that_no_embedding_is_made_of(fake: FakeSubject) -> None:
    found = leaking(fake, 2, slice(0, 1), 0.5)
    assert found is not None
    assert found.signature.name == "leak into <cls>"
    assert "only the <cls> row after the last layer" in found.signature.text


def test_what_is_never_finite_is_no_leak(fake: FakeSubject) -> None:
    def ruin(rows, pack, layer):
        rows = rows.clone()
        for start in pack.cu_seqlens.tolist()[:-1]:
            rows[start] = float("nan")
        return rows

    fake.on_packed = ruin
    (pack,) = fake.pack(PAIRS)
    assert trace_leak(fake, pack) is None


def test_nothing_leaks_in_a_healthy_pack_or_a_pack_of_one(fake: FakeSubject) -> None:
    (pack,) = fake.pack(PAIRS)
    assert trace_leak(fake, pack) is None
    (alone,) = fake.pack(PAIRS[:1])
    assert trace_leak(fake, alone) is None
