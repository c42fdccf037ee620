"""What lies outside the model: a pack's tokens that are not the sequence's own."""

import torch

from virnucpro_monitor.validation.perturb import bounds_of
from virnucpro_monitor.validation.signature import Signature
from virnucpro_monitor.validation.subject import PackedBatch
from virnucpro_monitor.validation.tokens import alphabet

OUTSIDE = Signature("outside", "the fault lies outside the model: ids, boundaries or pooling")
EOS_MISSING = Signature("eos missing", "<eos> is missing from the packed tokens")
BOS_MISSING = Signature("bos missing", "<cls> is missing from the packed tokens")


ENDS_SWAPPED = Signature("bos and eos swapped", "<cls> and <eos> are swapped in the packed tokens")
BOS_DOUBLED = Signature("bos doubled", "<cls> stands twice in the packed tokens")
EOS_DOUBLED = Signature("eos doubled", "<eos> stands twice in the packed tokens")
EXCHANGED = Signature("ids exchanged", "sequences handed out under each other's ids")
_SPECIAL = {alphabet().cls_idx, alphabet().eos_idx}


def name_slot_fault(expected: torch.Tensor, batch: PackedBatch, slot: int) -> Signature | None:
    """How a slot differs from the sequence's own tokens [T]: in its tokens, or in its boundaries.

    Where the pack holds all of them and `cu_seqlens` cuts elsewhere, no token is missing.
    """
    start, end = bounds_of(batch)[slot : slot + 2]
    tokens = batch.input_ids[start:end].cpu()
    named = name_token_fault(expected, tokens)
    if torch.equal(expected, tokens) or named in (BOS_DOUBLED, EOS_DOUBLED):
        return named
    places = batch.input_ids.cpu().unfold(0, len(expected), 1).eq(expected).all(1).nonzero()[:, 0]
    own = [place for place in places.tolist() if place < end and place + len(expected) > start]
    if not own:
        return named
    place = min(own, key=lambda place: abs(place - start))
    off = {"begins": start - place, "ends": end - place - len(expected)}
    said = " and ".join(
        f"{verb} {abs(by)} token{'s'[: abs(by) != 1]} {'late' if by > 0 else 'early'}"
        for verb, by in off.items()
        if by
    )
    return Signature("boundary off", f"`cu_seqlens` is off: the sequence {said}")


def name_token_fault(expected: torch.Tensor, tokens: torch.Tensor) -> Signature | None:
    """How a pack's tokens [n] of a sequence differ from its own [T], if in a known way."""
    if torch.equal(expected, tokens):
        return None
    if torch.equal(expected[:-1], tokens):
        return EOS_MISSING
    if torch.equal(expected[1:], tokens):
        return BOS_MISSING
    if torch.equal(expected[1:-1], tokens):
        return Signature(
            "bos and eos missing", "<cls> and <eos> are missing from the packed tokens"
        )
    if torch.equal(torch.cat([expected[-1:], expected[1:-1], expected[:1]]), tokens):
        return ENDS_SWAPPED
    if torch.equal(torch.cat([expected[:1], expected]), tokens):
        return BOS_DOUBLED
    if torch.equal(torch.cat([expected, expected[-1:]]), tokens):
        return EOS_DOUBLED
    if len(tokens) < len(expected) and torch.equal(tokens[:-1], expected[: len(tokens) - 1]):
        return Signature("cut short", f"packed tokens cut to {len(tokens) - 2} residues")
    if torch.equal(tokens[1:-1].flip(0), expected[1:-1]):
        return Signature("reversed", "residues packed in reverse")
    return _letters(expected, tokens)


def _letters(expected: torch.Tensor, tokens: torch.Tensor) -> Signature | None:
    """A letter that is another one throughout."""
    if len(expected) != len(tokens):
        return None
    off = expected != tokens
    pairs = {(int(a), int(b)) for a, b in zip(expected[off], tokens[off], strict=True)}
    consistent = len({a for a, _ in pairs}) == len(pairs)
    if not consistent or any(bool(((expected == a) & ~off).any()) for a, _ in pairs):
        return None
    if len(pairs) > len(set(expected.tolist()) - _SPECIAL) // 2:
        return None  # another sequence of the same length
    said = ", ".join(f"{alphabet().get_tok(a)} read as {alphabet().get_tok(b)}" for a, b in pairs)
    return Signature("letters", f"{said} in the packed tokens")
