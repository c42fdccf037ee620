"""One pass, several questions: some sequences of a pack changed and masked, the others left alone.

Each pass runs on memory of zeros, after a first one on memory of NaN. A sequence that was left
alone must keep its bits: then nothing leaks into it, the pass repeats itself, nobody left its rows
unwritten and nothing that ran in between shows. A sequence that was changed carries `<mask>` and
other residues than before, and is compared with the same tokens alone. Only where a bit moves is
the pack asked again, one question at a time.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from virnucpro_monitor.records import ProbeDocument
from virnucpro_monitor.validation import measures
from virnucpro_monitor.validation.perturb import bounds_of, mask_tokens, other_residues
from virnucpro_monitor.validation.poison import poisoned
from virnucpro_monitor.validation.probe_neighbours import find_leak, leak_document
from virnucpro_monitor.validation.probe_rows import (
    Probed,
    Worst,
    embed_first_and_last,
    embed_on_zeros,
    embed_poisoned,
    max_abs,
    not_judged,
    same,
)
from virnucpro_monitor.validation.subject import Subject, foresee_packs


@dataclass(frozen=True, slots=True)
class Changed:
    """A pass over a pack of which some slots hold other residues and masks.

    Attributes:
        base: the pack as it was, and its rows.
        probed: the changed pack, and its rows.
        shares: of each slot's residues, how many are masked; 0 where it was left alone.
        kept: [tokens] bool, those of the slots that were left alone.
    """

    base: Probed
    probed: Probed
    shares: tuple[float, ...]
    kept: torch.Tensor

    @property
    def keeps_its_bits(self) -> bool:
        kept = self.kept.to(self.probed.last.device)
        return same(self.probed.last[kept], self.base.last[kept])


def pair_sets(slots: int) -> list[list[int]]:
    """Sets of slots such that, of each ordered pair, some set holds the first and not the second.

    Each slot is in half of the sets, and no two are in the same ones: the fewest sets there are.
    """
    if slots < 2:
        return []
    count = 2
    while len(members := list(itertools.combinations(range(count), count // 2))) < slots:
        count += 1
    sets: list[list[int]] = [[] for _ in range(count)]
    for slot, which in zip(range(slots), members, strict=False):
        for number in which:
            sets[number].append(slot)
    return sets


def change_passes(
    subject: Subject, probed: Probed, sets: Sequence[Sequence[int]], fractions: Sequence[float]
) -> list[Changed]:
    """Run a pass for each set of slots to change; masked at one of `fractions`, by the slot."""
    bounds = bounds_of(probed.pack)
    slots = list(itertools.pairwise(bounds))
    made = []
    for chosen in sets:
        tokens = probed.pack.input_ids.clone()
        kept = torch.ones(tokens.shape[0], dtype=torch.bool)
        kept[bounds[-1] :] = False  # tokens of no sequence
        masked = [0.0] * len(slots)
        for slot in chosen:
            start, end = slots[slot]
            masked[slot] = fractions[slot % len(fractions)]
            tokens[start:end] = mask_tokens(other_residues(tokens[start:end]), masked[slot])
            kept[start:end] = False
        made.append((probed.pack.with_tokens(tokens), tuple(masked), kept))
    foresee_packs(subject, [pack for pack, _, _ in made], [0, subject.num_layers], "zeros")
    return [
        Changed(probed, embed_first_and_last(subject, pack, on_zeros=True), shares, kept)
        for pack, shares, kept in made
    ]


@dataclass(slots=True)
class Steadiness:
    """What passes over the same packs found: by themselves, by memory, by what ran in between.

    Attributes:
        leak: the largest change of a sequence with its neighbours' residues.
        masks: and with its neighbours' masks alone, as relative L2.
        passes: that asked for leaks.
    """

    state: Worst
    repeat: Worst = field(default_factory=Worst)
    unwritten: Worst = field(default_factory=Worst)
    leak: Worst = field(default_factory=Worst)
    masks: Worst = field(default_factory=Worst)
    passes: int = 0


def ask_changes(
    subject: Subject, base: Sequence[Probed], changes: Sequence[Changed], found: Steadiness
) -> None:
    """Judge what was left alone in each pass, and tell a difference apart by asking again.

    Where memory that nobody wrote shows, the clean rows take the place of the base.
    """
    for probed in base:
        own = [one for one in changes if one.base is probed and bool(one.kept.any())]
        name = ", ".join(probed.pack.sequence_ids[:2])
        if own and all(one.keeps_its_bits for one in own):
            exactly = 0.0 if bool(torch.isfinite(probed.last).all()) else None
            found.repeat.add(exactly, name)
            found.leak.add(exactly, "")
            found.passes += len(own)
            continue
        steady = _tell_apart(subject, probed, name, found)
        leak, passes = find_leak(subject, [probed.pack], [probed.last])
        found.passes += passes
        if passes:
            found.leak.add(leak.value, leak.where)
        if own and steady and leak.value == 0:
            error = max(
                (measures.relative_l2(one.probed.last[one.kept], probed.last[one.kept]) or 0.0)
                for one in own
            )
            found.masks.add(error, f"{name}, beside masked ones")


def _tell_apart(subject: Subject, probed: Probed, name: str, found: Steadiness) -> bool:
    """A difference comes with poisoned memory, with what ran in between, or by itself.

    Returns:
        Whether none of these makes one.
    """
    clean = embed_on_zeros(subject, probed.pack)
    if same(clean, probed.last):
        # 0, and None where both are not finite.
        found.repeat.add(max_abs(clean, probed.last), name)
        return bool(torch.isfinite(clean).all())
    poisonous = embed_poisoned(subject, probed.pack)
    again = embed_on_zeros(subject, probed.pack)
    found.repeat.add(max_abs(again, clean), name)
    if not same(again, clean):
        return False
    if same(poisonous, probed.last):
        found.unwritten.add(max_abs(probed.last, clean), name)
        probed.last = clean
    elif same(poisonous, again):
        found.state.add(max_abs(again, probed.last), name)
    else:
        found.repeat.add(max_abs(poisonous, probed.last), name)
    return False


def changes_leak_document(base: Sequence[Probed], found: Steadiness) -> ProbeDocument:
    """The probe "leak"."""
    if found.leak.value is not None and found.repeat.value != 0 and found.passes:
        return not_judged(
            "An exact test of leaks means nothing where the same input twice differs.", "max abs"
        )
    return leak_document(found.leak, found.passes, [one.pack for one in base])


def unwritten_document(
    subject: Subject, base: Sequence[Probed], found: Steadiness
) -> ProbeDocument:
    """The probe "unwritten"."""
    with poisoned(subject.device) as possible:
        pass
    if not possible:
        reason = "Memory cannot be poisoned here: it takes a GPU, or Linux with glibc."
        return not_judged(reason, "max abs")
    return ProbeDocument(
        value=found.unwritten.value,
        unit="max abs",
        covers=packs_text(base),
        detail="With NaN in memory that was not written, an embedding changes by "
        f"{found.unwritten.text}{found.unwritten.place}.",
    )


def packs_text(base: Sequence[Probed]) -> str:
    """ "2 packs, the longest of 513 tokens"."""
    longest = max(
        (end - start for one in base for start, end in itertools.pairwise(bounds_of(one.pack))),
        default=0,
    )
    return f"{len(base)} packs, the longest of {longest:,} tokens"
