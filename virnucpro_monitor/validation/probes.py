"""Probes: what a pooled cosine cannot see, asked directly of the packed path.

The probe sequences stand in the protocol, so that probes cost the same on every benchmark set. Each
probe returns raw values; gates judge them later. They come in two parts: some must see the model
before anything else was packed with it, the others come after the benchmark set.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from virnucpro_monitor.data.limits import SPECIAL_TOKENS
from virnucpro_monitor.records import GATES, Culprit, Json, ProbeDocument, Protocol
from virnucpro_monitor.validation.fingerprints import (
    WeightsWatch,
    fingerprints,
    judge_weights,
)
from virnucpro_monitor.validation.kept_inputs import KeptInputs
from virnucpro_monitor.validation.oracle import Oracle, oracle_beside
from virnucpro_monitor.validation.perturb import reorder
from virnucpro_monitor.validation.probe_changes import (
    Steadiness,
    ask_changes,
    change_passes,
    changes_leak_document,
    packs_text,
    pair_sets,
    unwritten_document,
)
from virnucpro_monitor.validation.probe_neighbours import (
    backwards,
    probe_leak,
    probe_order,
    probe_positions,
    probe_repeat,
    turned,
)
from virnucpro_monitor.validation.probe_packs import (
    ProbePack,
    Problems,
    collate,
    collator_probe,
    shape_packs,
)
from virnucpro_monitor.validation.probe_rows import (
    Alone,
    Probed,
    Worst,
    embed_first_and_last,
    embed_poisoned,
    max_abs,
    not_judged,
    same,
    worst_side,
)
from virnucpro_monitor.validation.probe_sides import (
    Disagreement,
    Masked,
    mask_whole,
    probe_embedding,
    probe_mask,
)
from virnucpro_monitor.validation.probe_texts import probe_benchmark
from virnucpro_monitor.validation.subject import (
    PackedBatch,
    Subject,
    are_known,
    embed_unpacked,
    foresee_packs,
)
from virnucpro_monitor.validation.tokens import encode


@dataclass(slots=True)
class Opening:
    """What was seen before the benchmark set was packed.

    Attributes:
        base: the packs whose neighbours, places and masks are changed later, and their rows, made
            on poisoned memory where the protocol has it so.
        full: the first of those, in which every other sequence is changed once.
        reach: the others, in which every pair of neighbours and every place is asked.
        problems: of the collator, so far.
        smallest: the pack of one that was embedded first, and its rows then.
        longest: packs with the longest sequences, and their rows.
        state: how far later passes have moved from the first ones.
        witness: tokens of a sequence, and its unpacked rows before any packed call.
        weights: fingerprints; None where the protocol does not ask.
        disagreement: of the sides on every probe sequence, once it was asked.
    """

    base: list[Probed]
    full: list[ProbePack] = field(default_factory=list)
    reach: list[ProbePack] = field(default_factory=list)
    problems: Problems = field(default_factory=Problems)
    smallest: tuple[ProbePack, torch.Tensor] | None = None
    longest: list[tuple[ProbePack, torch.Tensor]] = field(default_factory=list)
    state: Worst = field(default_factory=Worst)
    witness: tuple[torch.Tensor, torch.Tensor] | None = None
    weights: WeightsWatch | None = None
    disagreement: Disagreement | None = None


def open_probes(subject: Subject, protocol: Protocol) -> Opening:
    """The first packed passes of a fresh model: the smallest pack, the longest, the smallest again.

    Raises:
        TargetError: the subject breaks the interface.
    """
    definition: Mapping[str, Json] = protocol.content["probes"]
    short = _named("probe", definition["sequences"])
    if "long" not in definition:  # protocol 1
        batches = [pack for pack in subject.pack(short) if len(pack.sequence_ids) > 0]
        return Opening([embed_first_and_last(subject, batch) for batch in batches])
    loaded = fingerprints(subject.tensors())
    tokens = encode(str(definition["witness"])).to(subject.device)
    alone = embed_unpacked(subject, tokens)
    after_unpacked = fingerprints(subject.tensors())
    problems = Problems()
    smallest = collate(subject, [("smallest", str(definition["smallest"]))], "one", problems)[0]
    first = embed_poisoned(subject, smallest.batch)
    weights = WeightsWatch(loaded, after_unpacked, fingerprints(subject.tensors()))
    opening = Opening(
        base=[],
        problems=problems,
        smallest=(smallest, first),
        witness=(tokens, alone),
        weights=weights,
    )
    for pack in _collated(subject, definition, "longest", problems):
        opening.longest.append((pack, embed_poisoned(subject, pack.batch)))
    opening.state.add(_moved(embed_poisoned(subject, smallest.batch), first), "smallest pack")
    opening.full = _collated(subject, definition, "long", problems)
    opening.reach = _collated(subject, definition, "sequences", problems)
    for pack in (*opening.full, *opening.reach):
        opening.base.append(embed_first_and_last(subject, pack.batch))
    return opening


# Key of the protocol's probes -> what its ids begin with, the pack's shape, and whether it is to
# fill its budget to the last token.
_PACKS = {
    "longest": ("longest", "longest", False),
    "long": ("long", "full to the last token", True),
    "sequences": ("probe", "tile edges", False),
}


def _collated(
    subject: Subject, definition: Mapping[str, Json], key: str, problems: Problems
) -> list[ProbePack]:
    """The packs of one list of sequences, which are together in one whatever the run's budget."""
    prefix, shape, full = _PACKS[key]
    pairs = _named(prefix, definition[key])
    budget = sum(len(text) + SPECIAL_TOKENS for _, text in pairs)
    if not full:
        budget = max(budget, subject.token_budget)
    return collate(subject, pairs, shape, problems, budget=budget)


