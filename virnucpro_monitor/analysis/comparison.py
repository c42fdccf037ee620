"""Two runs side by side, sequence by sequence. Pure: records in, records out."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from virnucpro_monitor.analysis.accuracy import SideAccuracy, compare_accuracy, moves_away
from virnucpro_monitor.analysis.differences import (
    Difference,
    find_differences,
    reasons_not_comparable,
)
from virnucpro_monitor.analysis.moved import SideMoved
from virnucpro_monitor.analysis.series import ERROR_FLOOR, log10_error
from virnucpro_monitor.records import (
    Culprit,
    GateResult,
    Json,
    Outcome,
    Run,
    SequenceResult,
    error_of,
)
from virnucpro_monitor.records import Level as Level
from virnucpro_monitor.records import Thresholds as Thresholds

MIN_EFFECT_DECADES = 0.3
"""A change of the error by less than about a factor of two is not a change of its size."""


class Mark(StrEnum):
    """What became of one sequence or gate, in asv's signs. `MARK_MEANINGS` says it in words."""

    NEWLY_FAILING = "!"
    NEWLY_FIXED = "*"
    WORSE = "+"
    BETTER = "-"
    CLOSER_BUT_FURTHER = "±"
    WITHIN_NOISE = "~"
    EQUAL = " "
    NOT_COMPARABLE = "x"


MARK_MEANINGS: Mapping[Mark, str] = {
    Mark.NEWLY_FAILING: "newly bad: it agrees no more, or fails where it deviated before",
    Mark.NEWLY_FIXED: "mended: it agrees again, or deviates where it failed before",
    Mark.WORSE: "worse: packed and unpacked are further apart, beyond noise",
    Mark.BETTER: "better: packed and unpacked are closer, beyond noise, and no further from FP32",
    Mark.CLOSER_BUT_FURTHER: "closer to each other, but further from FP32: not better",
    Mark.WITHIN_NOISE: "changed, but within the noise",
    Mark.EQUAL: "exactly equal",
    Mark.NOT_COMPARABLE: "not comparable (one run lacks it or did not judge it)",
}


_RANK = {Level.STRICT: 0, Level.LENIENT: 1, Level.FAILED: 2}


@dataclass(frozen=True, slots=True, kw_only=True)
class Noise:
    """How far an error e = 1 - cos moves without any fault.

    Attributes:
        floor: errors at or below it are equally good.
        min_effect_decades: the least |log10(head / base)| that counts.
    """

    floor: float = ERROR_FLOOR
    min_effect_decades: float = MIN_EFFECT_DECADES

    @classmethod
    def of_documents(cls, documents: Iterable[Json]) -> "Noise":
        """From the "noise" documents of healthy runs; a faulty run's would hide its own fault.

        They tell by how much reordering a pack moves embeddings, as relative L2. Two vectors that
        far apart have an error 1 - cos of at most about half its square.
        """
        moved = [document.get("reordered") for document in documents if document]
        return cls(floor=max([ERROR_FLOOR, *(value**2 / 2 for value in moved if value)]))


@dataclass(frozen=True, slots=True, kw_only=True)
class SequenceChange:
    """One sequence of both runs.

    Attributes:
        base_error, head_error: e = 1 - cos; None where there is no similarity.
        decades: log10(head_error / base_error) with both at least at the noise floor, None where
            one of them is missing.
    """

    sequence_id: str
    base: SequenceResult
    head: SequenceResult
    base_level: Level
    head_level: Level
    base_error: float | None
    head_error: float | None
    decades: float | None
    mark: Mark


