"""What a trend shows, decided before anything is drawn. Pure: runs in, records out."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from virnucpro_monitor.analysis.differences import Difference, find_differences
from virnucpro_monitor.analysis.series import (
    SeriesKey,
    error_of,
    lacks_values,
    series_key,
    worst_error,
)
from virnucpro_monitor.records import Outcome, Run


@dataclass(frozen=True, slots=True, kw_only=True)
class TrendPoint:
    """One run of a series.

    Attributes:
        place: 0-based place in the series, oldest commit first.
        outcome: the one that counts; a skipped run's is the inherited one.
        inherited: the figures were measured at an earlier commit (`run.inherited_from`).
        worst, p01, median: errors e = 1 - cos; None where there is no figure. 0 is exactly 0.
        lacks_values: some sequence came back not finite, lost or doubled.
        num_strict, num_sequences: sequences above the strict threshold, and all that were asked
            for; None where nothing was measured.
        tokens_per_s: of the packed pass, None where not known or inherited.
        failed_gates: names of the gates that failed.
    """

    place: int
    run: Run
    outcome: Outcome
    inherited: bool
    worst: float | None
    p01: float | None
    median: float | None
    lacks_values: bool
    num_strict: int | None
    num_sequences: int | None
    tokens_per_s: float | None
    failed_gates: tuple[str, ...]

    @property
    def strict_pass_rate(self) -> float | None:
        """Share of all sequences asked for; None where nothing was measured."""
        if self.num_strict is None or not self.num_sequences:
            return None
        return self.num_strict / self.num_sequences


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeEvent:
    """Something other than the code that changed between two neighbouring measured runs.

    Attributes:
        place: of the first run after the change.
        kind: the gravest of "benchmark", "protocol", "configuration" and "environment".
    """

    place: int
    kind: str
    before: Run
    after: Run
    differences: tuple[Difference, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """Neighbouring points that a line may join, from `start` to `end` (both included).

    All have figures, and all were judged under one protocol on one benchmark version.
    """

    start: int
    end: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Trend:
    """A series, ready to be drawn.

    Attributes:
        key: None for a series without runs.
        zero_place: where errors of exactly 0 are marked on the log axis.
    """

    key: SeriesKey | None
    points: tuple[TrendPoint, ...]
    events: tuple[ChangeEvent, ...]
    segments: tuple[Segment, ...]
    zero_place: float


_KINDS = ("benchmark", "protocol", "configuration", "environment")


def make_trend(runs: Sequence[Run]) -> Trend:
    """Arrange the runs of one series, oldest commit first."""
    points = tuple(make_point(run, place) for place, run in enumerate(runs))
    return Trend(
        key=series_key(runs[-1]) if runs else None,
        points=points,
        events=find_events(runs),
        segments=find_segments(points),
        zero_place=zero_place(
            error for point in points for error in (point.worst, point.p01, point.median)
        ),
    )


def make_point(run: Run, place: int) -> TrendPoint:
    figures = run.figures
    inherited = run.outcome is Outcome.SKIPPED
    tokens_per_s = None
    if figures is not None and figures.packed_s and not inherited:
        tokens_per_s = figures.num_tokens / figures.packed_s
    return TrendPoint(
        place=place,
        run=run,
        outcome=run.effective_outcome,
        inherited=inherited,
        worst=worst_error(run),
        p01=error_of(figures.p01_similarity) if figures else None,
        median=error_of(figures.median_similarity) if figures else None,
        lacks_values=lacks_values(run),
        num_strict=figures.num_strict if figures else None,
        num_sequences=figures.num_sequences if figures else None,
        tokens_per_s=tokens_per_s,
        failed_gates=tuple(gate.name for gate in run.gates if gate.fails),
    )


def find_events(runs: Sequence[Run]) -> tuple[ChangeEvent, ...]:
    """Changes between neighbouring runs that were really measured, oldest first.

    A skipped run was not measured in the environment that it names, so it shows no change.
    """
    measured = [
        (place, run)
        for place, run in enumerate(runs)
        if run.figures is not None and run.outcome is not Outcome.SKIPPED
    ]
    events = []
    for (_, before), (place, after) in pairwise(measured):
        differences = find_differences(before, after)
        kinds = {difference.kind for difference in differences}
        kind = next((kind for kind in _KINDS if kind in kinds), None)
        if kind is not None:
            events.append(
                ChangeEvent(
                    place=place, kind=kind, before=before, after=after, differences=differences
                )
            )
    return tuple(events)


def find_segments(points: Sequence[TrendPoint]) -> tuple[Segment, ...]:
    """Stretches without a gap in the figures and without a change of protocol or benchmark."""
    segments: list[Segment] = []
    start: int | None = None
    for point in points:
        if start is not None and not _continues(points[point.place - 1], point):
            segments.append(Segment(start=start, end=point.place - 1))
            start = None
        if start is None and point.run.figures is not None:
            start = point.place
    if start is not None:
        segments.append(Segment(start=start, end=len(points) - 1))
    return tuple(segments)


def _continues(before: TrendPoint, point: TrendPoint) -> bool:
    return point.run.figures is not None and (
        before.run.protocol_digest,
        before.run.benchmark_digest,
    ) == (point.run.protocol_digest, point.run.benchmark_digest)


def zero_place(errors: Iterable[float | None]) -> float:
    """Where to mark e = 0 on a log axis: a power of ten at least a decade below all others."""
    positive = [error for error in errors if error]
    return 10.0 ** (math.floor(math.log10(min(positive, default=1e-6))) - 1)