def run_probes(
    subject: Subject,
    protocol: Protocol,
    oracle: Oracle | None,
    *,
    exact: bool = True,
    opening: Opening | None = None,
) -> dict[str, ProbeDocument]:
    """Run every probe of the protocol: by name, what it found.

    A value that is not finite is None, and fails its gate. `not_judged` says why a probe could
    not run on this target.

    Args:
        exact: whether to run the probes whose limit is exactly 0 (leak, repeat, state, …), too.
        opening: what `open_probes` saw before the benchmark set; None to open now.

    Raises:
        TargetError: the subject breaks the interface.
    """
    opening = opening or open_probes(subject, protocol)
    alone = Alone(subject)
    if opening.smallest is None:
        found = _probe_each(subject, protocol, oracle, alone, opening, exact)
    else:
        found = _probe_together(subject, protocol, oracle, alone, opening, exact)
    return {gate.name: found[gate.name] for gate in GATES if gate.name in found}


def _probe_each(
    subject: Subject,
    protocol: Protocol,
    oracle: Oracle | None,
    alone: Alone,
    opening: Opening,
    exact: bool,
) -> dict[str, ProbeDocument]:
    """A pass for each question: protocol 1."""
    packs, rows = [one.pack for one in opening.base], [one.last for one in opening.base]
    found = {}
    if exact:
        found["repeat"], found["leak"] = (
            probe_repeat(subject, packs, rows),
            probe_leak(subject, packs, rows),
        )
        if found["leak"].value is not None and found["repeat"].value != 0:
            found["leak"] = not_judged(
                "An exact test of leaks means nothing where the same input twice differs.",
                "max abs",
            )
    masked = mask_whole(subject, opening.base, protocol.content["probes"]["mask_fractions"])
    found |= _masks(alone, oracle, opening.base, masked, Worst())
    return found | {
        "position": probe_positions(subject, packs, rows, turned(packs)),
        "order": probe_order(subject, packs, rows, backwards(packs)),
    }


