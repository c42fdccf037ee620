"""The charts over commits: agreement, gates, speed. Pure: info in, figure out.

Every marker that stands for a run has the run's id as `customdata[0]`.
"""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from app.axes import ErrorAxis, error_axis, listed, style
from app.marks import AMBER, BLUE, GREY, MARKS, VERMILION
from app.text import format_error, format_value, hover_text
from app.trend import Place, TrendInfo, change_hover
from virnucpro_monitor.analysis.trends import TrendPoint
from virnucpro_monitor.records import GateResult, Outcome, short_hash

MAX_COMMIT_LABELS = 30  # upright where they do not fit side by side
OUTCOME_ROW = "error, skipped"
UNJUDGED = (Outcome.ERROR, Outcome.SKIPPED, Outcome.NOT_RUN)
MAX_CHANGE_LINES = 60
MAX_SPANS = 200
MANY_POINTS = 300
MAX_SVG_MARKS = 1500
OUTCOME_SIZES = ((50, 11), (130, 8), (300, 6))  # (runs at most, size)
HOVER = "%{customdata[1]}<extra></extra>"


def trend_figure(info: TrendInfo) -> go.Figure:
    """Outcomes, pass rate and errors of one series over commits."""
    figure = make_subplots(
        rows=3, cols=1, shared_xaxes=True, vertical_spacing=0.06, row_heights=[0.13, 0.24, 0.63]
    )
    points = info.trend.points
    limits = [limit for thresholds in info.thresholds for limit in thresholds.values()]
    errors = [
        error
        for point in points
        if point.run.figures is not None
        for error in (point.worst, point.p01, point.median)
    ]
    axis = error_axis(errors, limits)
    _draw_outcomes(figure, info)
    _draw_rate(figure, info)
    _draw_errors(figure, info, axis)
    _draw_thresholds(figure, info)
    style(figure, height=600, shapes=_shapes(info))
    figure.update_yaxes(
        row=1,
        col=1,
        range=[-0.7 if info.trend.events else 0.3, 1.7],
        tickvals=[1, 0] if info.trend.events else [1],
        ticktext=["outcome", "changes"] if info.trend.events else ["outcome"],
        showgrid=False,
        zeroline=False,
        fixedrange=True,
    )
    rates = [rate for point in points if (rate := point.strict_pass_rate) is not None]
    room = max(0.02, (1.0 - min(rates, default=0.0)) * 0.12)
    figure.update_yaxes(
        row=2,
        col=1,
        range=[max(-0.06, min(rates, default=0.0) - room), 1.0 + room],
        tickformat=".3~%",
        nticks=4,
        zeroline=False,
        title={"text": "agree"},
        automargin=True,
    )
    figure.update_yaxes(row=3, col=1, **axis.settings("error, 1 - cos"))
    commit_axis(figure, info)
    return figure


def marks_trace(number: int) -> Callable[..., Any]:
    """The kind of trace for so many marks: starting WebGL takes longer than drawing a few."""
    kind: Callable[..., Any] = go.Scatter if number <= MAX_SVG_MARKS else go.Scattergl
    return kind


def _shapes(info: TrendInfo) -> list[dict[str, Any]]:
    """Bad stretches as shaded bands and changes as lines, over all rows of the figure."""
    shapes: list[dict[str, Any]] = []
    for span in info.spans[-MAX_SPANS:]:
        start, end = _widened(span.start, span.end)
        shapes.append(
            {"type": "rect", "x0": start, "x1": end, "fillcolor": VERMILION, "opacity": 0.1}
            | {"line": {"width": 0}}
        )
    for event in info.trend.events[-MAX_CHANGE_LINES:]:
        place = info.places[event.place]
        line = {"color": AMBER, "width": 1, "dash": "dot"}
        shapes.append({"type": "line", "x0": place, "x1": place, "line": line})
    extent = {"xref": "x", "yref": "paper", "y0": 0, "y1": 1, "layer": "below"}
    return [shape | extent for shape in shapes]


def _widened(start: Any, end: Any) -> tuple[Any, Any]:
    margin: Any = timedelta(minutes=30) if isinstance(start, datetime) else 0.45
    return start - margin, end + margin


