"""What is said to hold no change is what ruptures leaves in one piece."""

import random
import sys

import numpy as np
import pytest
import ruptures
from hypothesis import given
from hypothesis import strategies as st

from virnucpro_monitor.analysis.change_points import find_changes
from virnucpro_monitor.analysis.prescreen import find_level

SERIES = st.lists(st.one_of(st.floats(-3, 3), st.sampled_from([0.0, 1.0])), min_size=2, max_size=40)


@given(values=SERIES, charge=st.floats(0.01, 50.0))
def test_what_is_level_is_left_in_one_piece(values: list[float], charge: float) -> None:
    signal = np.array(values)
    if find_level(signal[None], charge)[0]:
        detector = ruptures.KernelCPD(kernel="linear", min_size=1).fit(signal.reshape(-1, 1))
        assert detector.predict(pen=charge) == [len(values)]


@given(values=SERIES)
def test_it_is_never_stricter_than_its_bound_and_an_eighth(values: list[float]) -> None:
    """A twin with three loops: the greatest gain of one change, and of one segment by itself."""
    off = np.array(values) - np.mean(values)
    size = len(off)
    segments = [off[a:b].sum() ** 2 / (b - a) for a in range(size) for b in range(a + 1, size + 1)]
    splits = [off[:c].sum() ** 2 / c + off[c:].sum() ** 2 / (size - c) for c in range(1, size)]
    needed = max(*splits, 1.5 * max(segments))
    enough = max(*splits, 1.5 * 1.125 * max(segments))
    assert find_level(off[None], 1.001 * enough + 1e-9)[0]
    assert not find_level(off[None], 0.999 * needed - 1e-9)[0]


def test_blocks_are_judged_one_by_one() -> None:
    generator = np.random.default_rng(0)
    blocks = generator.normal(-5.0, 0.05, (3, 300))
    blocks[1, 150:] += 0.5
    assert find_level(blocks, 45 * 0.05**2).tolist() == [True, False, True]
    assert find_level(np.zeros((2, 1)), 1.0).tolist() == [True, True]
    assert find_level(np.full((1, 50), -5.0), 1e-9).tolist() == [True]


@pytest.mark.parametrize("number", [12, 300, 5000])
def test_a_level_history_does_without_ruptures(
    number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ruptures", None)  # an import of it fails
    generator = random.Random(number)
    values: list[float | None] = [generator.gauss(-5.0, 0.05) for _ in range(number)]
    assert find_changes(values).points == ()
    values[number // 2 :] = [v + 1.0 for v in values[number // 2 :] if v is not None]
    with pytest.raises(ImportError):
        find_changes(values)
