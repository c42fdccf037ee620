"""Figures of a series that moved below the gates: errors, distances to FP32, gain and speed.

Each figure is looked at where it was really measured (an inherited one repeats, an error has none)
and among like runs only: figures of accuracy in one environment under one protocol, figures of
speed on one host and device.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from virnucpro_monitor.analysis.accuracy import FLOOR as DISTANCE_FLOOR
from virnucpro_monitor.analysis.accuracy import worst_distance
from virnucpro_monitor.analysis.change_points import (
    MIN_EFFECT_DECADES,
    MIN_SIGMA_DECADES,
    ChangeKind,
    find_changes,
)
from virnucpro_monitor.analysis.series import ERROR_FLOOR, error_of
from virnucpro_monitor.records import VERDICTS, Culprit, Outcome, Run

LOOKED_AT = 1000
"""Newest runs of a series that are looked at where a question is about its recent end."""

_SPEED_EFFECT = math.log10(1.1)  # a tenth
_SPEED_SIGMA = math.log10(1.02)
BAND_SIGMAS = 3.0
_NO_PASS = 0.02


class Figure(StrEnum):
    WORST = "worst 1 - cos"
    P01 = "1st percentile of 1 - cos"
    MEDIAN = "median 1 - cos"
    PACKED = "packed distance to FP32"
    UNPACKED = "unpacked distance to FP32"
    GAIN = "gain error"
    THROUGHPUT = "tokens per second"
    SPEEDUP = "speed against unpacked"
    DURATION = "seconds per commit"

    @property
    def is_speed(self) -> bool:
        return self in (Figure.THROUGHPUT, Figure.SPEEDUP, Figure.DURATION)

    @property
    def is_better_high(self) -> bool:
        return self in (Figure.THROUGHPUT, Figure.SPEEDUP)


@dataclass(frozen=True, slots=True, kw_only=True)
class Movement:
    """A figure of a series that changed its level.

    Attributes:
        run: the first one off the old level.
        until: the first one back (burst) or at the new level (drift); `run` for a step, and the
            last there is where none came yet.
        before, after: levels in the figure's own unit; of a burst the level inside it.
        num_after: runs since it began; of a burst those inside it.
        is_worse: by the figure's own direction.
    """

    figure: Figure
    kind: ChangeKind
    run: Run
    until: Run
    before: float
    after: float
    num_after: int
    is_worse: bool

    @property
    def factor(self) -> float:
        """after / before, both at least at the figure's floor."""
        return self.after / self.before


@dataclass(frozen=True, slots=True, kw_only=True)
class Band:
    """What a figure is expected to be after the newest runs: level and noise of like runs.

    Attributes:
        start: place of the first run at this level.
        level, low, high: in the figure's own unit.
    """

    start: int
    level: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class FigureHistory:
    """One figure along a series.

    Attributes:
        values: in the figure's own unit, one for each run; None where it was not measured.
        movements: oldest first.
        bands: one for each group of like runs that has enough of them, oldest first.
    """

    figure: Figure
    values: tuple[float | None, ...]
    movements: tuple[Movement, ...]
    bands: tuple[Band, ...]


def figure_value(run: Run, figure: Figure) -> float | None:
    """What was measured at a run itself; None where nothing was."""
    if run.figures is None or run.outcome not in VERDICTS:  # asked of each run nine times
        return None
    value = _READERS[figure](run)
    return value if value is not None and 0.0 <= value < math.inf else None


def figure_floor(figure: Figure) -> float:
    """What smaller values count as: there is no logarithm of zero."""
    return _FLOORS.get(figure, 1e-9)


