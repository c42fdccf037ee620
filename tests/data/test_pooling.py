import math

import pytest
import torch

from virnucpro_monitor.data.pooling import cosine_similarity, mean_pool


def test_the_mean_is_taken_in_float64() -> None:
    residues = torch.tensor([[60000.0, 1.0], [60000.0, 2.0]], dtype=torch.float16)
    pooled = mean_pool(residues)
    assert pooled.dtype == torch.float64
    assert pooled.tolist() == [60000.0, 1.5]


def test_nothing_to_pool_is_refused() -> None:
    with pytest.raises(ValueError, match=r"cannot pool \(0, 4\)"):
        mean_pool(torch.zeros(0, 4))


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ([1.0, 0.0], [3.0, 0.0], 1.0),
        ([1.0, 0.0], [0.0, 2.0], 0.0),
        ([1.0, 1.0], [-2.0, -2.0], -1.0),
        ([1e200, 0.0], [1e200, 1e200], math.sqrt(0.5)),
    ],
)
def test_cosines(a: list[float], b: list[float], expected: float) -> None:
    cosine = cosine_similarity(
        torch.tensor(a, dtype=torch.float64), torch.tensor(b, dtype=torch.float64)
    )
    assert cosine == pytest.approx(expected, abs=1e-15)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_has_no_cosine(value: float) -> None:
    assert math.isnan(cosine_similarity(torch.tensor([value, 1.0]), torch.ones(2)))
    assert math.isnan(cosine_similarity(torch.ones(2), torch.tensor([1.0, value])))


def test_zero_has_no_cosine() -> None:
    assert math.isnan(cosine_similarity(torch.zeros(2), torch.ones(2)))
