"""Where a series of errors changed its level: a second layer below the gates, for slow drift.

Optimal segmentation (least squares with a penalty for each change) of log10 of the errors, by
ruptures' `KernelCPD`. Unlike tests that compare windows, it finds outages of one or two commits
that were mended at once. The gates remain the alarm; this needs no threshold on the error itself.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise
from statistics import fmean, median

from virnucpro_monitor.analysis.series import ERROR_FLOOR, log10_error

MIN_POINTS = 10
PENALTY = 8.0
"""K of the penalty K log(n) sigma^2. At 6 a clean Gaussian series almost never shows a change; with
heavy tails it takes 12. Steps of half a decade are found with any of these."""
MIN_EFFECT_DECADES = 0.3
MIN_SIGMA_DECADES = 0.02
"""A floor of the noise scale: series without any noise would make every rounding a change."""
MAX_POINTS = 20_000


class ChangeKind(StrEnum):
    STEP = "step"  # a new level
    BLIP = "blip"  # one run off the level, and back


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangePoint:
    """A change of level.

    Attributes:
        place: index, in the series that was given, of the first value at the new level.
        before, after: mean log10 error on each side.
    """

    place: int
    kind: ChangeKind
    before: float
    after: float

    @property
    def decades(self) -> float:
        """Positive where the error grew."""
        return self.after - self.before


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangePoints:
    """The answer for one series.

    Attributes:
        enough_history: False below `MIN_POINTS` values; `points` is then empty and says nothing.
        sigma: the robust noise scale that was used, in decades.
    """

    enough_history: bool
    num_values: int
    sigma: float | None
    points: tuple[ChangePoint, ...]


def find_change_points(
    errors: Sequence[float | None],
    *,
    penalty: float = PENALTY,
    min_effect_decades: float = MIN_EFFECT_DECADES,
    floor: float = ERROR_FLOOR,
) -> ChangePoints:
    """Find changes of level in errors in commit order.

    Args:
        errors: e = 1 - cos; None where there is no figure, and where it was inherited rather than
            measured (a repeated value would hide the noise): left out, and never interpolated.
        penalty: K of K log(n) sigma^2.
        min_effect_decades: smaller changes are not reported.
        floor: smaller errors count as this.

    Raises:
        ValueError: an error is negative or not finite, or there are more than `MAX_POINTS`.
    """
    places = [place for place, error in enumerate(errors) if error is not None]
    known = [error for error in errors if error is not None]
    if any(not math.isfinite(error) or error < 0 for error in known):
        raise ValueError("An error is negative or not finite: leave such runs out as None.")
    if len(known) > MAX_POINTS:
        raise ValueError(
            f"{len(known)} values are more than {MAX_POINTS}: look at a shorter range."
        )
    if len(known) < MIN_POINTS:
        return ChangePoints(enough_history=False, num_values=len(known), sigma=None, points=())
    values = [log10_error(error, floor) for error in known]
    sigma = noise_scale(values)
    bounds = _merge_small_steps(values, _segment(values, penalty, sigma), min_effect_decades)
    return ChangePoints(
        enough_history=True,
        num_values=len(known),
        sigma=sigma,
        points=tuple(_label(values, places, bounds, min_effect_decades)),
    )


def noise_scale(values: Sequence[float]) -> float:
    """Robust standard deviation of the noise around a level that changes rarely.

    From the median absolute difference of neighbours, so that steps do not count as noise:
    differences of two normal values have sqrt(2) sigma, and their median is 0.6745 of that.
    """
    steps = [abs(after - before) for before, after in pairwise(values)]
    return max(MIN_SIGMA_DECADES, median(steps) / (0.6745 * math.sqrt(2.0)))


def _segment(values: Sequence[float], penalty: float, sigma: float) -> list[int]:
    """Bounds 0 = b0 < b1 < … = n of the segments."""
    import numpy as np
    import ruptures

    signal = np.asarray(values, dtype=np.float64).reshape(-1, 1)  # [n, 1]
    if float(np.ptp(signal)) == 0.0:
        return [0, len(values)]
    detector = ruptures.KernelCPD(kernel="linear", min_size=1).fit(signal)
    ends = detector.predict(pen=penalty * math.log(len(values)) * sigma**2)
    return [0, *(int(end) for end in ends)]


def _merge_small_steps(
    values: Sequence[float], bounds: list[int], min_effect_decades: float
) -> list[int]:
    """Remove the smallest step, again and again, until none is below the least effect."""
    bounds = list(bounds)
    while len(bounds) > 2:
        levels = _levels(values, bounds)
        steps = [abs(b - a) for a, b in pairwise(levels)]
        smallest = min(range(len(steps)), key=steps.__getitem__)
        if steps[smallest] >= min_effect_decades:
            break
        del bounds[smallest + 1]
    return bounds


def _levels(values: Sequence[float], bounds: Sequence[int]) -> list[float]:
    return [fmean(values[a:b]) for a, b in pairwise(bounds)]


def _label(
    values: Sequence[float], places: Sequence[int], bounds: Sequence[int], min_effect: float
) -> list[ChangePoint]:
    """Turn segments into change points; a single value with the old level after it is a blip."""
    levels = _levels(values, bounds)
    found = []
    before = levels[0]
    for number in range(1, len(levels)):
        start, end = bounds[number], bounds[number + 1]
        is_last = number + 1 == len(levels)
        if end - start == 1 and not is_last and abs(levels[number + 1] - before) < min_effect:
            kind = ChangeKind.BLIP
        elif abs(levels[number] - before) < min_effect:
            continue  # back from a blip
        else:
            kind = ChangeKind.STEP
        found.append(
            ChangePoint(place=places[start], kind=kind, before=before, after=levels[number])
        )
        if kind is ChangeKind.STEP:
            before = levels[number]
    return found
