"""Where a series changed its level below the gates: steps, bursts that went back, slow drifts.

All values are in decades. Runs off the level for a moment are found first, by their distance from
a running median in units of the series' own tails, so that heavy tails are no alarm. What is left
is cut by optimal segmentation (least squares with a penalty for each change, ruptures'
`KernelCPD`, where `analysis.prescreen` cannot rule a change out), and what a ramp explains better
than stairs is one drift. The gates remain the alarm;
this needs no threshold on the error itself.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise
from typing import Any

from virnucpro_monitor.analysis.prescreen import find_level

MIN_POINTS = 10
PENALTY = 8.0
"""K of the penalty K log(n) sigma^2. At 6 a clean Gaussian series almost never shows a change."""
MIN_EFFECT_DECADES = 0.2
MIN_SIGMA_DECADES = 0.02
"""A floor of the noise scale: series without any noise would make every rounding a change."""
MAX_POINTS = 20_000
MAX_BURST = 10
"""Runs off the level that came back are a burst up to this length, a step there and back beyond."""

_WINDOW = 2 * MAX_BURST + 7
_NEIGHBOURS = 5
_TAIL = 5.0  # times the 95 % quantile of the distances: a single run within that is a tail
_TAIL_POWER = 0.75  # and this power of their number less where several runs agree
_FAR = 8.0  # sigmas: what is searched for is left out of the tails
_CLIP = 3.5  # sigmas
_MIN_DRIFT = 15  # values
_CERTAIN = 4.0  # standard errors
_BLOCK = 512
_OVERLAP = 128
_SAME_CHANGE = 2  # places


class ChangeKind(StrEnum):
    STEP = "step"  # a new level
    BURST = "burst"  # some runs off the level, and back
    DRIFT = "drift"  # a slow way to a new level: each run within noise, all of them not


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangePoint:
    """A change of level.

    Attributes:
        place: index, in the series that was given, of the first value off the old level.
        end: of the first value back (burst) or at the new level (step, drift: where the ramp ends).
        before, after: the old and the new level; of a burst the level inside it.
        num_after: values seen since it began (step, drift), or inside it (burst).
    """

    place: int
    end: int
    kind: ChangeKind
    before: float
    after: float
    num_after: int

    @property
    def decades(self) -> float:
        """Positive where the value grew."""
        return self.after - self.before


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangePoints:
    """The answer for one series.

    Attributes:
        enough_history: False below `MIN_POINTS` values; `points` is then empty and says nothing.
        sigma: the robust noise scale that was used, in decades.
        points: in the order of their places.
    """

    enough_history: bool
    num_values: int
    sigma: float | None
    points: tuple[ChangePoint, ...]


def find_changes(
    values: Sequence[float | None],
    *,
    penalty: float = PENALTY,
    min_effect_decades: float = MIN_EFFECT_DECADES,
    min_sigma: float = MIN_SIGMA_DECADES,
) -> ChangePoints:
    """Find changes of level in values in decades, in commit order.

    Args:
        values: None where nothing was measured.
        penalty: K of K log(n) sigma^2.
        min_effect_decades: smaller changes are not reported.
        min_sigma: the least noise that is believed.

    Raises:
        ValueError: a value is not finite, or there are more than `MAX_POINTS`.
    """
    import numpy as np

    places = [place for place, value in enumerate(values) if value is not None]
    known = np.asarray([value for value in values if value is not None], dtype=np.float64)
    if not np.isfinite(known).all():
        raise ValueError("A value is not finite: leave such runs out as None.")
    if len(known) > MAX_POINTS:
        raise ValueError(f"{len(known)} values are more than {MAX_POINTS}: take a shorter range.")
    if len(known) < MIN_POINTS:
        return ChangePoints(enough_history=False, num_values=len(known), sigma=None, points=())
    sigma = noise_scale(known, min_sigma)
    middle = _running_median(known)
    bursts = _find_bursts(known, middle, min_effect_decades, sigma)
    kept = np.ones(len(known), dtype=bool)
    for start, end in bursts:
        kept[start:end] = False
    rest = np.flatnonzero(kept)  # [m] indices into `known`
    level = known[rest]
    clipped = _clip(level, middle if not bursts else _running_median(level), sigma)
    bounds = _merge(level, _segment(clipped, penalty, sigma), min_effect_decades, sigma)
    found = [
        ChangePoint(
            place=places[int(rest[change.place])],
            end=places[int(rest[change.end])],
            kind=change.kind,
            before=change.before,
            after=change.after,
            num_after=change.num_after,
        )
        for change in _changes(level, bounds, penalty, sigma, min_effect_decades)
    ]
    for start, end in bursts:
        before = float(np.median(known[max(0, start - MAX_BURST) : start]))
        is_open = end == len(known)  # nothing says yet that it goes back
        found.append(
            ChangePoint(
                place=places[start],
                end=places[start] if is_open else places[end],
                kind=ChangeKind.STEP if is_open else ChangeKind.BURST,
                before=before,
                after=float(np.median(known[start:end])),
                num_after=end - start,
            )
        )
    return ChangePoints(
        enough_history=True,
        num_values=len(known),
        sigma=sigma,
        points=tuple(sorted(found, key=lambda change: change.place)),
    )


def noise_scale(values: Any, least: float = MIN_SIGMA_DECADES) -> float:
    """Robust standard deviation of the noise around a level that changes rarely.

    From the median absolute difference of neighbours, so that steps do not count as noise:
    differences of two normal values have sqrt(2) sigma, and their median is 0.6745 of that.
    """
    import numpy as np

    steps = np.abs(np.diff(np.asarray(values, dtype=np.float64)))
    return max(least, float(np.median(steps)) / (0.6745 * math.sqrt(2.0)))


def _running_median(values: Any, window: int = _WINDOW) -> Any:
    """Median of each value's surroundings; at the ends of what there is of them. [n] -> [n]"""
    import numpy as np

    half = min(window, len(values)) // 2
    padded = np.concatenate([np.full(half, np.nan), values, np.full(half, np.nan)])
    windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * half + 1)
    if len(values) <= 2 * half:
        return _nearest_middle(windows, values)
    # Of an odd number without NaN the middle one is the median: no mean, no look for NaN.
    middle = np.partition(windows[half : len(values) - half], half, axis=1)[:, half]
    first = _nearest_middle(windows[:half], values[:half])
    last = _nearest_middle(windows[-half:], values[-half:])
    return np.concatenate([first, middle, last])


