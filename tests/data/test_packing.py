import math
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from virnucpro_monitor.data.packing import GreedyPacker


def first_fit_decreasing(lengths: list[int], budget: int) -> list[list[int]]:
    """The textbook's version: try every pack in turn."""
    packs: list[list[int]] = []
    rooms: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        for pack, room in enumerate(rooms):
            if room >= lengths[index]:
                packs[pack].append(index)
                rooms[pack] -= lengths[index]
                break
        else:
            packs.append([index])
            rooms.append(budget - lengths[index])
    return packs


def proteome_lengths(number: int) -> list[int]:
    """Tokens of sequences with lengths lognormal around 290 aa, from 8 to 1022."""
    residues = np.random.default_rng(0).lognormal(np.log(290), 0.6, number).clip(8, 1022)
    return [int(length) + 2 for length in residues]


@given(st.lists(st.integers(1, 40), max_size=80), st.integers(1, 60))
def test_packs_are_those_of_the_textbook(lengths: list[int], budget: int) -> None:
    plans = GreedyPacker(budget).pack(lengths)
    assert [list(plan.indices) for plan in plans] == first_fit_decreasing(lengths, budget)


@given(st.lists(st.integers(1, 3000), max_size=60), st.integers(1, 2000))
def test_every_sequence_once_and_never_above_the_budget(lengths: list[int], budget: int) -> None:
    before = list(lengths)
    plans = GreedyPacker(budget).pack(lengths)
    assert lengths == before
    assert sorted(index for plan in plans for index in plan.indices) == list(range(len(lengths)))
    for plan in plans:
        assert plan.num_tokens == sum(lengths[index] for index in plan.indices)
        assert plan.oversized == (plan.num_tokens > budget)
        if plan.oversized:
            assert len(plan.indices) == 1


def test_the_proteome_workload_fills_its_packs() -> None:
    lengths = proteome_lengths(2000)
    plans = GreedyPacker(16384).pack(lengths)
    assert len(plans) <= math.ceil(sum(lengths) / 16384) + 1
    assert sum(plan.num_tokens for plan in plans[:-1]) >= 0.99 * 16384 * (len(plans) - 1)


def test_a_million_lengths_take_under_two_seconds() -> None:
    lengths = proteome_lengths(1_000_000)
    started = time.process_time()
    plans = GreedyPacker(16384).pack(lengths)
    assert time.process_time() - started < 2
    assert sum(len(plan.indices) for plan in plans) == 1_000_000


def test_equal_lengths_keep_their_order() -> None:
    plans = GreedyPacker(10).pack([5, 5, 5, 5])
    assert [plan.indices for plan in plans] == [(0, 1), (2, 3)]


def test_no_sequences_need_no_packs() -> None:
    assert GreedyPacker(10).pack([]) == []


def test_a_length_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="sequence 1 has 0 tokens"):
        GreedyPacker(10).pack([3, 0])


def test_a_budget_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="max_tokens_per_batch is 0"):
        GreedyPacker(0)
