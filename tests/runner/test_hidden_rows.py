"""Hidden rows are told apart by the tokens that a target embedded, however it laid them out."""

import torch

from virnucpro_monitor.runner.hidden_rows import in_pack_order
from virnucpro_monitor.validation.grouping import make_pack
from virnucpro_monitor.validation.tokens import alphabet, encode

SEQUENCES = [encode(text) for text in ("MKTAY", "DE", "AILV", "DE")]
PACK = make_pack(SEQUENCES)
RIGHT = torch.arange(float(len(PACK.input_ids)))[:, None]
OWN = RIGHT.split([len(one) for one in SEQUENCES])


def test_sequences_in_another_order_come_back_in_the_packs() -> None:
    order = [2, 1, 0, 3]
    embedded = torch.cat([SEQUENCES[slot] for slot in order])
    rows = torch.cat([OWN[slot] for slot in order])
    assert torch.equal(in_pack_order(rows, [embedded], PACK), RIGHT)
    one_by_one = [SEQUENCES[slot] for slot in order]
    assert torch.equal(in_pack_order(rows, one_by_one, PACK), RIGHT)
    assert in_pack_order(RIGHT, [PACK.input_ids], PACK) is RIGHT


def test_padding_at_either_side_is_left_out() -> None:
    for left in (False, True):
        embedded = torch.full((4, 9), alphabet().padding_idx)
        rows = torch.full((4, 9, 1), -1.0)
        for slot, (tokens, own) in enumerate(zip(SEQUENCES, OWN, strict=True)):
            place = slice(9 - len(tokens), 9) if left else slice(0, len(tokens))
            embedded[slot, place], rows[slot, place] = tokens, own
        assert torch.equal(in_pack_order(rows, [embedded], PACK), RIGHT)


def test_without_known_tokens_padding_is_taken_to_be_at_the_right() -> None:
    rows = torch.full((4, 9, 1), -1.0)
    for slot, own in enumerate(OWN):
        rows[slot, : len(own)] = own
    for embedded in ([], [torch.full((4, 9), alphabet().get_idx("A"))]):
        assert torch.equal(in_pack_order(rows, embedded, PACK), RIGHT)
