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