def _draw_outcomes(figure: go.Figure, info: TrendInfo) -> None:
    """One row of marks, one trace for each outcome, so that the legend explains the shapes."""
    for outcome, mark in MARKS.items():
        places = [p.place for p in info.trend.points if p.run.outcome is outcome]
        if not places:
            continue
        figure.add_trace(
            marks_trace(len(places))(
                x=at(info, places),
                y=[1] * len(places),
                mode="markers",
                name=mark.word,
                marker={
                    "symbol": mark.symbol,
                    "color": mark.colour,
                    "size": _outcome_size(info, outcome),
                    "line": {"width": 2, "color": mark.colour},
                },
                customdata=custom(info, places),
                hovertemplate=HOVER,
            ),
            row=1,
            col=1,
        )
    if info.trend.events:
        figure.add_trace(
            marks_trace(len(info.trend.events))(
                x=at(info, [event.place for event in info.trend.events]),
                y=[0] * len(info.trend.events),
                mode="markers",
                name="change of environment, protocol or benchmark",
                marker={"symbol": "diamond", "color": AMBER, "size": 9},
                customdata=listed([None, change_hover(event)] for event in info.trend.events),
                hovertemplate=HOVER,
                showlegend=False,
            ),
            row=1,
            col=1,
        )


def _outcome_size(info: TrendInfo, outcome: Outcome) -> int:
    """Marks shrink where they are many, but what is not healthy stays easy to hit."""
    size = next((size for most, size in OUTCOME_SIZES if len(info.places) <= most), 4)
    return size if outcome in (Outcome.PASSED, Outcome.SKIPPED) else max(8, size)


def at(info: TrendInfo, places: Sequence[int]) -> Any:
    return listed(info.places[place] for place in places)


def custom(info: TrendInfo, places: Sequence[int], note: Callable[[int], str] | None = None) -> Any:
    return listed(
        [
            info.trend.points[place].run.id,
            info.hovers[place] + (f"<br>{note(place)}" if note else ""),
        ]
        for place in places
    )


def _line(
    info: TrendInfo, value: Callable[[TrendPoint], float | None], *, markers: bool = True
) -> dict[str, Any]:
    """Coordinates of a line over the trend's segments, with a gap between each two."""
    x: list[Place | None] = []
    y: list[float | None] = []
    custom: list[list[Any]] = []
    for segment in info.trend.segments:
        if x:
            x.append(None)
            y.append(None)
            custom.append([None, ""])
        for point in info.trend.points[segment.start : segment.end + 1]:
            x.append(info.places[point.place])
            y.append(value(point))
            custom.append([point.run.id, info.hovers[point.place]])
    line: dict[str, Any] = {"x": listed(x), "y": listed(y)}
    return line | ({"customdata": listed(custom), "hovertemplate": HOVER} if markers else {})


def marker_size(info: TrendInfo) -> int:
    return 6 if len(info.places) < MANY_POINTS else 3


def _draw_rate(figure: go.Figure, info: TrendInfo) -> None:
    figure.add_trace(
        go.Scatter(
            **_line(info, lambda point: point.strict_pass_rate),
            mode="lines+markers",
            line={"color": BLUE, "width": 1.6},
            marker={"color": BLUE, "size": marker_size(info) - 1},
            name="share that agrees",
            showlegend=False,
        ),
        row=2,
        col=1,
    )


def _draw_errors(figure: go.Figure, info: TrendInfo, axis: ErrorAxis) -> None:
    def placed(error: float | None) -> float | None:
        return None if error is None else axis.place(error)

    for label, dash, value in (
        ("median", "dot", lambda point: placed(point.median)),
        ("1st percentile", "dash", lambda point: placed(point.p01)),
        ("worst sequence", "solid", lambda point: axis.place(point.worst)),
    ):
        figure.add_trace(
            go.Scatter(
                **_line(info, value, markers=False),
                mode="lines",
                line={
                    "color": BLUE if dash == "solid" else GREY,
                    "width": 1.8 if dash == "solid" else 1.3,
                    "dash": dash,
                },
                name=label,
                hoverinfo="skip",
            ),
            row=3,
            col=1,
        )
    drawn = [point for point in info.trend.points if point.run.figures is not None]
    figure.add_trace(
        go.Scatter(
            x=at(info, [point.place for point in drawn]),
            y=[axis.place(point.worst) for point in drawn],
            mode="markers",
            marker={
                "symbol": [MARKS[point.run.outcome].symbol for point in drawn],
                "color": [MARKS[point.run.outcome].colour for point in drawn],
                "size": [
                    9 if point.run.outcome is Outcome.FAILED else marker_size(info)
                    for point in drawn
                ],
            },
            customdata=custom(info, [point.place for point in drawn]),
            hovertemplate=HOVER,
            name="worst sequence",
            showlegend=False,
        ),
        row=3,
        col=1,
    )


