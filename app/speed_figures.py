"""Speed over commits, with what is expected of it. Pure: info in, figure out."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from app.axes import listed, style
from app.figures import HOVER, at, commit_axis, custom, marker_size
from app.marks import AMBER, BLUE, GREY, VERMILION
from app.text import format_duration, hover_text
from app.trend import TrendInfo
from virnucpro_monitor.analysis.movements import Figure, FigureHistory, follow_figure
from virnucpro_monitor.report.sentences import movement_sentence


def _add_speed(
    figure: go.Figure,
    info: TrendInfo,
    history: FigureHistory,
    *,
    row: int,
    name: str,
    line: dict[str, object],
    symbol: str,
    words: Callable[[float], str],
) -> None:
    """One figure of speed with its noise bands and the places where its level changed."""
    starts = [band.start for band in history.bands]
    for band, end in zip(history.bands, [*starts[1:], len(history.values)], strict=False):
        left, right = at(info, [band.start, max(band.start, end - 1)])
        figure.add_trace(
            go.Scatter(
                x=[left, right, right, left],
                y=[band.high, band.high, band.low, band.low],
                mode="lines",
                line={"width": 0},
                fill="toself",
                fillcolor="rgba(128, 136, 144, 0.18)",
                name=f"{name}, expected",
                showlegend=False,
                hoverinfo="skip",
            ),
            row=row,
            col=1,
        )
    timed = [place for place, value in enumerate(history.values) if value is not None]
    figure.add_trace(
        go.Scatter(
            x=_with_gaps(timed, at(info, timed)),
            y=_with_gaps(timed, [history.values[place] for place in timed]),
            mode="lines+markers",
            connectgaps=False,
            name=name,
            line=line,
            marker={"size": marker_size(info), "symbol": symbol},
            customdata=_with_gaps(
                timed, custom(info, timed, lambda place: words(history.values[place] or 0.0))
            ),
            hovertemplate=HOVER,
        ),
        row=row,
        col=1,
    )
    place_of = {id(point.run): point.place for point in info.trend.points}
    changed = [(place_of[id(one.run)], one) for one in history.movements]
    if changed:
        figure.add_trace(
            go.Scatter(
                x=at(info, [place for place, _ in changed]),
                y=[history.values[place] for place, _ in changed],
                mode="markers",
                name=f"{name}, changed",
                marker={"size": 13, "symbol": "circle-open", "color": VERMILION,
                        "line": {"width": 2}},
                text=[hover_text(movement_sentence(one), 200) for _, one in changed],
                hovertemplate="%{text}<extra></extra>",
            ),
            row=row,
            col=1,
        )  # fmt: skip


def speed_figure(info: TrendInfo) -> go.Figure:
    """Throughput of the packed path, its ratio to the unpacked one, and a passed run's duration.

    A run without a time leaves a gap: an error took no time at all, a failed run's holds its trace.
    The bands are what runs on one host and card are expected to be; a mark stands where the level
    changed.
    """
    figure = make_subplots(rows=3, cols=1, shared_xaxes=True, vertical_spacing=0.06)
    runs = [point.run for point in info.trend.points]
    throughput = follow_figure(runs, Figure.THROUGHPUT)
    speedup = follow_figure(runs, Figure.SPEEDUP)
    duration = follow_figure(runs, Figure.DURATION)
    _add_speed(
        figure, info, throughput, row=1, name="packed path", line={"color": BLUE, "width": 1.6},
        symbol="circle", words=lambda value: f"packed: {value:,.0f} tokens/s",
    )  # fmt: skip
    _add_speed(
        figure, info, speedup, row=2, name="packed against unpacked",
        line={"color": AMBER, "width": 1.6}, symbol="square",
        words=lambda value: f"packed: {value:.3g} times as fast as unpacked",
    )  # fmt: skip
    _add_speed(
        figure, info, duration, row=3, name="whole run",
        line={"color": GREY, "width": 1.6, "dash": "dot"}, symbol="diamond",
        words=lambda value: f"whole run: {format_duration(value)}",
    )  # fmt: skip
    style(figure, height=560)
    figure.update_yaxes(row=1, col=1, title={"text": "tokens/s"}, rangemode="tozero")
    figure.update_yaxes(row=2, col=1, title={"text": "x unpacked"}, rangemode="tozero")
    figure.add_hline(y=1.0, row=2, col=1, line={"color": GREY, "width": 1, "dash": "dot"})
    figure.update_yaxes(row=3, col=1, title={"text": "duration, s"}, rangemode="tozero")
    commit_axis(figure, info)
    return figure


def _with_gaps(places: Sequence[int], values: Iterable[Any]) -> Any:
    """`values` with a None wherever places between two of them have none: a line breaks there."""
    shown: list[Any] = []
    for number, value in enumerate(values):
        if number and places[number] > places[number - 1] + 1:
            shown.append(["", ""] if isinstance(value, (list, np.ndarray)) else None)
        shown.append(value)
    return listed(shown)
