"""The agreement of a series at a glance: a picture with a link on each run. Pure: HTML out.

The chart library brings 5 MB of script, which takes longer to start than all else on the page.
Lines are a picture that stretches with the page; marks are links, laid over it by percent.
"""

import base64
import math
from collections.abc import Sequence
from html import escape
from math import log10

from app import links
from app.axes import ErrorAxis, error_axis
from app.marks import AMBER, BLUE, GREY, MARKS, VERMILION
from app.markup import Html
from app.text import format_error, format_share, html_text, shortened
from app.trend import TrendInfo, outcome_words
from virnucpro_monitor.analysis.trends import TrendPoint
from virnucpro_monitor.records import Outcome

WIDTH, HEIGHT = 1000, 100  # of the picture's own units; it is stretched
MAX_LABELS = 60
MARGIN = 1.2  # percent of the width, at both ends


def glance(info: TrendInfo, *, caption: str) -> Html:
    """Worst and median error of each run on a logarithmic axis, higher is worse."""
    points = info.trend.points
    limits = {name: value for one in info.thresholds for name, value in one.items()}
    errors = [
        error
        for point in points
        if point.run.figures is not None
        for error in (point.worst, point.median)
    ]
    axis = error_axis(errors, limits.values())
    marks = "".join(_mark(point, axis, len(points)) for point in points)
    ticks = "".join(
        f'<span class="tick" style="top:{_top(axis, value):.1f}%">{text}</span>'
        for value, text in zip(
            axis.settings("")["tickvals"], axis.settings("")["ticktext"], strict=True
        )
    )
    return Html(
        f'<div class="vm-glance" role="group" aria-label="{html_text(caption)}">{_key(limits)}'
        f'<div class="plot"><img class="vm-lines" alt="" src="{_picture(info, axis, limits)}">'
        f"{ticks}{marks}</div>"
        f'<div class="hashes" aria-hidden="true">{_hashes(points)}</div></div>'
    )


def _key(limits: dict[str, float]) -> str:
    """What the lines are. Beside them, their names would cross the marks."""
    lines = [("solid", BLUE, "worst sequence"), ("dashed", GREY, "median")]
    lines += [
        ("dashed" if name == "strict" else "dotted", AMBER, f"{name} {format_error(value)}")
        for name, value in limits.items()
    ]
    return (
        '<div class="key">'
        + "".join(
            f'<span><i style="border-top:2px {line} {colour}"></i>{html_text(text)}</span>'
            for line, colour, text in lines
        )
        + f'<span><i class="bad" style="background:{VERMILION}"></i>bad run</span></div>'
    )


def _left(place: int, count: int) -> float:
    """Percent of the width."""
    return MARGIN + (100 - 2 * MARGIN) * (place + 0.5) / max(1, count)


def _top(axis: ErrorAxis, error: float | None) -> float:
    """Percent of the height, from above."""
    exponent = log10(axis.place(error))
    return 100 * (axis.high - exponent) / (axis.high - axis.low)


def _mark(point: TrendPoint, axis: ErrorAxis, count: int) -> str:
    run = point.run
    mark = MARKS[run.outcome]
    measured = run.figures is not None
    top = _top(axis, point.worst) if measured else 96.0
    left = _left(point.place, count)
    small = count > 120 and run.effective_outcome is Outcome.PASSED
    kind = ("s " if small else "") + ("end" if left > 60 else "")
    return (
        f'<a class="pt {kind}" style="left:{left:.2f}%;top:{top:.1f}%;color:{mark.colour}" '
        f'href="{escape(links.run_link(run), quote=True)}" target="_self" tabindex="-1" '
        f'aria-label="{html_text(_words(point), 400)}">'
        f'<b aria-hidden="true">{mark.glyph}</b></a>'
    )


def _words(point: TrendPoint) -> str:
    run = point.run
    text = f"{run.commit.short} {shortened(run.commit.subject, 60)}: {outcome_words(run)}"
    figures = run.figures
    if figures is not None:
        text += f"; {format_share(figures.num_strict, figures.num_sequences)} agree"
        worst = "no value" if point.worst is None else format_error(point.worst)
        text += f"; worst 1 - cos {worst}, median {format_error(point.median)}"
    return text


def _hashes(points: Sequence[TrendPoint]) -> str:
    count = len(points)
    step = max(1, math.ceil(count / MAX_LABELS))
    return "".join(
        f'<span style="left:{_left(point.place, count):.2f}%">{point.run.commit.hash[:7]}</span>'
        for point in points[::step]
    )


def _picture(info: TrendInfo, axis: ErrorAxis, limits: dict[str, float]) -> str:
    """The lines as an SVG picture that fills the plot whatever its shape."""
    points = info.trend.points
    count = len(points)
    parts = []
    for event in info.trend.events:
        x = 10 * _left(event.place, count)
        parts.append(f'<path d="M{x:.1f} 0V100" stroke="{AMBER}" stroke-dasharray="2 3"/>')
    for point in points:
        if point.outcome.is_bad:
            half = (1000 - 20 * MARGIN) / max(1, count) / 2
            x = 10 * _left(point.place, count) - half
            parts.append(
                f'<rect x="{x:.1f}" y="0" width="{2 * half:.1f}" height="100" '
                f'fill="{VERMILION}" opacity="0.13"/>'
            )
    for name, value in limits.items():
        y, dash = _top(axis, value), "6 4" if name == "strict" else "2 4"
        parts.append(f'<path d="M0 {y:.1f}H1000" stroke="{AMBER}" stroke-dasharray="{dash}"/>')
    for dash, colour, attribute in (("4 3", GREY, "median"), ("", BLUE, "worst")):
        for segment in info.trend.segments:
            line = " ".join(
                f"{10 * _left(point.place, count):.1f},{_top(axis, getattr(point, attribute)):.1f}"
                for point in points[segment.start : segment.end + 1]
            )
            parts.append(f'<polyline points="{line}" stroke="{colour}" stroke-dasharray="{dash}"/>')
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        'preserveAspectRatio="none"><style>*{fill:none;vector-effect:non-scaling-stroke;'
        f"stroke-width:1.4}}rect{{fill:{VERMILION};stroke:none}}</style>{''.join(parts)}</svg>"
    )
    return f"data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()}"
