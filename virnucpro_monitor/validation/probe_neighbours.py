"""Probes of the packed path against itself: repeated, with other neighbours, at other places."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from virnucpro_monitor.records import ProbeDocument
from virnucpro_monitor.validation import measures
from virnucpro_monitor.validation.perturb import bounds_of, other_residues, reorder
from virnucpro_monitor.validation.probe_rows import Worst, embed, max_abs, not_judged, worst_side
from virnucpro_monitor.validation.subject import PackedBatch, Subject, embed_unpacked


def probe_repeat(
    subject: Subject, packs: Sequence[PackedBatch], base: Sequence[torch.Tensor]
) -> ProbeDocument:
    """The same input twice, packed and alone: largest absolute difference, 0 if repeatable."""
    packed, unpacked = Worst(), Worst()
    for pack, rows in zip(packs, base, strict=True):
        packed.add(max_abs(embed(subject, pack), rows), "")
        start, end = bounds_of(pack)[-2:]
        tokens = pack.input_ids[start:end].to(subject.device)
        first, second = (embed_unpacked(subject, tokens) for _ in range(2))
        unpacked.add(max_abs(first, second), "")
    return ProbeDocument(
        value=worst_side(packed.value, unpacked.value),
        unit="max abs",
        sides=(packed.value, unpacked.value),
        detail=f"The same input twice differs by {packed.text} packed and by {unpacked.text} "
        "unpacked.",
    )


def probe_leak(
    subject: Subject, packs: Sequence[PackedBatch], base: Sequence[torch.Tensor]
) -> ProbeDocument:
    """Change neighbours' residues, lengths held: every other row must keep its bits.

    Changing the slots whose number has bit b set, and then those that have it clear, for each b,
    asks every ordered pair of slots in 2 log2(n) passes.
    """
    worst, passes = find_leak(subject, packs, base)
    return leak_document(worst, passes, packs)


def find_leak(
    subject: Subject, packs: Sequence[PackedBatch], base: Sequence[torch.Tensor]
) -> tuple[Worst, int]:
    """The largest change of a sequence with its neighbours' residues, and how many passes."""
    worst, passes = Worst(), 0
    for pack, rows in zip(packs, base, strict=True):
        bounds = bounds_of(pack)
        slots = len(bounds) - 1
        for bit in range((slots - 1).bit_length()):
            for wanted in (0, 1):
                changed = [slot for slot in range(slots) if (slot >> bit) & 1 == wanted]
                tokens = pack.input_ids.clone()
                for slot in changed:
                    segment = tokens[bounds[slot] : bounds[slot + 1]]
                    segment[:] = other_residues(segment)
                after = embed(subject, pack.with_tokens(tokens))
                passes += 1
                for slot in set(range(slots)) - set(changed):
                    here = slice(bounds[slot], bounds[slot + 1])
                    worst.add(max_abs(after[here], rows[here]), pack.sequence_ids[slot])
    return worst, passes


def leak_document(worst: Worst, passes: int, packs: Sequence[PackedBatch]) -> ProbeDocument:
    """The probe "leak", from what `find_leak` found."""
    if passes == 0:
        return not_judged("No pack holds two sequences.", "max abs")
    return ProbeDocument(
        value=worst.value,
        unit="max abs",
        detail="A sequence's embedding changes with its neighbours' residues by "
        f"{worst.text}{worst.place}.",
        covers=covered(packs),
        passes=passes,
    )


@dataclass(frozen=True, slots=True)
class Moved:
    """A pack in another order.

    Attributes:
        base: the pack as it was, by its place among those asked about.
        order: its slots, in the order in which they lie in `pack`.
    """

    base: int
    order: list[int]
    pack: PackedBatch


def turned(packs: Sequence[PackedBatch], thirds: Sequence[int] = (1, 2)) -> list[Moved]:
    """Each pack turned round by some thirds."""
    return [
        Moved(number, order, reorder(pack, order))
        for number, pack in enumerate(packs)
        for slots in [len(bounds_of(pack)) - 1]
        for turn in sorted({(third * slots) // 3 for third in thirds} - {0})
        for order in [[(slot + turn) % slots for slot in range(slots)]]
    ]


def backwards(packs: Sequence[PackedBatch]) -> list[Moved]:
    """Each pack reversed; two sequences reversed are two turned, which are asked anyway."""
    return [
        Moved(number, order, reorder(pack, order))
        for number, pack in enumerate(packs)
        for slots in [len(bounds_of(pack)) - 1]
        for order in [list(range(slots))[::-1]]
        if slots > 2 or (slots == 2 and len(packs) == 1)
    ]


def probe_positions(
    subject: Subject,
    packs: Sequence[PackedBatch],
    base: Sequence[torch.Tensor],
    moved: Sequence[Moved],
) -> ProbeDocument:
    """Each sequence at other places of its pack, by packs of `turned`."""
    what = "A sequence's embedding changes at another place of its pack by"
    return _probe_moved(subject, packs, base, moved, what)


def probe_order(
    subject: Subject,
    packs: Sequence[PackedBatch],
    base: Sequence[torch.Tensor],
    moved: Sequence[Moved],
) -> ProbeDocument:
    """The pack reversed, by packs of `backwards`."""
    what = "A sequence's embedding changes in the reversed pack by"
    return _probe_moved(subject, packs, base, moved, what)


def _probe_moved(
    subject: Subject,
    packs: Sequence[PackedBatch],
    base: Sequence[torch.Tensor],
    moved: Sequence[Moved],
    what: str,
) -> ProbeDocument:
    worst, asked = Worst(), []
    for one in moved:
        pack, rows = packs[one.base], base[one.base]
        after = embed(subject, one.pack)
        asked.append(pack)
        bounds, places = bounds_of(pack), bounds_of(one.pack)
        for slot, old in enumerate(one.order):
            error = measures.relative_l2(
                after[places[slot] : places[slot + 1]], rows[bounds[old] : bounds[old + 1]]
            )
            worst.add(error, pack.sequence_ids[old])
    if not asked:
        return not_judged("No pack holds enough sequences to change their places.")
    return ProbeDocument(
        value=worst.value, detail=f"{what} {worst.text}{worst.place}.", covers=covered(asked)
    )


def covered(packs: Sequence[PackedBatch]) -> str:
    """ "packs of 3 and 4 sequences of 5 to 130 tokens", of those that hold several."""
    several = [pack for pack in packs if len(pack.sequence_ids) > 1]
    lengths = [
        end - start for pack in several for start, end in itertools.pairwise(bounds_of(pack))
    ]
    sizes = " and ".join(dict.fromkeys(str(len(pack.sequence_ids)) for pack in several))
    return f"packs of {sizes} sequences of {min(lengths):,} to {max(lengths):,} tokens"
