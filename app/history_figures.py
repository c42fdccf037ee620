"""Further charts over commits and over time. Pure: records in, figures out."""

from collections.abc import Mapping, Sequence
from datetime import date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import plotly.graph_objects as go

from app.axes import draw_thresholds, error_axis, listed, new_figure, style
from app.marks import AMBER, BLUE, GREY, MARKS
from app.sequence_figures import LEVELS
from app.text import format_error
from app.trend import run_hover, threshold_errors
from virnucpro_monitor.analysis.comparison import Level, Thresholds
from virnucpro_monitor.analysis.series import error_of, log10_error
from virnucpro_monitor.records import BenchmarkSet, DayUsage, Outcome, SequencePoint, short_hash

MAX_COMMIT_LABELS = 5
MIN_DAYS = 14
BAR_DAYS = 0.8
HOVER = "%{customdata[1]}<extra></extra>"
AMINO_ACIDS = "ACDEFGHIKLMNPQRSTVWY"


def sequence_figure(
    points: Sequence[SequencePoint], thresholds: Mapping[str, Thresholds], reader_zone: ZoneInfo
) -> go.Figure:
    """One sequence's error over commits. `thresholds` are by protocol digest."""
    errors = [error_of(point.result.similarity) for point in points]
    limits = threshold_errors(thresholds[points[-1].run.protocol_digest])
    axis = error_axis(errors, limits.values())
    figure = new_figure(400)
    figure.add_trace(
        go.Scatter(
            x=list(range(len(points))),
            y=[axis.place(error) for error in errors],
            mode="lines",
            line={"color": GREY, "width": 1.4},
            showlegend=False,
            hoverinfo="skip",
        )
    )
    levels = [thresholds[point.run.protocol_digest].level(point.result) for point in points]
    for level in Level:
        name, outcome, symbol = LEVELS[level]
        places = [place for place, other in enumerate(levels) if other is level]
        if not places:
            continue
        figure.add_trace(
            go.Scatter(
                x=listed(places),
                y=[axis.place(errors[place]) for place in places],
                mode="markers",
                name=f"{name} ({len(places):,})",
                marker={
                    "symbol": symbol,
                    "color": MARKS[outcome].colour,
                    "size": 9 if len(points) < 300 else 6,
                    "line": {"width": 1, "color": MARKS[outcome].colour},
                },
                customdata=listed(
                    [
                        points[place].run.id,
                        f"{run_hover(points[place].run, reader_zone)}<br>"
                        f"this sequence: {format_error(errors[place])}",
                    ]
                    for place in places
                ),
                hovertemplate=HOVER,
            )
        )
    worse = worse_than_before(points)
    if worse:
        figure.add_trace(
            go.Scatter(
                x=listed(worse),
                y=[axis.place(errors[place]) for place in worse],
                mode="markers",
                name=f"more than ten times worse than the last passed run ({len(worse):,})",
                marker={"symbol": "circle-open", "color": AMBER, "size": 15, "line": {"width": 2}},
                hoverinfo="skip",
            )
        )
    draw_thresholds(figure, limits)
    labelled = range(0, len(points), max(1, -(-len(points) // MAX_COMMIT_LABELS)))
    figure.update_xaxes(
        tickvals=list(labelled),
        ticktext=[short_hash(points[place].run.commit.hash)[:7] for place in labelled],
        tickangle=0,
        range=[-0.8, len(points) - 0.2],
        showgrid=False,
        zeroline=False,
    )
    figure.update_yaxes(**axis.settings("error, 1 - cos"))
    return figure


def worse_than_before(points: Sequence[SequencePoint]) -> list[int]:
    """Places whose error lies a decade above that of the last passed run before, whatever its
    level: a sequence can agree and yet show the fault. `points` are oldest first."""
    found = []
    before: float | None = None
    for place, point in enumerate(points):
        error = error_of(point.result.similarity)
        known = error is not None and before is not None
        if known and log10_error(error or 0.0) - log10_error(before or 0.0) > 1.0:
            found.append(place)
        if point.run.effective_outcome is Outcome.PASSED and error is not None:
            before = error
    return found


def lengths_figure(benchmark: BenchmarkSet) -> go.Figure:
    """How long a set's sequences are."""
    figure = new_figure(280, bargap=0.06)
    figure.add_trace(
        go.Histogram(
            x=[len(sequence.residues) for sequence in benchmark.sequences],
            nbinsx=40,
            marker={"color": BLUE},
            hovertemplate="%{x} residues: %{y} sequences<extra></extra>",
        )
    )
    figure.update_xaxes(title={"text": "length, residues"}, zeroline=False)
    figure.update_yaxes(title={"text": "sequences"})
    return figure


def residues_figure(benchmark: BenchmarkSet) -> go.Figure:
    """How often each residue stands in a set, the twenty standard ones first."""
    counts: dict[str, int] = {}
    for sequence in benchmark.sequences:
        for residue in set(sequence.residues):
            counts[residue] = counts.get(residue, 0) + sequence.residues.count(residue)
    total = sum(counts.values()) or 1
    letters = [*AMINO_ACIDS, *sorted(set(counts) - set(AMINO_ACIDS))]
    figure = new_figure(280, bargap=0.15)
    figure.add_trace(
        go.Bar(
            x=letters,
            y=[counts.get(letter, 0) / total for letter in letters],
            marker={"color": [BLUE if letter in AMINO_ACIDS else AMBER for letter in letters]},
            customdata=listed([None, f"{x}: {counts.get(x, 0):,} residues"] for x in letters),
            hovertemplate=HOVER,
        )
    )
    figure.update_xaxes(type="category", tickangle=0, title={"text": "residue"})
    figure.update_yaxes(title={"text": "share"}, tickformat=".0%")
    return figure


def usage_figure(usage: Sequence[DayUsage]) -> go.Figure:
    """Minutes of run time per day and kind of device."""
    figure = go.Figure()
    style(figure, 300, barmode="stack", showlegend=True)
    for device, colour in (("cuda", BLUE), ("cpu", GREY)):
        days = [day for day in usage if day.device == device]
        if days:
            figure.add_trace(
                go.Bar(
                    x=[day.day for day in days],
                    y=[day.run_s / 60 for day in days],
                    width=BAR_DAYS * 86_400_000,  # a date axis counts in milliseconds
                    name="GPU" if device == "cuda" else "CPU",
                    marker={"color": colour},
                    customdata=listed(
                        [None, f"{day.day}: {day.run_s / 60:,.1f} min in {day.num_runs:,} runs"]
                        for day in days
                    ),
                    hovertemplate=HOVER,
                )
            )
    figure.update_yaxes(title={"text": "minutes"}, rangemode="tozero")
    # A bar stands in the middle of its day; a few days alone would be drawn as broad blocks.
    last = max((date.fromisoformat(day.day) for day in usage), default=date.min)
    first = min((date.fromisoformat(day.day) for day in usage), default=date.min)
    first = min(first, last - timedelta(days=MIN_DAYS - 1))
    half = timedelta(hours=12)
    ends = [datetime.combine(first, time.min) - half, datetime.combine(last, time.min) + half]
    figure.update_xaxes(type="date", tickformat="%d %b", showgrid=False, range=ends)
    return figure
