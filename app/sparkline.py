"""The small chart on a card: worst error of the newest runs, as an SVG picture.

It comes with the page's own HTML and needs no chart library, whose 5 MB of script take longer to
start than everything else on the page. Pure: marks in, HTML out.
"""

import base64
import math
from collections.abc import Sequence

from app.axes import ErrorAxis, error_axis
from app.marks import BLUE, GREY, MARKS
from app.markup import Html
from app.text import html_text
from virnucpro_monitor.analysis.series import error_of
from virnucpro_monitor.records import Outcome, RunMark

WIDTH, HEIGHT = 300, 52
_MARGIN = 7
# Streamlit lets no SVG element into a page, but pictures; no style sheet reaches into those.
_STYLE = (
    f".worst{{fill:none;stroke:{BLUE};stroke-width:1.3}}"
    f".limit{{stroke:{GREY};stroke-dasharray:4 3}}"
    ".line{fill:none;stroke-width:2.2}.open{fill:none;stroke-width:1.2}"
)


def sparkline(marks: Sequence[RunMark], strict_error: float | None) -> Html:
    """Worst errors 1 - cos on a logarithmic axis, higher is worse, oldest commit first.

    Args:
        strict_error: the strict threshold, drawn as a dashed line.
    """
    errors = [error_of(mark.min_similarity) for mark in marks if mark.outcome.has_verdict]
    axis = error_axis(errors, [strict_error] if strict_error else [])
    step = (WIDTH - 2 * _MARGIN) / max(1, len(marks) - 1)
    xs = [WIDTH - _MARGIN - step * (len(marks) - 1 - place) for place in range(len(marks))]
    parts = []
    if strict_error:
        y = _height(axis, strict_error)
        parts.append(f'<line class="limit" x1="0" x2="{WIDTH}" y1="{y:.1f}" y2="{y:.1f}"/>')
    parts += [
        f'<polyline class="worst" points="{" ".join(line)}"/>' for line in _lines(axis, xs, marks)
    ]
    parts += [_mark(axis, x, mark) for x, mark in zip(xs, marks, strict=True)]
    bad = sum(mark.effective_outcome.is_bad for mark in marks)
    label = f"Worst error of the last {len(marks)} runs, {bad} of them bad"
    picture = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}">'
        f"<style>{_STYLE}</style>{''.join(parts)}</svg>"
    )
    code = base64.b64encode(picture.encode()).decode()
    return Html(
        f'<img class="vm-spark" src="data:image/svg+xml;base64,{code}" alt="{html_text(label)}" '
        f'title="{html_text(label)}" width="{WIDTH}" height="{HEIGHT}">'
    )


def _lines(axis: ErrorAxis, xs: Sequence[float], marks: Sequence[RunMark]) -> list[list[str]]:
    """Points of each stretch without a gap: what was not measured is not joined across.

    A skipped run is no gap: nothing that matters changed, and its place has no value of its own.
    """
    lines: list[list[str]] = [[]]
    for x, mark in zip(xs, marks, strict=True):
        if mark.outcome.has_verdict:
            y = _height(axis, error_of(mark.min_similarity))
            lines[-1].append(f"{x:.1f},{y:.1f}")
        elif mark.outcome is not Outcome.SKIPPED and lines[-1]:
            lines.append([])
    return [line for line in lines if line]


def _height(axis: ErrorAxis, error: float | None) -> float:
    """Distance from the top, in units of the drawing."""
    exponent = math.log10(axis.place(error))
    share = (exponent - axis.low) / (axis.high - axis.low)
    return HEIGHT - _MARGIN - share * (HEIGHT - 2 * _MARGIN)


def _mark(axis: ErrorAxis, x: float, mark: RunMark) -> str:
    """A shape for each outcome, as everywhere; what was not measured lies at the bottom."""
    colour = MARKS[mark.outcome].colour
    y: float = HEIGHT - _MARGIN
    if mark.outcome.has_verdict:
        y = _height(axis, error_of(mark.min_similarity))
    match mark.outcome:
        case Outcome.FAILED:
            cross = f"M{x - 4:.1f} {y - 4:.1f}l8 8m0 -8l-8 8"
            return f'<path class="line" stroke="{colour}" d="{cross}"/>'
        case Outcome.ERROR:
            return f'<path fill="{colour}" d="M{x - 4.5:.1f} {y + 4:.1f}h9l-4.5 -8z"/>'
        case Outcome.NOT_RUN:
            return f'<path class="line" stroke="{colour}" d="M{x - 3:.1f} {y:.1f}h6"/>'
        case Outcome.SKIPPED:
            style = f'class="open" stroke="{colour}"'
        case Outcome.PASSED:
            style = f'fill="{colour}"'
    return f'<circle {style} cx="{x:.1f}" cy="{y:.1f}" r="2.4"/>'
