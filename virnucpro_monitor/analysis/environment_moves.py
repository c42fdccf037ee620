"""Where results moved because the environment changed, and not the code."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from virnucpro_monitor.analysis.change_points import MIN_EFFECT_DECADES, noise_scale
from virnucpro_monitor.analysis.differences import Difference, find_differences
from virnucpro_monitor.analysis.movements import LOOKED_AT, Figure, figure_floor, figure_value
from virnucpro_monitor.analysis.series import SeriesKey
from virnucpro_monitor.records import Outcome, Run

AROUND = 10
"""Runs on either side of the change that are set against each other."""
MIN_AFTER = 3
"""With fewer runs, of other code than before, the commit may be the cause."""
_SIGMAS = 4.0
_MIN_NOISE = 3  # values


@dataclass(frozen=True, slots=True, kw_only=True)
class EnvironmentMove:
    """A figure of accuracy that moved where the environment changed.

    Attributes:
        before, after: last run in the old and first run in the new environment.
        differences: between the two environments.
        old, new: medians in the figure's own unit.
    """

    series: SeriesKey
    figure: Figure
    before: Run
    after: Run
    differences: tuple[Difference, ...]
    old: float
    new: float

    @property
    def key(self) -> str:
        """The same for all series and figures that the same change moved."""
        ends = (run.environment.digest[:12] for run in (self.before, self.after) if run.environment)
        return f"environment:{':'.join(ends)}"


def find_environment_moves(series: SeriesKey, runs: Sequence[Run]) -> tuple[EnvironmentMove, ...]:
    """Compare the figures on both sides of each change of environment along one series.

    Args:
        runs: of one series, oldest commit first; skipped and failed ones are passed over.
    """
    measured = [run for run in runs[-LOOKED_AT:] if run.outcome is Outcome.PASSED]
    measured = [run for run in measured if run.environment is not None]
    starts = [
        place
        for place in range(1, len(measured))
        if measured[place].environment != measured[place - 1].environment
    ]
    moves: list[EnvironmentMove] = []
    for number, start in enumerate(starts):
        begin = starts[number - 1] if number else 0
        end = starts[number + 1] if number + 1 < len(starts) else len(measured)
        old = measured[max(begin, start - AROUND) : start]
        new = measured[start : min(end, start + AROUND)]
        differences = find_differences(old[-1], new[0])
        if {one.kind for one in differences} != {"environment"}:
            continue
        if len(new) < MIN_AFTER and not _is_same_code(old[-1], new[0]):
            continue
        for figure in (one for one in Figure if not one.is_speed):
            levels = _moved(old, new, figure)
            if levels is not None:
                moves.append(
                    EnvironmentMove(
                        series=series,
                        figure=figure,
                        before=old[-1],
                        after=new[0],
                        differences=differences,
                        old=levels[0],
                        new=levels[1],
                    )
                )
    return tuple(moves)


def _is_same_code(before: Run, after: Run) -> bool:
    return after.bridge or (
        before.code_digest is not None and before.code_digest == after.code_digest
    )


def _moved(old: Sequence[Run], new: Sequence[Run], figure: Figure) -> tuple[float, float] | None:
    """Levels before and after, where they differ by more than the noise."""
    before, after = (_decades(runs, figure) for runs in (old, new))
    if not before or not after:
        return None
    noise = max(
        (noise_scale(values) for values in (before, after) if len(values) >= _MIN_NOISE),
        default=0.0,
    )
    levels = median(before), median(after)
    if abs(levels[1] - levels[0]) < max(MIN_EFFECT_DECADES, _SIGMAS * noise):
        return None
    return 10 ** levels[0], 10 ** levels[1]


def _decades(runs: Sequence[Run], figure: Figure) -> list[float]:
    values = (figure_value(run, figure) for run in runs)
    floor = figure_floor(figure)
    return [math.log10(max(value, floor)) for value in values if value is not None]
