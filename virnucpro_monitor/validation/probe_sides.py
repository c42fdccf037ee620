"""Probes that compare the two sides: on every length and shape, with masks, and at layer 0."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from virnucpro_monitor.data.limits import RESIDUE_LETTERS
from virnucpro_monitor.data.pooling import mean_pool
from virnucpro_monitor.records import BenchmarkSet, Culprit, ProbeDocument
from virnucpro_monitor.validation import measures
from virnucpro_monitor.validation.embedding_faults import name_embedding_fault
from virnucpro_monitor.validation.oracle import Oracle
from virnucpro_monitor.validation.perturb import bounds_of, expected_embedding, mask_pack
from virnucpro_monitor.validation.probe_packs import ProbePack
from virnucpro_monitor.validation.probe_rows import (
    Alone,
    Probed,
    Worst,
    embed_first_and_last,
    not_judged,
    worst_side,
)
from virnucpro_monitor.validation.subject import PackedBatch, Subject
from virnucpro_monitor.validation.tokens import encode

# Rows of one token differ by more than this only where a layer mixes positions.
_SAME_TOKEN_TOLERANCE = 1e-2
# One side is the wrong one where it is this many times further from the oracle than the other.
_CLEAR_FACTOR = 2.0
_TELLING_TOKENS = 16


class Disagreement:
    """Packed against unpacked over all residues of each probe sequence, in every pack.

    Args:
        benchmark: the probe sequences, each text once.
        oracle: their FP32 embeddings; None to compare the sides alone.
    """

    def __init__(self, alone: Alone, benchmark: BenchmarkSet, oracle: Oracle | None) -> None:
        self._oracle = oracle
        self._indices = {one.residues: n for n, one in enumerate(benchmark.sequences)}
        self._compute, self._alone = alone, dict[str, torch.Tensor]()
        self._alone_errors: dict[str, float | None] = {}
        self._exact: dict[str, torch.Tensor] = {}
        self._between, self._packed, self._unpacked = Worst(), Worst(), Worst()
        self._lengths: set[int] = set()
        self._letters: set[str] = set()
        self._shapes: dict[str, None] = {}
        self._at_worst: tuple[float | None, float | None] = (None, None)
        self._packs: list[tuple[float | None, PackedBatch]] = []

    def add(self, pack: ProbePack, rows: torch.Tensor) -> None:
        """Compare every slot of a pack; rows: [tokens, D]."""
        self._shapes[pack.shape] = None
        bounds = bounds_of(pack.batch)
        lengths = [end - start - 2 for start, end in itertools.pairwise(bounds)]
        inner = torch.ones(len(rows), dtype=torch.bool)
        inner[bounds[:-1]] = inner[[end - 1 for end in bounds[1:]]] = False
        inner[bounds[-1] :] = False
        packed = rows[inner.to(rows.device)]
        alone = torch.cat([self._alone_of(text) for text in pack.texts]).to(rows.device)
        between = measures.slots_relative_l2(packed, alone, lengths)
        exact: list[float | None] = [None] * len(lengths)
        if self._oracle is not None:
            rows_of_oracle = torch.cat([self._exact_of(text, rows.device) for text in pack.texts])
            exact = measures.slots_relative_l2(packed, rows_of_oracle, lengths)
        for slot, (text, name) in enumerate(zip(pack.texts, pack.batch.sequence_ids, strict=True)):
            where = f"{name}, {_residues_text(text)}"
            self._lengths.add(len(text))
            self._letters |= set(text) & set(RESIDUE_LETTERS)
            worst = self._between.add(between[slot], where)
            if self._oracle is None:
                continue
            self._packed.add(exact[slot], where)
            if worst:
                self._at_worst = (exact[slot], self._alone_errors[text])
        errors = [*between]
        if self._oracle is not None:
            errors += [*exact, *(self._alone_errors[text] for text in pack.texts)]
        known = [error for error in errors if error is not None]
        self._packs.append((max(known) if len(known) == len(errors) else None, pack.batch))

    def smallest_beyond(self, limit: float) -> PackedBatch | None:
        """The shortest pack in which a side is further off than that; None where none is.

        One of a sequence of a few tokens only where no other is: it tells little of a cause.
        """
        beyond = [batch for error, batch in self._packs if error is None or error > limit]
        return min(
            beyond,
            key=lambda batch: (batch.max_seqlen < _TELLING_TOKENS, len(batch.input_ids)),
            default=None,
        )

    def _alone_of(self, text: str) -> torch.Tensor:
        if text not in self._alone:
            self._alone[text] = self._compute.last(encode(text))[1:-1]
            if self._oracle is not None:
                exact = self._exact_of(text, self._alone[text].device)
                error = measures.relative_l2(self._alone[text], exact)
                self._alone_errors[text] = error
                self._unpacked.add(error, _residues_text(text))
        return self._alone[text]

    def _exact_of(self, text: str, device: torch.device) -> torch.Tensor:
        if text not in self._exact:
            assert self._oracle is not None
            self._exact[text] = self._oracle.residues_of(self._indices[text]).to(device)
        return self._exact[text]

    def document(self) -> ProbeDocument:
        """The probe "probes": the larger of the disagreement and either side's distance to FP32."""
        low, high = min(self._lengths), max(self._lengths)
        covers = (
            f"{len(self._lengths)} lengths from {low:,} to {high:,}, {len(self._letters)} "
            f"letters, {len(self._shapes)} pack shapes ({'; '.join(self._shapes)})"
        )
        between = f"by {self._between.text}{self._between.place}"
        if self._oracle is None:
            return ProbeDocument(
                value=self._between.value,
                covers=covers,
                detail=f"Packed and unpacked disagree on a probe {between}.",
            )
        packed, unpacked = self._packed.value, self._unpacked.value
        return ProbeDocument(
            value=worst_side(worst_side(packed, unpacked), self._between.value),
            sides=(packed, unpacked),
            culprit=self._side(),
            covers=covers,
            detail=f"Packed and unpacked disagree on a probe {between}; from FP32 they are "
            f"{self._packed.text} and {self._unpacked.text}.",
        )

    def _side(self) -> Culprit:
        """The side that is further from FP32 where the two disagree most."""
        packed, unpacked = self._at_worst
        if packed is None or (unpacked is not None and packed > _CLEAR_FACTOR * unpacked):
            return Culprit.PACKED
        if unpacked is None or unpacked > _CLEAR_FACTOR * packed:
            return Culprit.UNPACKED
        return Culprit.BOTH


