"""Which sequences a fault strikes, found by packing the wrong one otherwise."""

import itertools
from collections.abc import Callable

import pytest
import torch

from tests.validation.conftest import FakeSubject
from virnucpro_monitor.validation.grouping import (
    _GROUPS,
    _PLACES,
    Group,
    _named,
    _placements,
    _wrong_places,
    find_group,
)
from virnucpro_monitor.validation.subject import PackedBatch, embed_unpacked
from virnucpro_monitor.validation.tokens import alphabet, encode

LONG = "MKTAYIAKQRQISFVKSHFSRQLEERLGLIEVQ" * 2


def group_of(
    fake: FakeSubject,
    strikes: Callable[[PackedBatch, int, torch.Tensor], bool],
    text: str = LONG,
    num_tokens: int = 400,
):
    """Struck sequences are ruined; `strikes` sees the pack, the slot and the slot's tokens."""

    def ruin(rows, pack, layer):
        rows = rows.clone()
        bounds = pack.cu_seqlens.tolist()
        for slot, (start, end) in enumerate(itertools.pairwise(bounds)):
            if strikes(pack, slot, pack.input_ids[start:end]):
                rows[start:end] += torch.arange(rows.shape[1])
        return rows

    fake.on_packed = ruin
    found = find_group(
        fake,
        encode(text),
        lambda tokens: embed_unpacked(fake, tokens),
        1.0,
        "float32",
        num_tokens=num_tokens,
        num_sequences=200,
    )
    return None if found is None else found.text


def lengths(pack: PackedBatch) -> list[int]:
    return pack.cu_seqlens.diff().tolist()


@pytest.mark.parametrize(
    ("strikes", "text"),
    [
        (lambda pack, slot, own: len(own) == max(lengths(pack)), "the longest of each pack"),
        (
            lambda pack, slot, own: len(own) < max(lengths(pack)),
            "all but the longest of each pack",
        ),
        (lambda pack, slot, own: slot == 0, "the first of each pack"),
        (lambda pack, slot, own: slot == len(lengths(pack)) - 1, "the last of each pack"),
        (lambda pack, slot, own: slot > 0, "all but the first of each pack"),
        (lambda pack, slot, own: len(lengths(pack)) == 1, "packs of one sequence"),
        (lambda pack, slot, own: len(lengths(pack)) > 1, "packs of more than one sequence"),
        (lambda pack, slot, own: len(own) == 68, "sequences of exactly 68 tokens"),
        (lambda pack, slot, own: len(own) > 40, "sequences of 41 tokens or more"),
        (lambda pack, slot, own: len(own) > 10, "sequences of 11 tokens or more"),
        (lambda pack, slot, own: slot == 1, "the second of each pack"),
        (
            lambda pack, slot, own: 0 < slot == len(lengths(pack)) - 1,
            "the last of each pack of more than one sequence",
        ),
        (lambda pack, slot, own: slot >= 64, "packs of 65 sequences or more"),
        (lambda pack, slot, own: len(lengths(pack)) > 16, "packs of 17 sequences or more"),
        (lambda pack, slot, own: len(lengths(pack)) >= 150, "packs of 150 sequences or more"),
        (lambda pack, slot, own: True, None),
        # Neither place, nor length, nor letters.
        (lambda pack, slot, own: slot == 1 and len(pack.input_ids) % 2 == 1, None),
        (
            lambda pack, slot, own: 0 < slot < len(lengths(pack)) - 1,
            "sequences that are neither first nor last in their pack",
        ),
    ],
)
def test_the_group_is_named(fake: FakeSubject, strikes, text: str | None) -> None:
    assert group_of(fake, strikes) == text


@pytest.mark.parametrize(
    ("strikes", "text"),
    [
        (
            lambda pack, slot, own: len(own) < max(lengths(pack)),
            "all but the longest of each pack",
        ),
        (
            lambda pack, slot, own: 0 < slot == len(lengths(pack)) - 1,
            "the last of each pack of more than one sequence",
        ),
    ],
)
def test_the_group_of_a_single_residue(fake: FakeSubject, strikes, text: str) -> None:
    """Nothing is shorter, so that its neighbours are as long."""
    assert group_of(fake, strikes, "M") == text


def test_lengths_at_tile_edges(fake: FakeSubject) -> None:
    text = LONG[:62]
    strikes = lambda pack, slot, own: len(own) % 64 == 0  # noqa: E731
    assert group_of(fake, strikes, text) == "sequences of a multiple of 64 tokens"


def test_letters(fake: FakeSubject) -> None:
    token = alphabet().get_idx("U")
    strikes = lambda pack, slot, own: bool((own == token).any())  # noqa: E731
    assert group_of(fake, strikes, "MKTAUIAKQXQISFVKB") == "sequences with U"