def follow_figure(runs: Sequence[Run], figure: Figure) -> FigureHistory:
    """Follow one figure along the runs of one series, oldest commit first."""
    values = tuple([figure_value(run, figure) for run in runs])
    groups: dict[Hashable, list[int]] = defaultdict(list)
    digests: dict[int, str] = {}  # by identity: thousands of runs share a few environments
    is_speed = figure.is_speed
    for place, run in enumerate(runs):
        if values[place] is not None:
            groups[_likeness(run, is_speed, digests)].append(place)
    movements: list[tuple[int, Movement]] = []
    bands = []
    floor = figure_floor(figure)
    for places in groups.values():
        decades = [math.log10(max(values[place] or 0.0, floor)) for place in places]
        found = find_changes(
            decades,
            min_effect_decades=_SPEED_EFFECT if is_speed else MIN_EFFECT_DECADES,
            min_sigma=_SPEED_SIGMA if is_speed else MIN_SIGMA_DECADES,
        )
        for change in found.points:
            place = places[change.place]
            grew = change.decades > 0
            movement = Movement(
                figure=figure,
                kind=change.kind,
                run=runs[place],
                until=runs[places[change.end]],
                before=10**change.before,
                after=10**change.after,
                num_after=change.num_after,
                is_worse=grew is not figure.is_better_high,
            )
            movements.append((place, movement))
        if found.sigma is not None:
            levels = [c.end for c in found.points if c.kind is not ChangeKind.BURST]
            start = max(levels, default=0)
            bands.append(_band(places[start], decades[start:], found.sigma))
    return FigureHistory(
        figure=figure,
        values=values,
        movements=tuple(m for _, m in sorted(movements, key=lambda found: found[0])),
        bands=tuple(sorted(bands, key=lambda band: band.start)),
    )


def find_movements(runs: Sequence[Run]) -> tuple[Movement, ...]:
    """What moved along the newest `LOOKED_AT` runs of one series, figure by figure."""
    recent = runs[-LOOKED_AT:]
    return tuple(m for figure in Figure for m in follow_figure(recent, figure).movements)


def _band(start: int, decades: Sequence[float], sigma: float) -> Band:
    from statistics import median

    level = median(decades)
    return Band(
        start=start,
        level=10**level,
        low=10 ** (level - BAND_SIGMAS * sigma),
        high=10 ** (level + BAND_SIGMAS * sigma),
    )


def _likeness(run: Run, is_speed: bool, digests: dict[int, str]) -> Hashable:
    """What two runs must have in common for the figure to be set side by side."""
    used = run.environment
    if is_speed:
        return run.benchmark_digest, used and (used.host, used.platform, used.gpu)
    if used is not None and id(used) not in digests:
        digests[id(used)] = used.digest
    return run.benchmark_digest, run.protocol_digest, used and digests[id(used)]


def _gain(run: Run) -> float | None:
    return next((gate.value for gate in run.gates if gate.name == "gain"), None)


def _throughput(run: Run) -> float | None:
    figures = run.figures
    if figures is None or not figures.packed_s or not figures.num_tokens:
        return None
    return figures.num_tokens / figures.packed_s


def _speedup(run: Run) -> float | None:
    figures = run.figures
    if figures is None or not figures.packed_s or not figures.unpacked_s:
        return None
    ratio = figures.unpacked_s / figures.packed_s
    # Older runs give the time of looking up what an earlier commit's unpacked side had given.
    return ratio if ratio > _NO_PASS else None


def _duration(run: Run) -> float | None:
    """A failed run's time holds its trace, so that it says nothing of the target's speed."""
    return run.duration_s if run.outcome is Outcome.PASSED and run.duration_s > 0 else None


_READERS: dict[Figure, Callable[[Run], float | None]] = {
    Figure.WORST: lambda run: error_of(run.figures.min_similarity) if run.figures else None,
    Figure.P01: lambda run: error_of(run.figures.p01_similarity) if run.figures else None,
    Figure.MEDIAN: lambda run: error_of(run.figures.median_similarity) if run.figures else None,
    Figure.PACKED: lambda run: worst_distance(run, Culprit.PACKED),
    Figure.UNPACKED: lambda run: worst_distance(run, Culprit.UNPACKED),
    Figure.GAIN: _gain,
    Figure.THROUGHPUT: _throughput,
    Figure.SPEEDUP: _speedup,
    Figure.DURATION: _duration,
}
_FLOORS = {
    Figure.WORST: ERROR_FLOOR,
    Figure.P01: ERROR_FLOOR,
    Figure.MEDIAN: ERROR_FLOOR,
    Figure.PACKED: DISTANCE_FLOOR,
    Figure.UNPACKED: DISTANCE_FLOOR,
    Figure.GAIN: DISTANCE_FLOOR,
}