@dataclass(frozen=True, slots=True)
class Masked:
    """A pass over a pack with masks.

    Attributes:
        base: the same pack without any.
        shares: of each slot's residues, how many are masked.
    """

    base: Probed
    probed: Probed
    shares: Sequence[float]


def mask_whole(
    subject: Subject, base: Sequence[Probed], fractions: Sequence[float]
) -> list[Masked]:
    """A pass over each pack with every sequence masked, at the fractions above 0 in turn."""
    found = []
    for probed in base:
        masked, shares = mask_pack(probed.pack, [share for share in fractions if share > 0])
        found.append(Masked(probed, embed_first_and_last(subject, masked), shares))
    return found


def probe_mask(alone: Alone, masked_packs: Sequence[Masked], worst: Worst) -> ProbeDocument:
    """How much more the sides disagree with masks than 2 x without.

    Args:
        worst: what is known already of masks that act on sequences without any.
    """
    by_fraction: dict[str, float] = {}
    lengths: set[int] = set()
    for masked in masked_packs:
        pack = masked.probed.pack
        slots = [slot for slot, share in enumerate(masked.shares) if share > 0]
        plain = _disagreements(alone, masked.base.pack, masked.base.last, slots)
        found = _disagreements(alone, pack, masked.probed.last, slots)
        bounds = bounds_of(pack)
        for slot, error, without in zip(slots, found, plain, strict=True):
            lengths.add(bounds[slot + 1] - bounds[slot])
            for share, value in ((0.0, without), (masked.shares[slot], error)):
                if value is not None:
                    by_fraction[f"{share:g}"] = max(value, by_fraction.get(f"{share:g}", 0.0))
            excess = None
            if error is not None and without is not None:
                excess = max(0.0, error - 2 * without)
            worst.add(excess, f"{pack.sequence_ids[slot]} with {masked.shares[slot]:.0%} masked")
    fractions = sorted(map(float, by_fraction))
    return ProbeDocument(
        value=worst.value,
        detail="With <mask> tokens packed and unpacked disagree by "
        f"{worst.text} beyond twice their disagreement without{worst.place}.",
        covers=f"{' and '.join(f'{share:.0%}' for share in fractions)} masked, up to "
        f"{max(lengths, default=0):,} tokens long, in packs with up to "
        f"{max((one.probed.pack.max_seqlen for one in masked_packs), default=0):,}",
        disagreement=by_fraction,
    )


