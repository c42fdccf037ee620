"""Probes: what a pooled cosine cannot see, asked directly of the packed path.

The probe sequences stand in the protocol (a few hundred tokens, lengths at tile edges), so that
probes cost the same on every benchmark set. Each probe returns raw values; gates judge them later.
"""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

import torch

from virnucpro_monitor.data.pooling import mean_pool
from virnucpro_monitor.records import Culprit, Json, ProbeDocument, Protocol
from virnucpro_monitor.validation import measures
from virnucpro_monitor.validation.embedding_faults import name_embedding_fault
from virnucpro_monitor.validation.measure import check_batch
from virnucpro_monitor.validation.oracle import Oracle
from virnucpro_monitor.validation.perturb import (
    bounds_of,
    expected_embedding,
    mask_pack,
    other_residues,
    reorder,
)
from virnucpro_monitor.validation.subject import PackedBatch, Subject, embed_packed, embed_unpacked

# Rows of one token differ by more than this only where a layer mixes positions.
_SAME_TOKEN_TOLERANCE = 1e-2


def run_probes(
    subject: Subject, protocol: Protocol, oracle: Oracle | None, *, exact: bool = True
) -> dict[str, ProbeDocument]:
    """Run every probe of the protocol: by name, what it found.

    A value that is not finite is None, and fails its gate. `not_judged` says why a probe could
    not run on this target.

    Args:
        exact: whether to run the two probes whose limit is exactly 0, repeat and leak.

    Raises:
        TargetError: the subject breaks the interface.
    """
    definition: Mapping[str, Json] = protocol.content["probes"]
    packs = probe_batches(subject, protocol)
    base = [_embed(subject, pack) for pack in packs]
    masked = probe_mask(subject, packs, base, definition["mask_fractions"])
    embedding = probe_embedding(subject, packs, definition["mask_fractions"], oracle)
    if masked.value is not None and embedding.sides:
        # The embedding layer is where masks act, and there each side has the exact answer.
        packed, unpacked = embedding.sides
        if packed is not None and unpacked is not None and unpacked > 10 * max(packed, 1e-6):
            masked = replace(masked, culprit=Culprit.UNPACKED)
    return {
        **(_exact_probes(subject, packs, base) if exact else {}),
        "position": probe_positions(subject, packs, base),
        "order": probe_order(subject, packs, base),
        "embedding": embedding,
        "mask": masked,
    }


def probe_batches(subject: Subject, protocol: Protocol) -> list[PackedBatch]:
    """The packs that the probes ask about."""
    texts = protocol.content["probes"]["sequences"]
    pairs = [(f"probe_{number}", text) for number, text in enumerate(texts)]
    return [pack for pack in subject.pack(pairs) if len(pack.sequence_ids) > 0]


def _exact_probes(
    subject: Subject, packs: Sequence[PackedBatch], base: Sequence[torch.Tensor]
) -> dict[str, ProbeDocument]:
    repeat, leak = probe_repeat(subject, packs, base), probe_leak(subject, packs, base)
    if leak.value is not None and repeat.value != 0:
        leak = _not_judged(
            "An exact test of leaks means nothing where the same input twice differs.", "max abs"
        )
    return {"repeat": repeat, "leak": leak}