@dataclass(frozen=True, slots=True, kw_only=True)
class GateChange:
    """One gate of either run; None where that run did not have it."""

    name: str
    base: GateResult | None
    head: GateResult | None
    mark: Mark


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One run of a comparison.

    Attributes:
        run: the commit's own run.
        measured: the run whose figures and sequences stand for it: an earlier commit's for a
            skipped run, else `run` itself.
        num_sequences: results of `measured`.
        num_strict, num_failed, worst_error: over the sequences that both runs have.
    """

    run: Run
    measured: Run
    num_sequences: int
    num_strict: int
    num_failed: int
    worst_error: float | None

    @property
    def outcome(self) -> Outcome:
        return self.run.effective_outcome

    @property
    def culprit(self) -> Culprit | None:
        return self.run.culprit

    @property
    def inherited(self) -> bool:
        return self.run.outcome is Outcome.SKIPPED


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Base against head.

    Attributes:
        comparable: whether the figures may be compared; `reasons` says why not.
        reasons: one sentence each.
        differences: all but the commit in which the runs differ, gravest first.
        verdict: "broke", "fixed", "still passing", "still failing" or "unknown".
        sequences: those that both runs have, in the head's order.
        only_in_base, only_in_head: ids without a counterpart.
        gates: in the head's order, gates that only the base has at the end.
        accuracy: each side's distance to FP32, packed first.
        moved: how far each side's own embeddings moved; empty where a run did not keep them.
    """

    base: Side
    head: Side
    comparable: bool
    reasons: tuple[str, ...]
    differences: tuple[Difference, ...]
    verdict: str
    sequences: tuple[SequenceChange, ...]
    only_in_base: tuple[str, ...]
    only_in_head: tuple[str, ...]
    gates: tuple[GateChange, ...]
    accuracy: tuple[SideAccuracy, ...]
    noise: Noise
    thresholds: Thresholds
    moved: tuple[SideMoved, ...] = ()

    @property
    def num_common(self) -> int:
        return len(self.sequences)

    @property
    def num_all(self) -> int:
        """Sequences in either run: the N of "n of N compared"."""
        return self.num_common + len(self.only_in_base) + len(self.only_in_head)

    @property
    def is_same_measurement(self) -> bool:
        """Both sides stand on one measurement, as where one inherits from the other."""
        base, head = self.base.measured, self.head.measured
        return base == head or (base.id is not None and base.id == head.id)

    def marked(self, mark: Mark) -> tuple[SequenceChange, ...]:
        return tuple(change for change in self.sequences if change.mark is mark)

    @property
    def gate_marks(self) -> frozenset[Mark]:
        return frozenset(change.mark for change in self.gates)

    def counts(self) -> dict[Mark, int]:
        """Sequences by mark, all marks named; those without a counterpart are not comparable."""
        counts = {mark: len(self.marked(mark)) for mark in Mark}
        counts[Mark.NOT_COMPARABLE] += len(self.only_in_base) + len(self.only_in_head)
        return counts


def compare_runs(
    base_run: Run,
    base_sequences: Iterable[SequenceResult],
    head_run: Run,
    head_sequences: Iterable[SequenceResult],
    *,
    noise: Noise | None = None,
    thresholds: Thresholds | None = None,
    base_measured: Run | None = None,
    head_measured: Run | None = None,
) -> Comparison:
    """Compare two runs on the sequences that both have.

    Runs that are not comparable are still set side by side, with the reasons said: what to make of
    it is the reader's choice.

    Args:
        base_sequences, head_sequences: results of the run that was measured. For a skipped run
            these are the ones of the run that it inherits from.
        noise: what counts as a change; a factor of two above the rounding of the cosine if not
            given.
        thresholds: of the head's protocol; the seed's if not given.
        base_measured, head_measured: the runs that the sequences belong to, where those are not
            `base_run` and `head_run` themselves.
    """
    noise, thresholds = noise or Noise(), thresholds or Thresholds()
    base_by_id = {result.sequence_id: result for result in base_sequences}
    head_by_id = {result.sequence_id: result for result in head_sequences}
    changes = tuple(
        compare_sequence(base_by_id[name], head, noise, thresholds)
        for name, head in head_by_id.items()
        if name in base_by_id
    )
    measured_base, measured_head = base_measured or base_run, head_measured or head_run
    reasons = reasons_not_comparable(measured_base, measured_head)
    return Comparison(
        base=_make_side(
            base_run,
            measured_base,
            len(base_by_id),
            [(c.base_level, c.base_error) for c in changes],
        ),
        head=_make_side(
            head_run,
            measured_head,
            len(head_by_id),
            [(c.head_level, c.head_error) for c in changes],
        ),
        comparable=not reasons,
        reasons=reasons,
        differences=find_differences(measured_base, measured_head),
        verdict=compare_outcomes(base_run.effective_outcome, head_run.effective_outcome),
        sequences=changes,
        only_in_base=tuple(name for name in base_by_id if name not in head_by_id),
        only_in_head=tuple(name for name in head_by_id if name not in base_by_id),
        gates=compare_gates(measured_base.gates, measured_head.gates),
        accuracy=compare_accuracy(
            [(c.base, c.head) for c in changes if c.mark is not Mark.NOT_COMPARABLE]
        ),
        noise=noise,
        thresholds=thresholds,
    )