def _nearest_middle(windows: Any, values: Any) -> Any:
    """Median of what each window [n, w] holds beside NaN; of two middle ones that near `values`.

    Their mean would be a level between two levels, where a window holds as much of either.
    """
    import numpy as np

    ordered = np.sort(windows, axis=1)  # NaN last
    number = np.count_nonzero(~np.isnan(windows), axis=1)
    rows = np.arange(len(windows))
    low, high = ordered[rows, (number - 1) // 2], ordered[rows, number // 2]
    return np.where(np.abs(values - low) <= np.abs(values - high), low, high)


def _find_bursts(
    values: Any, middle: Any, min_effect: float, sigma: float
) -> list[tuple[int, int]]:
    """[start, end) of values off the level that came back, or that are the last there are.

    Args:
        middle: the running median of `values`.
    """
    import numpy as np

    off = values - middle
    near = np.abs(off)[np.abs(off) <= _FAR * sigma]
    # Of two levels of equal length no value is near the median of both.
    tail = max(2.0 * sigma, float(np.quantile(near, 0.95)) if len(near) else 0.0)
    flagged = np.zeros(len(values), dtype=bool)
    for length in range(1, min(MAX_BURST, len(values) // 3) + 1):
        mean = np.convolve(off, np.full(length, 1.0 / length), mode="valid")
        least = np.min(
            np.lib.stride_tricks.sliding_window_view(np.abs(off), length), axis=1
        )  # [n - length + 1]
        enough = max(min_effect, _TAIL * tail / length**_TAIL_POWER)
        starts = np.flatnonzero((np.abs(mean) >= enough) & (least >= 0.5 * np.abs(mean)))
        for start in starts:
            flagged[start : start + length] = True
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flagged.astype(int), [0]])))
    bursts = []
    for start, end in edges.reshape(-1, 2):
        if start == 0 or end - start > MAX_BURST:
            continue  # the series begins with it, or it is a level of its own
        before = np.median(values[max(0, start - MAX_BURST) : start])
        after = np.median(values[end : end + MAX_BURST]) if end < len(values) else before
        if abs(after - before) < max(min_effect, 0.5 * abs(np.median(values[start:end]) - before)):
            bursts.append((int(start), int(end)))
    return bursts


