"""The logarithmic error axis that every chart shares: e = 1 - cos, with a place for exactly zero.

Pure: numbers in, axis settings out.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go

from app.marks import GREY
from app.text import format_error

MAX_TICKS = 7
LONG_AXIS = 6  # decades
DASHES = {"strict": "dash", "lenient": "dot", "noise floor": "dashdot"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorAxis:
    """Where errors are drawn.

    Attributes:
        foot: position of an error of exactly zero, below every positive one.
        shelf: position of a result that is not finite or not there, above every error.
        low, high: the visible range, as exponents of ten.
    """

    foot: float
    shelf: float
    low: float
    high: float
    has_zero: bool
    has_shelf: bool

    def place(self, error: float | None) -> float:
        """Position of an error; None (not finite, lost) goes to the shelf."""
        if error is None or not math.isfinite(error):
            return self.shelf
        return max(error, self.foot)

    def settings(self, title: str) -> dict[str, Any]:
        """Settings of a Plotly axis."""
        lowest = math.ceil(self.low)
        if self.has_zero:  # the foot has a label of its own, as long as two decades of a long axis
            lowest += 2 if self.high - self.low > LONG_AXIS else 1
        decades = range(lowest, math.floor(self.high + 1e-9) + 1)
        step = max(1, math.ceil(len(decades) / MAX_TICKS))
        ticks = [(10.0**decade, f"1e{decade}") for decade in decades if decade % step == 0]
        if self.has_zero:
            ticks.insert(0, (self.foot, "exactly 0"))
        if self.has_shelf:
            ticks = [tick for tick in ticks if tick[0] < self.shelf]
            ticks.append((self.shelf, "no value"))
        return {
            "type": "log",
            # The topmost label stands in the plot, also below an axis that lies.
            "range": [self.low, self.high + (0.07 * (self.high - self.low)) * self.has_shelf],
            "tickvals": [value for value, _ in ticks],
            "ticktext": [text for _, text in ticks],
            "title": {"text": title},
            "zeroline": False,
            "automargin": True,
        }


def error_axis(errors: Iterable[float | None], thresholds: Iterable[float] = ()) -> ErrorAxis:
    """The axis on which all `errors` and `thresholds` have a place."""
    values = list(errors)
    finite = [value for value in values if value is not None and math.isfinite(value)]
    positive = [value for value in [*finite, *thresholds] if value > 0]
    lowest = math.floor(math.log10(min(positive))) if positive else -8
    highest = math.ceil(math.log10(max(positive)) + 0.15) if positive else 0
    has_zero = any(value == 0 for value in finite)
    has_shelf = len(finite) < len(values)
    if has_shelf:
        highest += 1
    # The foot lies a whole decade below, so that zero is never taken for a small number.
    foot = lowest - 1
    return ErrorAxis(
        foot=10.0**foot,
        shelf=10.0**highest,
        low=(foot if has_zero else lowest) - 0.35,
        high=highest + 0.2,
        has_zero=has_zero,
        has_shelf=has_shelf,
    )


def new_figure(height: int, **layout: Any) -> go.Figure:
    """An empty figure in the app's layout. Streamlit's own template gives it the theme."""
    figure = go.Figure()
    style(figure, height, **layout)
    return figure


def style(figure: go.Figure, height: int, **layout: Any) -> None:
    figure.update_layout(
        height=height,
        # The tools stand at the top: a legend as wide as a narrow chart lies below them.
        margin={"l": 8, "r": 12, "t": 76, "b": 8},
        hovermode="closest",
        hoverlabel={"align": "left"},
        legend={
            "orientation": "h",
            "x": 0,
            "xanchor": "left",
            "y": 1.02,
            "yanchor": "bottom",
            "title": {"text": ""},
        },
        **layout,
    )


def draw_thresholds(
    figure: go.Figure,
    thresholds: dict[str, float],
    *,
    axis: str = "y",
) -> None:
    """Constant thresholds by name, errors 1 - cos, as lines across the plot.

    Their names stand in the legend: beside the lines they would cross what is drawn there.

    Args:
        axis: "y", a logarithmic axis, or "x", a linear one of exponents of ten.
    """
    for name, value in thresholds.items():
        place = value if axis == "y" else math.log10(value)
        other = "x" if axis == "y" else "y"
        figure.add_shape(
            {
                "type": "line",
                f"{other}ref": f"{other} domain",
                f"{other}0": 0,
                f"{other}1": 1,
                f"{axis}0": place,
                f"{axis}1": place,
                "line": {"color": GREY, "width": 1.2, "dash": DASHES.get(name, "dot")},
                "name": f"{name} {format_error(value)}",
                "showlegend": True,
            }
        )


def listed(values: Iterable[object]) -> Any:
    """Any values for a trace, [n], or [n, k] where each is a list of k.

    An array of objects: Plotly would look at each element of a list of lists one by one.
    """
    return np.array(list(values), dtype=object)
