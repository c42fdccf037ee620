"""What healthy runs have at each depth: frozen, with evidence, and refused to no model."""

import json
from collections import Counter
from importlib import resources

import pytest

from virnucpro_monitor.validation.evidence import MIN_RUNS
from virnucpro_monitor.validation.layer_noise import NUM_BINS, bin_of, layer_limits
from virnucpro_monitor.validation.protocol import limits_key

CONTENT = json.loads(
    (resources.files("virnucpro_monitor.validation") / "protocols" / "layer_noise.json").read_text(
        encoding="utf-8"
    )
)
KEYS = ("float32", "float16", "bfloat16", "float16 on cpu", "bfloat16 on cpu")


def test_each_limit_is_frozen_from_at_least_200_healthy_runs() -> None:
    runs: Counter[str] = Counter()
    for record in CONTENT["evidence"]:
        key = limits_key(record["dtype"], record["device"])
        runs[key] += record["num_runs"]
        for limit, worst in zip(CONTENT["limits"][key], record["worst"], strict=True):
            assert limit >= 3 * worst
    assert runs.keys() == CONTENT["limits"].keys()
    assert all(count >= MIN_RUNS for count in runs.values())


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("num_layers", [6, 12, 33, 48])
def test_every_layer_of_every_model_has_a_limit(key: str, num_layers: int) -> None:
    limits = layer_limits(key, num_layers)
    assert len(limits) == num_layers + 1
    hidden = limits[1:-1]
    assert hidden == sorted(hidden)
    assert all(0 < limit < 1 for limit in limits)
    # In FP32 a fault of a thousandth is always beyond them.
    assert key != "float32" or max(limits) < 1e-3


def test_depths_are_alike_in_small_and_large_models() -> None:
    assert [bin_of(layer, 6) for layer in range(7)] == [0, 1, 2, 3, 4, 5, NUM_BINS + 1]
    assert bin_of(1, 48) == 1
    assert bin_of(47, 48) == NUM_BINS