def _clip(values: Any, middle: Any, sigma: float) -> Any:
    """Values without their tails: what is far from all around it and from its neighbours, too.

    A level that is shorter than half the window has only the latter to agree with.
    """
    import numpy as np

    middles = middle, _running_median(values, _NEIGHBOURS)
    low, high = np.minimum(*middles), np.maximum(*middles)
    return np.clip(values, low - _CLIP * sigma, high + _CLIP * sigma)


def _segment(values: Any, penalty: float, sigma: float) -> list[int]:
    """Bounds 0 = b0 < b1 < … = n of the segments.

    The cost of an optimal segmentation grows with the square of the length, so long series are cut
    in overlapping blocks; what two blocks see of one change is taken once.
    """
    import numpy as np

    signal = np.asarray(values, dtype=np.float64)  # [n]
    size = len(signal)
    charge = penalty * math.log(size) * sigma**2
    if size <= 2 * _BLOCK:
        is_level = find_level(signal[None], charge)
        return [0, size] if is_level[0] else [0, *_segment_block(signal, charge)]
    every = _BLOCK - _OVERLAP
    is_level = find_level(np.lib.stride_tricks.sliding_window_view(signal, _BLOCK)[::every], charge)
    bounds = [0]
    for number, start in enumerate(range(0, size, every)):
        block = signal[start : start + _BLOCK]
        whole = number < len(is_level)  # the last ones are shorter
        if is_level[number] if whole else find_level(block[None], charge)[0]:
            continue
        for end in _segment_block(block, charge)[:-1]:
            if start + end > bounds[-1] + _SAME_CHANGE:
                bounds.append(start + end)
    return [*bounds, size]


def _segment_block(signal: Any, charge: float) -> list[int]:
    """Ends of the segments of a block [n], n itself the last."""
    import ruptures  # it loads all of SciPy's statistics: a level history does without

    # A coarser grid (`jump`) would hide changes between its points.
    detector = ruptures.KernelCPD(kernel="linear", min_size=1, jump=1).fit(signal.reshape(-1, 1))
    return [int(end) for end in detector.predict(pen=charge)]


def _merge(values: Any, bounds: Sequence[int], min_effect: float, sigma: float) -> list[int]:
    """Remove the least step, again and again, until each is large and certain enough."""
    import numpy as np

    bounds = list(bounds)
    levels = _levels(values, bounds)
    while len(bounds) > 2:
        sizes = [end - start for start, end in pairwise(bounds)]
        excess = [
            abs(levels[n + 1] - levels[n])
            / max(min_effect, _CERTAIN * sigma * math.sqrt(1 / sizes[n] + 1 / sizes[n + 1]))
            for n in range(len(levels) - 1)
        ]
        smallest = min(range(len(excess)), key=excess.__getitem__)
        if excess[smallest] >= 1.0:
            break
        del bounds[smallest + 1], levels[smallest + 1]
        joined = values[bounds[smallest] : bounds[smallest + 1]]
        levels[smallest] = float(np.median(joined))
    return bounds


def _levels(values: Any, bounds: Sequence[int]) -> list[float]:
    import numpy as np

    return [float(np.median(values[start:end])) for start, end in pairwise(bounds)]


