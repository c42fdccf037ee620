from typing import Any

import pytest
import torch
from esm import Alphabet
from hypothesis import given
from hypothesis import strategies as st

from virnucpro_monitor.data import VarlenCollator

ALPHABET = Alphabet.from_architecture("ESM-1b")
CONVERTER = ALPHABET.get_batch_converter()
RESIDUES = st.text("ACDEFGHIKLMNPQRSTVWYBZXUO", min_size=1, max_size=30)


def as_records(sequences: list[str]) -> list[dict[str, str]]:
    return [{"id": str(i), "sequence": text, "file": "x"} for i, text in enumerate(sequences)]


def collect(packs: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    """Tokens by id, after checking that each pack's parts agree."""
    tokens: dict[str, torch.Tensor] = {}
    for pack in packs:
        bounds = pack["cu_seqlens"].tolist()
        assert pack["input_ids"].dtype == torch.int64
        assert pack["cu_seqlens"].dtype == torch.int32
        assert bounds[0] == 0
        assert bounds[-1] == pack["input_ids"].numel()
        lengths = pack["cu_seqlens"].diff()
        assert pack["max_seqlen"] == lengths.max()
        assert pack["num_sequences"] == len(pack["sequence_ids"]) == len(lengths)
        for name, part in zip(
            pack["sequence_ids"], pack["input_ids"].split(lengths.tolist()), strict=True
        ):
            assert name not in tokens
            tokens[name] = part
    return tokens


@given(
    st.lists(RESIDUES, max_size=40),
    st.integers(1, 12),
    st.integers(3, 80),
    st.integers(1, 7),
    st.booleans(),
)
def test_nothing_is_lost_or_doubled(
    sequences: list[str], buffer_size: int, budget: int, call_size: int, packing: bool
) -> None:
    collator = VarlenCollator(
        CONVERTER, budget, buffer_size=buffer_size, enable_packing=packing, pin_memory=False
    )
    records = as_records(sequences)
    packs = [collator(records[i : i + call_size]) for i in range(0, len(records), call_size)]
    packs = [pack for pack in packs if pack] + collator.flush()
    tokens = collect(packs)
    assert tokens.keys() == {record["id"] for record in records}
    for record in records:
        expected = CONVERTER([(record["id"], record["sequence"])])[2][0]
        assert torch.equal(tokens[record["id"]], expected)
    for pack in packs:
        assert pack["input_ids"].numel() <= budget or pack["num_sequences"] == 1
    assert collator.flush() == []


@given(st.lists(RESIDUES, max_size=40), st.integers(1, 12), st.integers(3, 80))
def test_a_stream_gives_each_record_once(
    sequences: list[str], buffer_size: int, budget: int
) -> None:
    collator = VarlenCollator(CONVERTER, budget, buffer_size=buffer_size, pin_memory=False)
    tokens = collect(list(collator.stream(as_records(sequences))))
    assert sorted(tokens, key=int) == [str(i) for i in range(len(sequences))]


@given(st.lists(RESIDUES, min_size=1, max_size=30), st.integers(0, 5))
def test_a_stream_left_early_still_holds_the_rest(sequences: list[str], stop: int) -> None:
    collator = VarlenCollator(CONVERTER, 60, buffer_size=10, pin_memory=False)
    records = iter(as_records(sequences))
    packs = [pack for _, pack in zip(range(stop), collator.stream(records), strict=False)]
    packs += collator.stream(records)
    assert len(collect(packs)) == len(sequences)


def test_without_packing_the_order_is_kept() -> None:
    collator = VarlenCollator(CONVERTER, 12, enable_packing=False)
    records = as_records(["M" * 3, "M" * 8, "MK"])
    packs = [collator(records), *collator.flush()]
    assert [pack["sequence_ids"] for pack in packs if pack] == [["0"], ["1"], ["2"]]


def test_the_last_pack_of_a_buffer_waits_for_more() -> None:
    collator = VarlenCollator(CONVERTER, 10, buffer_size=3)
    first = collator(as_records(["M" * 8, "M" * 3, "M"]))
    assert first["sequence_ids"] == ["0"]
    (rest,) = collator.flush()
    assert rest["sequence_ids"] == ["1", "2"]


def test_masks_are_single_tokens() -> None:
    (pack,) = VarlenCollator(CONVERTER).stream([{"id": "a", "sequence": "MK<mask>A<mask>"}])
    assert torch.equal(pack["input_ids"], CONVERTER([("a", "MK<mask>A<mask>")])[2][0])


def test_long_sequences_are_cut_and_marked() -> None:
    text = "MKTAYIAKQR" * 110
    (pack,) = VarlenCollator(CONVERTER).stream([{"id": "long", "sequence": text}])
    assert pack["truncated_ids"] == ["long"]
    assert torch.equal(pack["input_ids"], CONVERTER([("long", text[:1022])])[2][0])


@pytest.mark.parametrize(
    ("residues", "message"),
    [
        ("", "sequence 'bad' is empty"),
        ("MKJ", "has 'J' at position 3"),
        ("mk", "has 'm' at position 1"),
        ("MKÄ", "has 'Ä' at position 3"),
        ("MK<pad>", "has '<' at position 3"),
    ],
)
def test_bad_sequences_are_named_and_nothing_is_taken_in(residues: str, message: str) -> None:
    collator = VarlenCollator(CONVERTER)
    records = [{"id": "good", "sequence": "MK"}, {"id": "bad", "sequence": residues}]
    with pytest.raises(ValueError, match=message):
        collator(records)
    assert collator.flush() == []


def test_a_lone_record_and_an_empty_call_are_accepted() -> None:
    collator = VarlenCollator(CONVERTER)
    assert collator({"id": "a", "sequence": "MK"}) == {}
    assert collator([]) == {}
    assert len(collator.flush()) == 1