def _draw_thresholds(figure: go.Figure, info: TrendInfo) -> None:
    """Each run's own thresholds as steps, so that a changed one shows as an event."""
    for name, dash in (("lenient", "dot"), ("strict", "dash")):
        known = [
            (place, limits[name])
            for place, limits in zip(info.places, info.thresholds, strict=True)
            if name in limits
        ]
        if not known:
            continue
        figure.add_trace(
            go.Scatter(
                x=listed(place for place, _ in known),
                y=[limit for _, limit in known],
                mode="lines",
                line={"color": AMBER, "width": 1.4, "dash": dash, "shape": "hv"},
                name=f"{name} {format_error(known[-1][1])}",
                hoverinfo="skip",
            ),
            row=3,
            col=1,
        )


def commit_axis(figure: go.Figure, info: TrendInfo) -> None:
    figure.update_xaxes(showgrid=False, zeroline=False)
    points = info.trend.points
    if info.by_date or not points:
        return
    labelled = range(0, len(points), max(1, -(-len(points) // MAX_COMMIT_LABELS)))
    figure.update_xaxes(
        tickvals=list(labelled),
        ticktext=[short_hash(points[place].run.commit.hash)[:7] for place in labelled],
        autotickangles=[0, 90],
        range=[-0.8, len(points) - 0.2],
    )


def gates_figure(info: TrendInfo) -> go.Figure:
    """Each gate's own verdict over commits, one row of marks for each gate."""
    points = info.trend.points
    names: list[str] = []
    for point in reversed(points):  # the newest run's order is the one to read
        names += [gate.name for gate in point.run.gates if gate.name not in names]
    figure = go.Figure()
    for outcome, wanted in (
        (Outcome.PASSED, True),
        (Outcome.FAILED, False),
        (Outcome.NOT_RUN, None),
    ):
        hits = [(p, gate) for p in points for gate in p.run.gates if gate.passed is wanted]
        if not hits:
            continue
        mark = MARKS[outcome]
        figure.add_trace(
            marks_trace(len(hits))(
                x=at(info, [point.place for point, _ in hits]),
                y=[names.index(gate.name) for _, gate in hits],
                mode="markers",
                name="not judged" if wanted is None else mark.word,
                marker={
                    "symbol": mark.symbol,
                    "color": mark.colour,
                    "size": 9 if len(points) < MANY_POINTS else 5,
                    "line": {"width": 1, "color": mark.colour},
                },
                customdata=listed([p.run.id, _gate_hover(p, gate)] for p, gate in hits),
                hovertemplate=HOVER,
            )
        )
    if any(point.run.outcome in UNJUDGED for point in points):
        names.append(OUTCOME_ROW)
    for outcome in UNJUDGED:
        without = [point for point in points if point.run.outcome is outcome]
        if not without:
            continue
        mark = MARKS[outcome]
        figure.add_trace(
            marks_trace(len(without))(
                x=at(info, [point.place for point in without]),
                y=[names.index(OUTCOME_ROW)] * len(without),
                mode="markers",
                name=mark.word,
                marker={"symbol": mark.symbol, "color": mark.colour, "size": 10},
                customdata=listed([point.run.id, info.hovers[point.place]] for point in without),
                hovertemplate=HOVER,
            )
        )
    style(figure, height=120 + 30 * max(3, len(names)))
    figure.update_yaxes(
        tickvals=list(range(len(names))),
        ticktext=[hover_text(name, 40) for name in names],
        range=[len(names) - 0.4, -0.6],
        zeroline=False,
        automargin=True,
    )
    commit_axis(figure, info)
    return figure


def _gate_hover(point: TrendPoint, gate: GateResult) -> str:
    return (
        f"<b>{hover_text(gate.name)}</b> at {point.run.commit.short}<br>"
        f"{format_value(gate.value)}, limit {format_value(gate.limit)} {hover_text(gate.unit)}<br>"
        f"{hover_text(gate.detail)}"
    )
