"""Each measure against a plain twin in Python floats."""

import math

import pytest
import torch

from tests.validation.conftest import FakeSubject, make_benchmark
from virnucpro_monitor.records import error_of
from virnucpro_monitor.validation import measures
from virnucpro_monitor.validation.measure import measure
from virnucpro_monitor.validation.tokens import encode


def vectors(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def plain_cosine(a: list[float], b: list[float]) -> float:
    dot = math.fsum(x * y for x, y in zip(a, b, strict=True))
    return dot / (plain_norm(a) * plain_norm(b))


def plain_norm(a: list[float]) -> float:
    return math.sqrt(math.fsum(x * x for x in a))


def test_pooled_measures_equal_their_plain_twins() -> None:
    a, b = vectors(1, 40), vectors(2, 40)
    x, y = a.double().tolist(), b.double().tolist()
    difference = [p - q for p, q in zip(x, y, strict=True)]
    dot = math.fsum(p * q for p, q in zip(x, y, strict=True))
    assert measures.cosine(a, b) == pytest.approx(plain_cosine(x, y), abs=1e-14)
    assert measures.relative_l2(a, b) == pytest.approx(plain_norm(difference) / plain_norm(y))
    assert measures.gain(a, b) == pytest.approx(plain_norm(x) / plain_norm(y))
    assert measures.scale_factor(a, b) == pytest.approx(dot / plain_norm(y) ** 2)


def test_half_precision_is_compared_in_double() -> None:
    a = vectors(1, 2560).half()
    b = (a.float() * (1 + 2**-11)).half()
    assert measures.relative_l2(a, a) == 0.0
    assert measures.relative_l2(b, a) == pytest.approx(
        float((b.double() - a.double()).norm() / a.double().norm()), rel=1e-12
    )


def test_residue_agreement_equals_its_plain_twin() -> None:
    a, b = vectors(3, 9, 12), vectors(4, 9, 12)
    b[:8] = a[:8] + 0.01 * b[:8]
    cosines = [
        plain_cosine(x, y) for x, y in zip(a.double().tolist(), b.double().tolist(), strict=True)
    ]
    found = measures.agreement_of(measures.residue_figures(a, b).tolist())
    assert found is not None
    assert found.worst == pytest.approx(min(cosines), abs=1e-14)
    assert found.worst_residue == cosines.index(min(cosines)) == 8
    low, high = sorted(cosines)[:2]
    assert found.p01 == pytest.approx(low + 0.08 * (high - low), abs=1e-13)
    assert found.max_abs == pytest.approx(float((a.double() - b.double()).abs().max()))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_value_that_is_not_finite_is_none_everywhere(bad: float) -> None:
    a, b = vectors(1, 5, 8), vectors(2, 5, 8)
    a[2, 3] = bad
    assert measures.cosine(a[2], b[2]) is None
    assert measures.relative_l2(a, b) is None
    assert measures.gain(a, b) is None
    assert measures.agreement_of(measures.residue_figures(a, b).tolist()) is None


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_one_value_that_is_not_finite_is_noticed_and_a_large_sum_is_none(
    dtype: torch.dtype,
) -> None:
    rows = torch.full((7, 33), torch.finfo(dtype).max, dtype=dtype)
    assert measures.all_finite(rows)
    assert measures.all_finite(rows / 1000)
    for bad in (math.nan, math.inf, -math.inf):
        spoilt = rows / 1000
        spoilt[6, 32] = bad
        assert not measures.all_finite(spoilt)
    spoilt[0, 0] = -bad  # infinities that cancel each other
    assert not measures.all_finite(spoilt)


def test_a_zero_vector_has_no_cosine() -> None:
    assert measures.cosine(torch.zeros(4), torch.ones(4)) is None


def test_rounding_above_one_is_no_error() -> None:
    assert error_of(1.0 + 2e-16) == 0.0


def test_the_unpacked_time_is_that_of_passes_of_this_commit_or_unknown(fake: FakeSubject) -> None:
    benchmark = make_benchmark({"a": "MKTAYIAK", "b": "DERKH"})
    plain = measure(fake, benchmark, None)
    spent: dict[int, float | None] = {
        len(encode(one.residues)): 0.25 for one in benchmark.sequences
    }

    def reused_rows(tokens: torch.Tensor) -> tuple[torch.Tensor, float | None]:
        rows = fake.embed_unpacked_layers(tokens, [fake.num_layers])[fake.num_layers]
        return rows, spent[len(tokens)]

    fake.reused_rows = reused_rows  # type: ignore[attr-defined]
    found = measure(fake, benchmark, None)
    assert found.packs.unpacked_s == pytest.approx(0.25 * len(spent))
    assert found.sequences == plain.sequences
    spent[min(spent)] = None
    assert measure(fake, benchmark, None).packs.unpacked_s is None


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_the_distance_of_each_slot_is_its_own_to_the_last_bit_every_time(device: str) -> None:
    """A GPU's atomic additions end in other last bits each time they run."""
    lengths = [1022, 3, 1, *[30] * 200]
    b = torch.randn(sum(lengths), 64, generator=torch.Generator().manual_seed(0))
    a = b + 1e-3 * torch.randn(b.shape, generator=torch.Generator().manual_seed(1))
    a, b = a.to(device), b.to(device)
    found = measures.slots_relative_l2(a, b, lengths)
    alone = [
        measures.relative_l2(*pair) for pair in zip(a.split(lengths), b.split(lengths), strict=True)
    ]
    assert found == pytest.approx(alone, rel=1e-12)
    assert all(measures.slots_relative_l2(a, b, lengths) == found for _ in range(5))


def test_a_device_is_not_waited_for() -> None:
    """On "meta" there are no values, and asking for one raises."""
    a, b = torch.empty(2, 5, 8, device="meta")
    assert measures.residue_figures(a, b).shape == (4,)
