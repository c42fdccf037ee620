"""The charts over sequences: of one run, and of two runs side by side. Pure: records in."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence

import plotly.graph_objects as go

from app.axes import ErrorAxis, draw_thresholds, error_axis, listed, new_figure
from app.marks import AMBER, BLUE, GREY, MARKS
from app.text import format_error, hover_text
from app.trend import threshold_errors
from virnucpro_monitor.analysis.comparison import (
    Comparison,
    Level,
    Mark,
    SequenceChange,
    Thresholds,
)
from virnucpro_monitor.analysis.series import error_of
from virnucpro_monitor.records import Outcome, SequenceResult, SequenceStatus
from virnucpro_monitor.report.words import LEVEL_WORDS

BINS_PER_DECADE = 4
FEW_SEQUENCES = 5  # up to here an axis would show fractions of a sequence
MAX_LABELLED_PACKS = 24
HOVER = "%{customdata[1]}<extra></extra>"

LEVELS = {
    Level.STRICT: (LEVEL_WORDS[Level.STRICT], Outcome.PASSED, "circle"),
    Level.LENIENT: (LEVEL_WORDS[Level.LENIENT], Outcome.SKIPPED, "diamond-open"),
    Level.FAILED: (LEVEL_WORDS[Level.FAILED], Outcome.FAILED, "x"),
}


def _name(result: SequenceResult) -> str:
    return f"<b>{hover_text(result.sequence_id, 60)}</b>, {result.length:,} residues"


def _hover(result: SequenceResult) -> str:
    lines = [_name(result), f"1 - cos: {format_error(error_of(result.similarity))}"]
    if result.status is not SequenceStatus.OK:
        lines.append(f"<b>{result.status.value.replace('_', ' ')}</b>")
    if result.worst_residue is not None:
        worst = format_error(error_of(result.worst_residue_similarity))
        lines.append(f"worst residue {result.worst_residue + 1}: {worst}")
    return "<br>".join(lines)


def _oracle_hover(result: SequenceResult) -> str:
    return (
        f"{_name(result)}<br>packed {format_error(result.packed_relative_l2)}, "
        f"unpacked {format_error(result.unpacked_relative_l2)}"
    )


def _pack_hover(result: SequenceResult) -> str:
    return (
        f"{_name(result)}<br>pack {(result.pack or 0) + 1}, place {(result.slot or 0) + 1}"
        f"<br>1 - cos: {format_error(error_of(result.similarity))}"
    )


def _by_level(
    results: Sequence[SequenceResult], thresholds: Thresholds
) -> Iterable[tuple[str, str, str, list[SequenceResult]]]:
    for level, (name, outcome, symbol) in LEVELS.items():
        members = [result for result in results if thresholds.level(result) is level]
        if members:
            yield name, symbol, MARKS[outcome].colour, members


def _scatter(
    results: Sequence[SequenceResult],
    name: str,
    symbol: str,
    colour: str,
    x: Callable[[SequenceResult], float | None],
    y: Callable[[SequenceResult], float | None],
    hover: Callable[[SequenceResult], str],
) -> go.Scatter:
    return go.Scatter(
        x=listed(x(result) for result in results),
        y=listed(y(result) for result in results),
        mode="markers",
        name=f"{name} ({len(results):,})",
        marker={
            "symbol": symbol,
            "color": colour,
            "size": 7,
            "line": {"width": 1, "color": colour},
        },
        customdata=listed([result.sequence_id, hover(result)] for result in results),
        hovertemplate=HOVER,
    )


def error_by_length_figure(results: Sequence[SequenceResult], thresholds: Thresholds) -> go.Figure:
    """Error against length: does a fault begin at some length?"""
    axis = error_axis(
        [error_of(result.similarity) for result in results], threshold_errors(thresholds).values()
    )
    figure = new_figure(360)
    for level, symbol, colour, members in _by_level(results, thresholds):
        figure.add_trace(
            _scatter(
                members,
                level,
                symbol,
                colour,
                lambda result: result.length,
                lambda result: axis.place(error_of(result.similarity)),
                _hover,
            )
        )
    draw_thresholds(figure, threshold_errors(thresholds))
    figure.update_xaxes(title={"text": "length, residues"}, rangemode="tozero", zeroline=False)
    figure.update_yaxes(**axis.settings("error, 1 - cos"))
    return figure


def distribution_figure(
    groups: Mapping[str, Sequence[SequenceResult]],
    thresholds: Thresholds,
    noise: float | None = None,
    *,
    height: int = 320,
) -> go.Figure:
    """How many sequences lie at which error; with two groups, base against head.

    Args:
        groups: results by the name to show.
        noise: 1 - cos that repeating an unchanged run can give, None where not measured.
    """
    errors = {name: [error_of(r.similarity) for r in results] for name, results in groups.items()}
    limits = [*threshold_errors(thresholds).values(), *([noise] if noise else [])]
    axis = error_axis([error for values in errors.values() for error in values], limits)
    figure = new_figure(height, barmode="group", bargap=0.08)
    looks = [(BLUE, ""), (AMBER, "/")]
    for (name, values), (colour, pattern) in zip(errors.items(), looks, strict=False):
        counts = _histogram(values, axis)
        figure.add_trace(
            go.Bar(
                x=[place for place, _, _ in counts],
                y=[count for _, count, _ in counts],
                name=name,
                marker={"color": colour, "pattern": {"shape": pattern}},
                customdata=listed(
                    [None, f"{count:,} sequences {label}"] for _, count, label in counts
                ),
                hovertemplate=HOVER,
            )
        )
    drawn = threshold_errors(thresholds)
    if noise:
        drawn["noise floor"] = noise
    # A bar chart's own axis cannot be logarithmic without uneven bars: draw exponents instead.
    draw_thresholds(figure, drawn, axis="x")
    settings = axis.settings("error, 1 - cos")
    settings["type"] = "linear"
    settings["tickvals"] = [math.log10(value) for value in settings["tickvals"]]
    figure.update_xaxes(**settings)
    most = max(
        (count for values in errors.values() for _, count, _ in _histogram(values, axis)), default=0
    )
    figure.update_yaxes(
        title={"text": "sequences"},
        rangemode="tozero",
        dtick=1 if most <= FEW_SEQUENCES else None,
    )
    return figure


def _histogram(errors: Sequence[float | None], axis: ErrorAxis) -> list[tuple[float, int, str]]:
    """(place as an exponent, count, words) of each bin that holds something."""
    counts: dict[int, int] = {}
    for error in errors:
        place = math.floor(math.log10(axis.place(error)) * BINS_PER_DECADE + 1e-9)
        counts[place] = counts.get(place, 0) + 1
    foot = math.floor(math.log10(axis.foot) * BINS_PER_DECADE + 1e-9)
    shelf = math.floor(math.log10(axis.shelf) * BINS_PER_DECADE + 1e-9)
    bins = []
    for place, count in sorted(counts.items()):
        low, high = 10 ** (place / BINS_PER_DECADE), 10 ** ((place + 1) / BINS_PER_DECADE)
        label = f"from {format_error(low)} to {format_error(high)}"
        centre = (place + 0.5) / BINS_PER_DECADE
        if axis.has_zero and place == foot:
            label, centre = "exactly equal", place / BINS_PER_DECADE
        elif axis.has_shelf and place == shelf:
            label, centre = "without a value", place / BINS_PER_DECADE
        bins.append((centre, count, label))
    return bins


def oracle_figure(results: Sequence[SequenceResult], thresholds: Thresholds) -> go.Figure | None:
    """Each side's distance from the FP32 oracle: above the diagonal the packed side is worse."""
    judged = [
        result
        for result in results
        if result.packed_relative_l2 is not None and result.unpacked_relative_l2 is not None
    ]
    if not judged:
        return None
    packed = error_axis([result.packed_relative_l2 for result in judged])
    unpacked = error_axis([result.unpacked_relative_l2 for result in judged])
    low, high = min(packed.low, unpacked.low), max(packed.high, unpacked.high)
    figure = new_figure(360)
    figure.add_trace(
        go.Scatter(
            x=[10**low, 10**high],
            y=[10**low, 10**high],
            mode="lines",
            line={"color": GREY, "width": 1.2, "dash": "dash"},
            name="both equally far",
            hoverinfo="skip",
        )
    )
    for level, symbol, colour, members in _by_level(judged, thresholds):
        figure.add_trace(
            _scatter(
                members,
                level,
                symbol,
                colour,
                lambda result: unpacked.place(result.unpacked_relative_l2),
                lambda result: packed.place(result.packed_relative_l2),
                _oracle_hover,
            )
        )
    figure.update_xaxes(**unpacked.settings("unpacked, relative L2 from the oracle"))
    figure.update_yaxes(**packed.settings("packed, relative L2 from the oracle"))
    return figure