def test_a_common_letter_is_no_length(fake: FakeSubject) -> None:
    """LONG without its last 45 residues has none, so that a length seems to tell."""
    token = alphabet().get_idx("E")
    strikes = lambda pack, slot, own: bool((own == token).any())  # noqa: E731
    assert group_of(fake, strikes) == "sequences with E"


def test_the_place_of_sequences_that_leave_no_room_for_a_longer_one(fake: FakeSubject) -> None:
    assert group_of(fake, lambda pack, slot, own: slot == 0, "MKTAYI" * 170, 1022) == (
        "the first of each pack"
    )


def test_a_length_is_told_from_where_the_error_is_more_than_noise(fake: FakeSubject) -> None:
    """Of a window the first tokens beyond it move little."""

    def beyond(rows, pack, layer):
        more = (pack.cu_seqlens.diff() - 50).clamp(min=0)
        return rows + more.repeat_interleave(pack.cu_seqlens.diff())[:, None] ** 3 * 1e-4

    fake.on_packed = beyond
    tokens = encode(LONG)
    reference = lambda tokens: embed_unpacked(fake, tokens)  # noqa: E731
    found = find_group(fake, tokens, reference, 1.0, "float32", num_tokens=68, num_sequences=1)
    assert found is not None
    assert found.text == "sequences of about 51 tokens or more"


def test_a_group_is_told_of_packed_alone() -> None:
    told = Group("last", "the last of each pack").told_in("departs at A; unpacked departs at B")
    assert told == "departs at A (strikes the last of each pack); unpacked departs at B"


def test_long_packs(fake: FakeSubject) -> None:
    strikes = lambda pack, slot, own: len(pack.input_ids) > 256  # noqa: E731
    found = group_of(fake, strikes)
    assert found is not None
    assert found.startswith("packs of more than about 2")


def test_what_fades_with_the_length_strikes_all(fake: FakeSubject) -> None:
    """It stays above a tenth of the longest's error down to a quarter, and is never right."""

    def fade(rows, pack, layer):
        length = pack.cu_seqlens.diff().repeat_interleave(pack.cu_seqlens.diff())[:, None]
        return rows + (length / 68) ** 2 * torch.arange(rows.shape[1])

    fake.on_packed = fade
    tokens = encode(LONG)
    reference = lambda tokens: embed_unpacked(fake, tokens)  # noqa: E731
    asked = (fake, tokens, reference, 9.0, "float32")
    assert find_group(*asked, num_tokens=68, num_sequences=1) is None


def test_a_sequence_without_residues_has_no_group(fake: FakeSubject) -> None:
    bare = encode("M")[[0, 2]]
    assert (
        find_group(
            fake, bare, lambda tokens: tokens, None, "float32", num_tokens=2, num_sequences=1
        )
        is None
    )


class Wrong:
    """Trials that come out wrong in these places."""

    def __init__(self, tokens: torch.Tensor, places: frozenset[str]) -> None:
        self._places, self.asked = places, list[str]()
        self._by_pack = {
            (tuple(map(len, pack)), slot): place
            for place, (pack, slot) in _placements(tokens).items()
        }

    def is_wrong(self, pack: list[torch.Tensor], slot: int) -> bool:
        self.asked.append(self._by_pack[tuple(map(len, pack)), slot])
        return self.asked[-1] in self._places


def test_places_that_cannot_change_the_group_are_not_tried() -> None:
    """Against all subsets of the places, and the rule that looks at every one of them."""
    tokens, asked = encode(LONG), list[int]()
    for chosen in itertools.product((False, True), repeat=len(_PLACES)):
        wrong = frozenset(place for place, one in zip(_PLACES, chosen, strict=True) if one)
        if not ({"last"} <= wrong and "first" not in wrong):  # then nobody looks at the third
            wrong = wrong - {"third"} | ({"third"} if "last" in wrong else set())
        if wrong in (frozenset(), frozenset(_PLACES)):
            continue
        told = next(
            (
                name if wrong == places else f"{name} of several"
                for name, _, places in _GROUPS
                if wrong in (places, places - {"alone"})
            ),
            None,
        )
        trials = Wrong(tokens, wrong)
        tried, seen = _wrong_places(trials, tokens)
        assert seen not in (frozenset(), tried)
        found = _named(tried).get(seen)
        assert (found.name if found else None) == told
        asked.append(len(trials.asked))
    assert max(asked) == len(_PLACES)
    assert sum(asked) < 0.7 * len(_PLACES) * len(asked)