def _changes(
    values: Any, bounds: Sequence[int], penalty: float, sigma: float, min_effect: float
) -> list[ChangePoint]:
    """Steps between the segments; neighbouring ones of one direction that a ramp explains better
    are one drift. Places are indices into `values`."""
    levels = _levels(values, bounds)
    found: list[ChangePoint] = []
    number = 1
    while number < len(levels):
        last = number
        upwards = levels[number] > levels[number - 1]
        while last + 1 < len(levels) and (levels[last + 1] > levels[last]) is upwards:
            last += 1
        start, end = bounds[number - 1], bounds[last + 1]
        ramp = _ramp(
            values[start:end], [b - start for b in bounds[number : last + 1]], penalty, sigma
        )
        if ramp is not None and abs(ramp[3] - ramp[2]) >= min_effect:
            first, until, before, after = ramp
            found.append(
                ChangePoint(
                    place=start + first,
                    end=min(start + until, len(values) - 1),
                    kind=ChangeKind.DRIFT,
                    before=before,
                    after=after,
                    num_after=len(values) - start - first,
                )
            )
        else:
            found += [
                ChangePoint(
                    place=bounds[n],
                    end=bounds[n],
                    kind=ChangeKind.STEP,
                    before=levels[n - 1],
                    after=levels[n],
                    num_after=len(values) - bounds[n],
                )
                for n in range(number, last + 1)
            ]
        number = last + 1
    return found


def _ramp(
    values: Any, steps: Sequence[int], penalty: float, sigma: float
) -> tuple[int, int, float, float] | None:
    """(first, end, level before, level after) of a ramp that explains `values` better than stairs.

    Both are charged for their parameters: a place and a level for each step, two places and one
    level for a ramp between two levels.
    """
    import numpy as np

    size = len(values)
    if size < _MIN_DRIFT:
        return None
    clipped = _clip(values, _running_median(values), sigma)
    charge = penalty * math.log(size) * sigma**2
    stairs = sum(
        float(np.sum((clipped[a:b] - np.mean(clipped[a:b])) ** 2))
        for a, b in pairwise([0, *steps, size])
    )
    first, end, rest = _best_ramp(clipped)
    if rest + 1.5 * charge >= stairs + len(steps) * charge:
        return None
    share = np.clip((np.arange(size) - first) / (end - first), 0.0, 1.0)  # 0 before, 1 after
    centred = share - share.mean()
    slope = float(np.dot(centred, clipped) / np.dot(centred, centred))
    base = float(clipped.mean() - slope * share.mean())
    return first, end, base, base + slope


def _best_ramp(values: Any) -> tuple[int, int, float]:
    """(first, end, sum of squares left) of the least-squares ramp, its places on a grid of 17.

    All of the grid at once, from sums up to its places: of a ramp's share s(i), 0 before `first`
    and 1 from `end`, the fit needs sum(s), sum(s^2) and sum(s x) alone.
    """
    import numpy as np

    size = len(values)
    grid = np.unique(np.linspace(0, size, 17).astype(int))
    first, end = (places.ravel() for places in np.meshgrid(grid[:-1], grid, indexing="ij"))
    long_enough = end >= first + _MIN_DRIFT
    first, end = first[long_enough], end[long_enough]
    centred = values - values.mean()
    sums = np.concatenate([[0.0], np.cumsum(centred)])
    moments = np.concatenate([[0.0], np.cumsum(np.arange(size) * centred)])
    length = (end - first).astype(np.float64)
    rising = moments[end] - moments[first] - first * (sums[end] - sums[first])
    product = rising / length + sums[size] - sums[end]
    total = (length - 1.0) / 2.0 + size - end
    squares = (length - 1.0) * (2.0 * length - 1.0) / (6.0 * length) + size - end
    spread = squares - total**2 / size
    rest = float(np.dot(centred, centred)) - product**2 / spread
    best = int(np.argmin(rest))
    return int(first[best]), int(end[best]), float(rest[best])