def packs_figure(results: Sequence[SequenceResult], thresholds: Thresholds) -> go.Figure | None:
    """Where each sequence sat: one bar for each pack, one segment for each sequence."""
    placed = [result for result in results if result.pack is not None and result.offset is not None]
    if not placed:
        return None
    packs = sorted({result.pack for result in placed if result.pack is not None})
    figure = new_figure(min(1400, 110 + 22 * max(3, len(packs))), barmode="overlay")
    for level, _, colour, members in _by_level(placed, thresholds):
        figure.add_trace(
            go.Bar(
                orientation="h",
                y=listed(result.pack for result in members),
                # BOS and EOS belong to the segment: two tokens more than residues.
                x=[result.length + 2 for result in members],
                base=listed(result.offset for result in members),
                name=f"{level} ({len(members):,})",
                marker={
                    "color": colour,
                    "opacity": 0.85,
                    "line": {"width": 1, "color": "rgba(128,128,128,0.9)"},
                    "pattern": {"shape": "x" if level == "failed" else ""},
                },
                customdata=listed([result.sequence_id, _pack_hover(result)] for result in members),
                hovertemplate=HOVER,
            )
        )
    step = max(1, -(-len(packs) // MAX_LABELLED_PACKS))
    figure.update_yaxes(
        tickvals=packs[::step],
        ticktext=[f"pack {pack + 1}" for pack in packs[::step]],
        autorange="reversed",
        showgrid=False,
        zeroline=False,
        automargin=True,
    )
    figure.update_xaxes(title={"text": "token"}, zeroline=False)
    return figure


CHANGE_LOOKS: dict[Mark, tuple[str, str, str]] = {
    # Drawn in this order, so that what matters lies on top.
    Mark.EQUAL: ("exactly equal", "circle-open", GREY),
    Mark.WITHIN_NOISE: ("within noise", "circle-open", BLUE),
    Mark.BETTER: ("better", "triangle-down", MARKS[Outcome.PASSED].colour),
    Mark.WORSE: ("worse", "triangle-up", AMBER),
    Mark.CLOSER_BUT_FURTHER: ("closer, but further from FP32", "diamond-tall", AMBER),
    Mark.NOT_COMPARABLE: ("not comparable", "line-ew-open", GREY),
    Mark.NEWLY_FIXED: ("mended", "star", MARKS[Outcome.PASSED].colour),
    Mark.NEWLY_FAILING: ("newly bad", "x", MARKS[Outcome.FAILED].colour),
}


def before_after_figure(comparison: Comparison, base_name: str, head_name: str) -> go.Figure:
    """Each sequence's error in base (x) and head (y): above the diagonal it got worse."""
    limits = threshold_errors(comparison.thresholds)
    axis = error_axis(
        [
            error
            for change in comparison.sequences
            for error in (change.base_error, change.head_error)
        ],
        limits.values(),
    )
    figure = new_figure(460)
    figure.update_layout(margin={"t": 116})  # up to five rows of names on a narrow screen
    figure.add_trace(
        go.Scatter(
            x=[10**axis.low, 10**axis.high],
            y=[10**axis.low, 10**axis.high],
            mode="lines",
            line={"color": GREY, "width": 1.2, "dash": "dash"},
            name="unchanged",
            hoverinfo="skip",
        )
    )
    for mark, (name, symbol, colour) in CHANGE_LOOKS.items():
        changes = comparison.marked(mark)
        if changes:
            figure.add_trace(
                _change_trace(changes, f"{name} ({len(changes):,})", symbol, colour, axis)
            )
    draw_thresholds(figure, limits)
    settings = axis.settings(f"{head_name}, 1 - cos")
    figure.update_yaxes(**settings)
    figure.update_xaxes(**(settings | {"title": {"text": f"{base_name}, 1 - cos"}}))
    return figure


def _change_trace(
    changes: Sequence[SequenceChange], name: str, symbol: str, colour: str, axis: ErrorAxis
) -> go.Scatter:
    return go.Scatter(
        x=[axis.place(change.base_error) for change in changes],
        y=[axis.place(change.head_error) for change in changes],
        mode="markers",
        name=name,
        marker={
            "symbol": symbol,
            "color": colour,
            "size": 8,
            "line": {"width": 1.2, "color": colour},
        },
        customdata=listed(
            [
                change.sequence_id,
                f"<b>{hover_text(change.sequence_id, 60)}</b>, {change.head.length:,} residues"
                f"<br>1 - cos: {format_error(change.base_error)} → "
                f"{format_error(change.head_error)}",
            ]
            for change in changes
        ),
        hovertemplate=HOVER,
    )
