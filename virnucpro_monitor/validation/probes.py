"""Probes: what a pooled cosine cannot see, asked directly of the packed path.

The probe sequences stand in the protocol, so that probes cost the same on every benchmark set. Each
probe returns raw values; gates judge them later. They come in two parts: some must see the model
before anything else was packed with it, the others come after the benchmark set.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from virnucpro_monitor.records import GATES, Culprit, Json, ProbeDocument, Protocol
from virnucpro_monitor.validation.fingerprints import (
    WeightsWatch,
    fingerprints,
    judge_weights,
)
from virnucpro_monitor.validation.oracle import Oracle, oracle_beside
from virnucpro_monitor.validation.perturb import bounds_of
from virnucpro_monitor.validation.poison import poisoned
from virnucpro_monitor.validation.probe_neighbours import (
    probe_leak,
    probe_order,
    probe_positions,
    probe_repeat,
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
    embed_on_zeros,
    embed_poisoned,
    max_abs,
    not_judged,
    same,
    worst_side,
)
from virnucpro_monitor.validation.probe_sides import (
    Disagreement,
    probe_embedding,
    probe_mask,
)
from virnucpro_monitor.validation.probe_texts import probe_benchmark
from virnucpro_monitor.validation.subject import PackedBatch, Subject, embed_unpacked
from virnucpro_monitor.validation.tokens import encode


@dataclass(slots=True)
class Opening:
    """What was seen before the benchmark set was packed.

    Attributes:
        packs: the packs whose neighbours, places and masks are changed later.
        base: their rows, made on poisoned memory where the protocol has it so.
        problems: of the collator, so far.
        smallest: the pack of one that was embedded first, and its rows then.
        state: how far later passes have moved from the first ones.
        witness: tokens of a sequence, and its unpacked rows before any packed call.
        weights: fingerprints; None where the protocol does not ask.
        shaped: packs of every shape, as the collator made them; None where it was not asked yet.
    """

    packs: list[ProbePack]
    base: list[Probed]
    problems: Problems = field(default_factory=Problems)
    smallest: tuple[ProbePack, torch.Tensor] | None = None
    state: Worst = field(default_factory=Worst)
    witness: tuple[torch.Tensor, torch.Tensor] | None = None
    weights: WeightsWatch | None = None
    shaped: list[ProbePack] | None = None


def open_probes(subject: Subject, protocol: Protocol) -> Opening:
    """The first packed passes of a fresh model: the smallest pack, the longest, the smallest again.

    Raises:
        TargetError: the subject breaks the interface.
    """
    definition: Mapping[str, Json] = protocol.content["probes"]
    short = _named("probe", definition["sequences"])
    if "long" not in definition:  # protocol 1
        batches = [pack for pack in subject.pack(short) if len(pack.sequence_ids) > 0]
        packs = [ProbePack("probes", batch, ()) for batch in batches]
        return Opening(packs, [embed_first_and_last(subject, batch) for batch in batches])
    loaded = fingerprints(subject.tensors())
    tokens = encode(str(definition["witness"])).to(subject.device)
    alone = embed_unpacked(subject, tokens)
    after_unpacked = fingerprints(subject.tensors())
    problems = Problems()
    smallest = collate(subject, [("smallest", str(definition["smallest"]))], "one", problems)[0]
    first = embed_poisoned(subject, smallest.batch)
    weights = WeightsWatch(loaded, after_unpacked, fingerprints(subject.tensors()))
    packs = collate(subject, _named("long", definition["long"]), "longest", problems)
    base = [embed_first_and_last(subject, pack.batch) for pack in packs]
    state = Worst()
    state.add(_moved(embed_poisoned(subject, smallest.batch), first), "smallest pack")
    short_packs = collate(subject, short, "tile edges", problems)
    base += [embed_first_and_last(subject, pack.batch) for pack in short_packs]
    return Opening(
        packs=[*packs, *short_packs],
        base=base,
        problems=problems,
        smallest=(smallest, first),
        state=state,
        witness=(tokens, alone),
        weights=weights,
    )


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
    fractions = protocol.content["probes"]["mask_fractions"]
    opening = opening or open_probes(subject, protocol)
    alone = Alone(subject)
    found = _exact_probes(subject, protocol, opening) if exact else {}
    packs, rows = _parts(opening)
    masked, masked_packs = probe_mask(subject, alone, opening.base, fractions)
    embedding = probe_embedding(alone, opening.base, masked_packs, oracle, fractions)
    if masked.value is not None and embedding.sides:
        # The embedding layer is where masks act, and there each side has the exact answer.
        packed, unpacked = embedding.sides
        if packed is not None and unpacked is not None and unpacked > 10 * max(packed, 1e-6):
            masked = replace(masked, culprit=Culprit.UNPACKED)
    found |= {
        "embedding": embedding,
        "mask": masked,
        "position": probe_positions(subject, packs, rows),
        "order": probe_order(subject, packs, rows),
    }
    if opening.smallest is not None:
        # After the masks, whose unpacked passes give layer 0 as well.
        found["probes"] = _disagreement(subject, alone, protocol, oracle, opening)
    if exact and opening.weights is not None:
        found["state"] = _state(subject, opening)
        found["weights"] = judge_weights(subject, opening.weights, _checkpoint(oracle))
    return {gate.name: found[gate.name] for gate in GATES if gate.name in found}


def _exact_probes(
    subject: Subject, protocol: Protocol, opening: Opening
) -> dict[str, ProbeDocument]:
    """Those whose limit is exactly 0, but for what must come last."""
    packs, rows = _parts(opening)
    if opening.smallest is None:
        repeat = probe_repeat(subject, packs, rows)
        leak = probe_leak(subject, packs, rows)
        if leak.value is not None and repeat.value != 0:
            leak = not_judged(
                "An exact test of leaks means nothing where the same input twice differs.",
                "max abs",
            )
        return {"repeat": repeat, "leak": leak}
    collator_probe(subject, protocol.content["probes"]["collator"], opening.problems)
    unwritten, repeat = probe_steady(subject, opening)
    packs, rows = _parts(opening)  # clean now, where memory that nobody wrote showed
    leak = probe_leak(subject, packs, rows)
    if leak.value is not None and repeat.sides and repeat.sides[0] != 0:
        leak = not_judged(
            "An exact test of leaks means nothing where the same input twice differs.", "max abs"
        )
    opening.shaped = shape_packs(subject, protocol.content["probes"], opening.problems)
    return {
        "collator": opening.problems.document(),
        "unwritten": unwritten,
        "repeat": repeat,
        "leak": leak,
    }


def probe_batches(subject: Subject, protocol: Protocol) -> list[PackedBatch]:
    """The packs whose neighbours, places and masks are changed, as the target makes them."""
    definition = protocol.content["probes"]
    kinds = (("long", definition.get("long", ())), ("probe", definition["sequences"]))
    pairs = [_named(kind, texts) for kind, texts in kinds if texts]
    return [pack for some in pairs for pack in subject.pack(some) if len(pack.sequence_ids) > 0]


def _named(kind: str, texts: Sequence[Json]) -> list[tuple[str, str]]:
    return [(f"{kind}_{number}", str(text)) for number, text in enumerate(texts)]


def _parts(opening: Opening) -> tuple[list[PackedBatch], list[torch.Tensor]]:
    return [one.pack for one in opening.base], [one.last for one in opening.base]


def _moved(after: torch.Tensor, before: torch.Tensor) -> float | None:
    """0 where nothing changed; NaN that was there before is no change."""
    return 0.0 if same(after, before) else max_abs(after, before)


def _checkpoint(oracle: Oracle | None) -> tuple[str, str, Path] | None:
    if oracle is None or not oracle.weights_path.is_file():
        return None
    return oracle.model_name, oracle.weights_digest, oracle.weights_path


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
    for pack, probed in zip(opening.packs, opening.base, strict=True):
        seen.add(pack, probed.last)
    if opening.smallest is not None:
        seen.add(*opening.smallest)
    shaped = opening.shaped
    if shaped is None:
        shaped = shape_packs(subject, protocol.content["probes"], opening.problems)
    for pack in shaped:
        try:
            rows = embed_poisoned(subject, pack.batch)
        except torch.OutOfMemoryError:
            if pack.shape != "huge":
                raise
            continue  # the device has no room for it, and the sentence does not name it
        seen.add(pack, rows)
    return seen.document()


def _state(subject: Subject, opening: Opening) -> ProbeDocument:
    """Whether what ran before changes what comes out."""
    worst = opening.state
    if opening.smallest is not None:
        pack, first = opening.smallest
        worst.add(_moved(embed_poisoned(subject, pack.batch), first), "smallest pack")
    spoilt = False
    if opening.witness is not None:
        tokens, before = opening.witness
        moved = _moved(embed_unpacked(subject, tokens), before)
        spoilt = moved != 0
        worst.add(moved, "a sequence alone, after packed calls")
    return ProbeDocument(
        value=worst.value,
        unit="max abs",
        culprit=Culprit.PACKED,
        spoils_unpacked=spoilt,
        covers="a fresh model: smallest pack, longest, smallest, and both again after the set",
        detail=f"An embedding changes with what ran before by {worst.text}{worst.place}.",
    )


def probe_steady(subject: Subject, opening: Opening) -> tuple[ProbeDocument, ProbeDocument]:
    """Each pack again, on memory of zeros: ("unwritten", "repeat").

    A difference is told apart by asking twice more: it comes with poisoned memory, with what ran
    in between (which `opening.state` is told), or by itself. Where memory that nobody wrote shows,
    the clean rows take the place of the base.
    """
    repeat, alone, unwritten = Worst(), Worst(), Worst()
    with poisoned(subject.device) as possible:
        pass
    for probed in opening.base:
        name = ", ".join(probed.pack.sequence_ids[:2])
        clean = embed_on_zeros(subject, probed.pack)
        if same(clean, probed.last):
            # 0, and None where both are not finite.
            repeat.add(max_abs(clean, probed.last), name)
            continue
        poisonous = embed_poisoned(subject, probed.pack)
        again = embed_on_zeros(subject, probed.pack)
        repeat.add(max_abs(again, clean), name)
        if not same(again, clean):
            continue
        if same(poisonous, probed.last):
            unwritten.add(max_abs(probed.last, clean), name)
            probed.last = clean
        elif same(poisonous, again):
            opening.state.add(max_abs(again, probed.last), name)
        else:
            repeat.add(max_abs(poisonous, probed.last), name)
    if opening.witness is not None:
        tokens, _ = opening.witness
        first, second = (embed_unpacked(subject, tokens) for _ in range(2))
        alone.add(max_abs(first, second), "")
    covers = f"{len(opening.base)} packs, the longest of {_longest(opening):,} tokens"
    steady = ProbeDocument(
        value=worst_side(repeat.value, alone.value),
        unit="max abs",
        sides=(repeat.value, alone.value),
        covers=covers,
        detail=f"The same input twice differs by {repeat.text} packed and by {alone.text} "
        "unpacked.",
    )
    if not possible:
        reason = "Memory cannot be poisoned here: it takes a GPU, or Linux with glibc."
        return not_judged(reason, "max abs"), steady
    return (
        ProbeDocument(
            value=unwritten.value,
            unit="max abs",
            covers=covers,
            detail="With NaN in memory that was not written, an embedding changes by "
            f"{unwritten.text}{unwritten.place}.",
        ),
        steady,
    )


def _longest(opening: Opening) -> int:
    return max(
        end - start
        for one in opening.base
        for start, end in itertools.pairwise(bounds_of(one.pack))
    )