def probe_repeat(
    subject: Subject, packs: Sequence[PackedBatch], base: Sequence[torch.Tensor]
) -> ProbeDocument:
    """The same input twice, packed and alone: largest absolute difference, 0 if repeatable."""
    packed, unpacked = _Worst(), _Worst()
    for pack, rows in zip(packs, base, strict=True):
        packed.add(_max_abs(_embed(subject, pack), rows), "")
        start, end = bounds_of(pack)[-2:]
        tokens = pack.input_ids[start:end].to(subject.device)
        first, second = (embed_unpacked(subject, tokens) for _ in range(2))
        unpacked.add(_max_abs(first, second), "")
    return ProbeDocument(
        value=_worst_side(packed.value, unpacked.value),
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
    worst, passes = _Worst(), 0
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
                after = _embed(subject, pack.with_tokens(tokens))
                passes += 1
                for slot in set(range(slots)) - set(changed):
                    here = slice(bounds[slot], bounds[slot + 1])
                    worst.add(_max_abs(after[here], rows[here]), pack.sequence_ids[slot])
    if passes == 0:
        return _not_judged("No pack holds two sequences.", "max abs")
    return ProbeDocument(
        value=worst.value,
        unit="max abs",
        detail="A sequence's embedding changes with its neighbours' residues by "
        f"{worst.text}{worst.place}.",
        passes=passes,
    )


def probe_positions(
    subject: Subject, packs: Sequence[PackedBatch], base: Sequence[torch.Tensor]
) -> ProbeDocument:
    """Each sequence at two other places of its pack, by turning the pack round."""

    def orders(slots: int) -> Iterator[list[int]]:
        for turn in sorted({slots // 3, (2 * slots) // 3} - {0}):
            yield [(slot + turn) % slots for slot in range(slots)]

    return _probe_reordered(
        subject,
        packs,
        base,
        orders,
        "A sequence's embedding changes at another place of its pack by",
    )


def probe_order(
    subject: Subject, packs: Sequence[PackedBatch], base: Sequence[torch.Tensor]
) -> ProbeDocument:
    """The pack reversed."""

    def orders(slots: int) -> Iterator[list[int]]:
        if slots > 1:
            yield list(reversed(range(slots)))

    return _probe_reordered(
        subject, packs, base, orders, "A sequence's embedding changes in the reversed pack by"
    )


def probe_mask(
    subject: Subject,
    packs: Sequence[PackedBatch],
    base: Sequence[torch.Tensor],
    fractions: Sequence[float],
) -> ProbeDocument:
    """`<mask>` at each fraction: how much more the sides disagree than 2 x without masks."""
    worst = _Worst()
    by_fraction: dict[str, float] = {}
    for pack, rows in zip(packs, base, strict=True):
        masked, shares = mask_pack(pack, [fraction for fraction in fractions if fraction > 0])
        plain = _disagreements(subject, pack, rows)
        found = _disagreements(subject, masked, _embed(subject, masked))
        for slot, (error, without) in enumerate(zip(found, plain, strict=True)):
            for share, value in ((0.0, without), (shares[slot], error)):
                if value is not None:
                    by_fraction[f"{share:g}"] = max(value, by_fraction.get(f"{share:g}", 0.0))
            excess = None
            if error is not None and without is not None:
                excess = max(0.0, error - 2 * without)
            worst.add(excess, f"{pack.sequence_ids[slot]} with {shares[slot]:.0%} masked")
    return ProbeDocument(
        value=worst.value,
        detail="With <mask> tokens packed and unpacked disagree by "
        f"{worst.text} beyond twice their disagreement without{worst.place}.",
        disagreement=by_fraction,
    )


def probe_embedding(
    subject: Subject,
    packs: Sequence[PackedBatch],
    fractions: Sequence[float],
    oracle: Oracle | None,
) -> ProbeDocument:
    """The embedding layer alone against the checkpoint's own table, with and without masks."""
    packed_worst, unpacked_worst = _Worst(), _Worst()
    worst_rows: tuple[torch.Tensor, torch.Tensor, torch.Tensor] | None = None
    table = None if oracle is None else torch.from_numpy(oracle.embedding.copy())
    try:
        for pack in packs:
            bounds = bounds_of(pack)
            for kinds in ([0.0], [fraction for fraction in fractions if fraction > 0]):
                masked, shares = mask_pack(pack, kinds)
                rows = _embed(subject, masked, layer=0)
                parts = [masked.input_ids[start:end] for start, end in itertools.pairwise(bounds)]
                singles = [
                    embed_unpacked(subject, one.to(subject.device), 0).cpu() for one in parts
                ]
                if (
                    kinds == [0.0]
                    and _mixes_positions(rows, masked.input_ids)
                    and not _mostly_equal(rows.cpu(), torch.cat(singles))
                ):
                    return _not_judged(
                        "The target numbers its hidden layers in its own way: its layer 0 is not "
                        "the embedding."
                    )
                for slot, (start, end) in enumerate(itertools.pairwise(bounds)):
                    tokens, alone = parts[slot].cpu(), singles[slot]
                    packed = rows[start:end].cpu()
                    exact = alone if table is None else expected_embedding(table, tokens)
                    where = f"{pack.sequence_ids[slot]} with {shares[slot]:.0%} masked"
                    if packed_worst.add(measures.relative_l2(packed, exact), where):
                        worst_rows = (packed, exact, tokens)
                    if table is not None:
                        unpacked_worst.add(measures.relative_l2(alone, exact), where)
    except Exception as error:  # the target's own code: whatever it raises, it has no layer 0
        return _not_judged(f"The target does not give its embedding layer ({error!r}).")
    signature = None if worst_rows is None else name_embedding_fault(*worst_rows)
    document = ProbeDocument(
        value=packed_worst.value,
        factor=None if worst_rows is None else measures.scale_factor(*worst_rows[:2]),
        looks_like=signature.text if signature else None,
        signature=signature.name if signature else None,
        detail="The packed embedding layer is off the unpacked one by "
        f"{packed_worst.text}{packed_worst.place}.",
    )
    if table is None:
        return document
    return replace(
        document,
        value=_worst_side(packed_worst.value, unpacked_worst.value),
        sides=(packed_worst.value, unpacked_worst.value),
        detail=f"The embedding layer is off the checkpoint's own by {packed_worst.text} packed"
        f"{packed_worst.place} and by {unpacked_worst.text} unpacked.",
    )


class _Worst:
    """The largest value seen and where; a value that is not finite beats every other."""

    def __init__(self) -> None:
        self._value, self._broken, self.where, self._any = 0.0, False, "", False

    def add(self, value: float | None, where: str) -> bool:
        """Returns whether this is the worst so far."""
        if self._broken:
            return False
        if value is None:
            self._broken, self.where = True, where
            return True
        worst = not self._any or value > self._value
        self._any = True
        if worst:
            self._value, self.where = value, where
        return worst

    @property
    def value(self) -> float | None:
        return None if self._broken else self._value

    @property
    def text(self) -> str:
        if self._broken:
            return "a value that is not finite"
        value = self._value
        return f"{value:.2g}" if value == 0 or 1e-3 <= value < 1e4 else f"{value:.1e}"

    @property
    def place(self) -> str:
        return f" (most: {self.where})" if self.where and self.value != 0 else ""


def _not_judged(reason: str, unit: str = "relative L2") -> ProbeDocument:
    return ProbeDocument(unit=unit, not_judged=reason)


def _worst_side(packed: float | None, unpacked: float | None) -> float | None:
    return None if packed is None or unpacked is None else max(packed, unpacked)


def _embed(subject: Subject, pack: PackedBatch, layer: int | None = None) -> torch.Tensor:
    rows = embed_packed(subject, pack, layer)
    check_batch(pack, rows)
    return rows


def _max_abs(a: torch.Tensor, b: torch.Tensor) -> float | None:
    """Largest absolute difference; exactly 0 only where all values are equal."""
    if a.numel() == 0:
        return 0.0
    return measures.finite_or_none(float((a.double() - b.double()).abs().max()))


def _probe_reordered(
    subject: Subject,
    packs: Sequence[PackedBatch],
    base: Sequence[torch.Tensor],
    orders: Callable[[int], Iterator[list[int]]],
    what: str,
) -> ProbeDocument:
    worst, passes = _Worst(), 0
    for pack, rows in zip(packs, base, strict=True):
        bounds = bounds_of(pack)
        for order in orders(len(bounds) - 1):
            moved = reorder(pack, order)
            after = _embed(subject, moved)
            passes += 1
            places = bounds_of(moved)
            for slot, old in enumerate(order):
                error = measures.relative_l2(
                    after[places[slot] : places[slot + 1]], rows[bounds[old] : bounds[old + 1]]
                )
                worst.add(error, pack.sequence_ids[old])
    if passes == 0:
        return _not_judged("No pack holds enough sequences to change their places.")
    return ProbeDocument(value=worst.value, detail=f"{what} {worst.text}{worst.place}.")


def _disagreements(subject: Subject, pack: PackedBatch, rows: torch.Tensor) -> list[float | None]:
    """Pooled relative L2 at the last layer, packed against unpacked, of each slot of a pack."""
    found = []
    for start, end in itertools.pairwise(bounds_of(pack)):
        tokens = pack.input_ids[start:end].to(subject.device)
        alone = embed_unpacked(subject, tokens)
        packed_mean = mean_pool(rows[start + 1 : end - 1]).cpu()
        found.append(measures.relative_l2(packed_mean, mean_pool(alone[1:-1]).cpu()))
    return found


def _mostly_equal(packed: torch.Tensor, alone: torch.Tensor) -> bool:
    """Whether half of the rows [tokens, D] agree: then it is one layer with a fault, not two."""
    off = (packed.double() - alone.double()).norm(dim=-1) / alone.double().norm(dim=-1)
    return float((off <= _SAME_TOKEN_TOLERANCE).double().mean()) >= 0.5


def _mixes_positions(rows: torch.Tensor, tokens: torch.Tensor) -> bool:
    """Whether rows of one token differ, which an embedding layer cannot do."""
    if not bool(torch.isfinite(rows).all()):
        return False
    tokens = tokens.to(rows.device)
    for token in torch.unique(tokens).tolist():
        same = rows[tokens == token].double()
        spread = (same - same[0]).norm(dim=-1).max() / same[0].norm()
        if not bool(spread <= _SAME_TOKEN_TOLERANCE):
            return True
    return False