def compare_sequence(
    base: SequenceResult, head: SequenceResult, noise: Noise, thresholds: Thresholds
) -> SequenceChange:
    """Mark one sequence. Two results of other lengths are not of the same sequence."""
    base_level, head_level = thresholds.level(base), thresholds.level(head)
    base_error, head_error = error_of(base.similarity), error_of(head.similarity)
    decades = None
    if base_error is not None and head_error is not None:
        decades = log10_error(head_error, noise.floor) - log10_error(base_error, noise.floor)
    if base.length != head.length:
        mark = Mark.NOT_COMPARABLE
    elif _RANK[head_level] > _RANK[base_level]:
        mark = Mark.NEWLY_FAILING
    elif _RANK[head_level] < _RANK[base_level]:
        mark = Mark.NEWLY_FIXED
    elif decades is None:
        mark = _mark_without_numbers(base_error, head_error, base.status == head.status)
    elif abs(decades) >= noise.min_effect_decades:
        mark = Mark.WORSE if decades > 0 else Mark.BETTER
        if mark is Mark.BETTER and moves_away(base, head):
            mark = Mark.CLOSER_BUT_FURTHER
    else:
        mark = Mark.EQUAL if base.similarity == head.similarity else Mark.WITHIN_NOISE
    return SequenceChange(
        sequence_id=head.sequence_id,
        base=base,
        head=head,
        base_level=base_level,
        head_level=head_level,
        base_error=base_error,
        head_error=head_error,
        decades=decades,
        mark=mark,
    )


def _mark_without_numbers(
    base_error: float | None, head_error: float | None, same_status: bool
) -> Mark:
    if base_error is None and head_error is None:
        return Mark.EQUAL if same_status else Mark.WITHIN_NOISE
    return Mark.WORSE if head_error is None else Mark.BETTER


def compare_gates(base: Sequence[GateResult], head: Sequence[GateResult]) -> tuple[GateChange, ...]:
    """Set gates side by side by name.

    Gates that neither side judged are alike, and gates that hold on both are never marked by size.
    Where both fail, the distance from the limit says which is worse, if it changed as much as
    counts for a sequence.
    """
    base_by_name = {gate.name: gate for gate in base}
    head_by_name = {gate.name: gate for gate in head}
    names = [*head_by_name, *(name for name in base_by_name if name not in head_by_name)]
    return tuple(
        GateChange(
            name=name,
            base=base_by_name.get(name),
            head=head_by_name.get(name),
            mark=_gate_mark(base_by_name.get(name), head_by_name.get(name)),
        )
        for name in names
    )


def _gate_mark(base: GateResult | None, head: GateResult | None) -> Mark:
    if base is None or head is None:
        return Mark.NOT_COMPARABLE
    if base.passed is None or head.passed is None:
        return Mark.EQUAL if base.passed is head.passed else Mark.NOT_COMPARABLE
    if base.passed != head.passed:
        return Mark.NEWLY_FIXED if head.passed else Mark.NEWLY_FAILING
    if (base.value, base.limit) == (head.value, head.limit):
        return Mark.EQUAL
    before, after = _excess(base), _excess(head)
    if head.passed or not before or not after:
        return Mark.WITHIN_NOISE
    decades = math.log10(after / before)
    if abs(decades) < MIN_EFFECT_DECADES:
        return Mark.WITHIN_NOISE
    return Mark.WORSE if decades > 0 else Mark.BETTER


def _excess(gate: GateResult) -> float:
    """How far a failing gate's value lies beyond its limit, on whichever side that is; or 0."""
    if gate.value is None or gate.limit is None or not math.isfinite(gate.value - gate.limit):
        return 0.0
    return abs(gate.value - gate.limit)


def compare_outcomes(base: Outcome, head: Outcome) -> str:
    """What became of the promise; unknown where one run says nothing of it."""
    if not (base.has_verdict and head.has_verdict):
        return "unknown"
    if base is head:
        return "still passing" if head is Outcome.PASSED else "still failing"
    return "fixed" if head is Outcome.PASSED else "broke"


def _make_side(
    run: Run, measured: Run, num_sequences: int, common: Sequence[tuple[Level, float | None]]
) -> Side:
    return Side(
        run=run,
        measured=measured,
        num_sequences=num_sequences,
        num_strict=sum(level is Level.STRICT for level, _ in common),
        num_failed=sum(level is Level.FAILED for level, _ in common),
        worst_error=max((error for _, error in common if error is not None), default=None),
    )