def _probe_together(
    subject: Subject,
    protocol: Protocol,
    oracle: Oracle | None,
    alone: Alone,
    opening: Opening,
    exact: bool,
) -> dict[str, ProbeDocument]:
    """Passes that ask several questions at once: from protocol 2 on."""
    definition = protocol.content["probes"]
    fractions = [share for share in definition["mask_fractions"] if share > 0]
    reach = len(opening.base) - len(opening.reach)
    changes = [
        change
        for number, probed in enumerate(opening.base)
        for change in change_passes(subject, probed, _sets(probed, number >= reach), fractions)
    ]
    found: dict[str, ProbeDocument] = {}
    steady = Steadiness(opening.state)
    if exact:
        collator_probe(subject, definition["collator"], opening.problems)
        ask_changes(subject, opening.base, changes, steady)
        found |= {
            "unwritten": unwritten_document(subject, opening.base, steady),
            "leak": changes_leak_document(opening.base, steady),
        }
    placed = opening.base[reach:]
    packs, rows = [one.pack for one in placed], [one.last for one in placed]
    turns, reversals = turned(packs, thirds=(1,)), backwards(packs)
    reordered = [one.pack for one in (*turns, *reversals)]
    foresee_packs(subject, reordered, [subject.num_layers], "", at_once=True)
    masked = [Masked(one.base, one.probed, one.shares) for one in changes]
    found |= _masks(alone, oracle, opening.base, masked, steady.masks)
    found |= {
        "position": probe_positions(subject, packs, rows, turns),
        "order": probe_order(subject, packs, rows, reversals),
    }
    # After the masks, whose unpacked passes give layer 0 as well.
    found["probes"] = _disagreement(subject, alone, protocol, oracle, opening)
    if exact:
        found["collator"] = opening.problems.document()
        moved, alone_repeat = _again_alone(subject, opening)
        found["repeat"] = _repeat_document(opening, steady, alone_repeat)
        found["state"] = _state(subject, opening, moved, alone_repeat)
        if opening.weights is not None:
            found["weights"] = judge_weights(subject, opening.weights, _checkpoint(oracle))
    return found


def _sets(probed: Probed, every_pair: bool) -> list[list[int]]:
    """The slots that each pass over a pack changes: for every pair, or every other one once."""
    slots = len(probed.pack.sequence_ids)
    if slots == 1:
        return [[0]]
    return pair_sets(slots) if every_pair else [list(range(1, slots, 2))]


def _masks(
    alone: Alone,
    oracle: Oracle | None,
    base: Sequence[Probed],
    masked_packs: Sequence[Masked],
    worst: Worst,
) -> dict[str, ProbeDocument]:
    masked = probe_mask(alone, masked_packs, worst)
    embedding = probe_embedding(alone, base, masked_packs, oracle)
    if masked.value is not None and embedding.sides:
        # The embedding layer is where masks act, and there each side has the exact answer.
        packed, unpacked = embedding.sides
        if packed is not None and unpacked is not None and unpacked > 10 * max(packed, 1e-6):
            masked = replace(masked, culprit=Culprit.UNPACKED)
    return {"mask": masked, "embedding": embedding}


# Gates that say nothing of which pack is wrong, where the sides disagree in one.
_ASKED_BESIDE = frozenset({"probes", "state", "collator"})


def probe_batches(
    subject: Subject,
    protocol: Protocol,
    opening: Opening | None = None,
    failing: Mapping[str, float | None] | None = None,
) -> list[PackedBatch]:
    """The packs to trace where only probes fail, as the target makes them.

    They are those whose neighbours, places and masks are changed; where the sides merely disagree
    on some length or in some shape, the shortest pack in which they do.

    Args:
        failing: the gates that fail, and their limits.
    """
    definition = protocol.content["probes"]
    if failing and "probes" in failing and _ASKED_BESIDE.issuperset(failing):
        seen = None if opening is None else opening.disagreement
        shortest = None if seen is None else seen.smallest_beyond(failing["probes"] or 0.0)
        if shortest is not None:
            return [shortest]
    if "long" not in definition:
        pairs = _named("probe", definition["sequences"])
        return [pack for pack in subject.pack(pairs) if len(pack.sequence_ids) > 0]
    packs = [
        pack.batch
        for key in ("long", "sequences")
        for pack in _collated(subject, definition, key, Problems())
    ]
    if failing and {"position", "order"} & set(failing):
        packs += [reorder(pack, order) for pack in packs for order in _other_orders(pack)]
    return packs


def _other_orders(pack: PackedBatch) -> list[list[int]]:
    """A pack turned by one sequence, and reversed."""
    slots = list(range(len(pack.sequence_ids)))
    return [[*slots[1:], *slots[:1]], slots[::-1]] if len(slots) > 1 else []


def _named(kind: str, texts: Sequence[Json]) -> list[tuple[str, str]]:
    return [(f"{kind}_{number}", str(text)) for number, text in enumerate(texts)]