def probe_embedding(
    alone_rows: Alone,
    base: Sequence[Probed],
    masked_packs: Sequence[Masked],
    oracle: Oracle | None,
) -> ProbeDocument:
    """The embedding layer alone against the checkpoint's own table, with and without masks."""
    packed_worst, unpacked_worst = Worst(), Worst()
    worst_rows: tuple[torch.Tensor, torch.Tensor, torch.Tensor] | None = None
    known = None if oracle is None else oracle.embedding
    table = None if known is None else torch.from_numpy(known.copy())
    letters: set[int] = set()
    for probed, shares in (
        *((one, None) for one in base),
        *((one.probed, one.shares) for one in masked_packs),
    ):
        if probed.first is None:
            return not_judged(probed.why)
        # Hundreds of small questions follow, each of which a card would be waited for.
        tokens, rows = probed.pack.input_ids.cpu(), probed.first.cpu()
        bounds = bounds_of(probed.pack)
        parts = [tokens[start:end] for start, end in itertools.pairwise(bounds)]
        firsts = [alone_rows.first(one) for one in parts]
        singles = [one for one in firsts if one is not None]
        if len(singles) < len(firsts):
            return not_judged(alone_rows.why)
        if (
            shares is None
            and any(_mixes_positions(rows[a:b], tokens[a:b]) for a, b in itertools.pairwise(bounds))
            and not _mostly_equal(rows, torch.cat(singles))
        ):
            return not_judged(
                "The target numbers its hidden layers in its own way: its layer 0 is not the "
                "embedding."
            )
        letters |= set(tokens.tolist())
        for slot, (start, end) in enumerate(itertools.pairwise(bounds)):
            alone, packed = singles[slot], rows[start:end]
            own = parts[slot]
            exact = alone if table is None else expected_embedding(table, own)
            share = 0.0 if shares is None else shares[slot]
            where = f"{probed.pack.sequence_ids[slot]} with {share:.0%} masked"
            if packed_worst.add(measures.relative_l2(packed, exact), where):
                worst_rows = (packed, exact, own)
            if table is not None:
                unpacked_worst.add(measures.relative_l2(alone, exact), where)
    signature = None if worst_rows is None else name_embedding_fault(*worst_rows, table=table)
    covers = f"{len(letters)} tokens of the alphabet, with and without <mask>"
    if table is None:
        value, sides = packed_worst.value, None
        detail = f"The packed embedding layer is off the unpacked one by {packed_worst.text}"
        detail += f"{packed_worst.place}."
    else:
        sides = (packed_worst.value, unpacked_worst.value)
        value = worst_side(*sides)
        detail = (
            f"The embedding layer is off the checkpoint's own by {packed_worst.text} packed"
            f"{packed_worst.place} and by {unpacked_worst.text} unpacked."
        )
    return ProbeDocument(
        value=value,
        sides=sides,
        factor=None if worst_rows is None else measures.scale_factor(*worst_rows[:2]),
        looks_like=signature.text if signature else None,
        signature=signature.name if signature else None,
        covers=covers,
        detail=detail,
    )


def _residues_text(text: str) -> str:
    return "1 residue" if len(text) == 1 else f"{len(text):,} residues"


def _disagreements(
    alone: Alone, pack: PackedBatch, rows: torch.Tensor, slots: Sequence[int]
) -> list[float | None]:
    """Pooled relative L2 at the last layer, packed against unpacked, of some slots of a pack."""
    found = []
    bounds = bounds_of(pack)
    for start, end in ((bounds[slot], bounds[slot + 1]) for slot in slots):
        own = alone.last(pack.input_ids[start:end], first_too=True)[1:-1]
        packed_mean = mean_pool(rows[start + 1 : end - 1]).cpu()
        found.append(measures.relative_l2(packed_mean, mean_pool(own).cpu()))
    return found


def _mostly_equal(packed: torch.Tensor, alone: torch.Tensor) -> bool:
    """Whether half of the rows [tokens, D] agree: then it is one layer with a fault, not two."""
    off = (packed.double() - alone.double()).norm(dim=-1) / alone.double().norm(dim=-1)
    return float((off <= _SAME_TOKEN_TOLERANCE).double().mean()) >= 0.5


def _mixes_positions(rows: torch.Tensor, tokens: torch.Tensor) -> bool:
    """Whether rows of one token differ in a sequence, which an embedding layer cannot do."""
    if not bool(torch.isfinite(rows).all()):
        return False
    for token in torch.unique(tokens).tolist():
        same = rows[tokens == token].double()
        spread = (same - same[0]).norm(dim=-1).max()
        if bool(spread > _SAME_TOKEN_TOLERANCE * same.norm(dim=-1).max()):
            return True
    return False