def _moved(after: torch.Tensor, before: torch.Tensor) -> float | None:
    """0 where nothing changed; NaN that was there before is no change."""
    return 0.0 if same(after, before) else max_abs(after, before)


def _checkpoint(oracle: Oracle | None) -> tuple[str, str, Path] | None:
    path = None if oracle is None else oracle.weights_path
    if oracle is None or path is None or not path.is_file():
        return None
    return oracle.model_name, oracle.weights_digest, path


def _disagreement(
    subject: Subject,
    alone: Alone,
    protocol: Protocol,
    oracle: Oracle | None,
    opening: Opening,
) -> ProbeDocument:
    """Packed against unpacked, and both against FP32, on every probe sequence in every shape."""
    benchmark = probe_benchmark(protocol)
    exact = None if oracle is None else oracle_beside(oracle, benchmark, str(subject.device))
    seen = Disagreement(alone, benchmark, exact)
    # Where sequences alone are known, the packs' own are all that is asked for, in either order.
    shaped = _foreseen_shapes(subject, protocol, opening) if are_known(subject) else None
    for pack, probed in zip((*opening.full, *opening.reach), opening.base, strict=True):
        seen.add(pack, probed.last)
    for pack, rows in (*([opening.smallest] if opening.smallest else ()), *opening.longest):
        seen.add(pack, rows)
    for pack in _foreseen_shapes(subject, protocol, opening) if shaped is None else shaped:
        try:
            rows = embed_poisoned(subject, pack.batch)
        except torch.OutOfMemoryError:
            if pack.shape != "huge":
                raise
            continue  # the device has no room for it, and the sentence does not name it
        seen.add(pack, rows)
    opening.disagreement = seen
    return seen.document()


def _foreseen_shapes(subject: Subject, protocol: Protocol, opening: Opening) -> list[ProbePack]:
    """The packs of every shape, which may be embedded before the first is wanted."""
    shaped = shape_packs(subject, protocol.content["probes"], opening.problems)
    packs = [pack.batch for pack in shaped]
    foresee_packs(subject, packs, [subject.num_layers], "nan", at_once=True)
    return shaped


def _again_alone(subject: Subject, opening: Opening) -> tuple[float | None, float | None]:
    """The witness after all packed calls: how far it has moved, and how far it repeats itself."""
    if opening.witness is None:
        return 0.0, 0.0
    tokens, before = opening.witness
    after = embed_unpacked(subject, tokens)
    if same(after, before):
        return 0.0, max_abs(after, before)
    return max_abs(after, before), max_abs(embed_unpacked(subject, tokens), after)


def _state(
    subject: Subject, opening: Opening, moved: float | None, again: float | None
) -> ProbeDocument:
    """Whether what ran before changes what comes out.

    Args:
        moved, again: how far a sequence alone has, and how far it repeats itself, by
            `_again_alone`.
    """
    worst = opening.state
    if opening.smallest is not None:
        pack, first = opening.smallest
        worst.add(_moved(embed_poisoned(subject, pack.batch), first), "smallest pack")
    told = ""
    changed = subject.changed if isinstance(subject, KeptInputs) else {}
    for (side, name), size in changed.items():
        if worst.add(size, f"`{name}`"):
            told = f"A pass of {side} changed the `{name}` that it was given, by up to {size:g}."
    if again == 0:  # else it moves by itself, which the gate "repeat" tells
        worst.add(moved, "a sequence alone, after packed calls")
    return ProbeDocument(
        value=worst.value,
        unit="max abs",
        culprit=Culprit.UNPACKED
        if told and not any(side is Culprit.PACKED for side, _ in changed)
        else Culprit.PACKED,
        spoils_unpacked=moved != 0 and again == 0,
        covers="a fresh model: smallest pack, longest, smallest, and again after the set",
        detail=told or f"An embedding changes with what ran before by {worst.text}{worst.place}.",
    )


def _repeat_document(opening: Opening, steady: Steadiness, alone: float | None) -> ProbeDocument:
    unpacked = Worst()
    unpacked.add(alone, "")
    return ProbeDocument(
        value=worst_side(steady.repeat.value, alone),
        unit="max abs",
        sides=(steady.repeat.value, alone),
        covers=packs_text(opening.base),
        detail=f"The same input twice differs by {steady.repeat.text} packed and by "
        f"{unpacked.text} unpacked.",
    )
