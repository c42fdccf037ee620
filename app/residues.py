"""The residue trace of a failed run's worst sequences: where along a sequence a side is off."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from app import filters, markup, shell
from app.axes import ErrorAxis, error_axis, listed, new_figure
from app.letters import is_coloured, letters, letters_legend
from app.marks import AMBER, BLUE, GREY, VERMILION
from app.text import format_error, hover_text, one_line
from virnucpro_monitor.records import Json

MAX_TRACED = 3
MEASURES = {"errors": "1 - cos", "relative_l2": "Relative L2"}
BETWEEN = "packed_unpacked"
SIDES = (
    ("unpacked", "unpacked from oracle", AMBER, "dash"),
    ("packed", "packed from oracle", BLUE, "solid"),
    (BETWEEN, "packed against unpacked", GREY, "dot"),
)

LETTERED = ((BETWEEN, "packed against unpacked"), ("unpacked", "unpacked against the oracle"))
MIN_CHART = 30  # residues: fewer are read from their letters alone

Errors = Sequence[float | None]


def put_residues(document: Json) -> None:
    """Show a run's "residues" document, or say that it has none."""
    shell.heading("Along the worst sequences, residue by residue", "residues")
    traced = document.get("sequences") if isinstance(document, Mapping) else None
    if not traced:
        shell.put(markup.paragraph("Not recorded in this run.", kind="quiet"))
        return
    measure = filters.choose("Measure", MEASURES, "residues", default="errors", style="row")
    for one in list(traced)[:MAX_TRACED]:
        name = one_line(str(one.get("sequence_id", "")), 80)
        shell.put(markup.paragraph(markup.mono(name), worst_sentence(one, measure)))
        worst = worst_residue(one, measure)
        if worst is None:
            continue
        residues = str(one.get("residues", ""))
        for side, words in LETTERED:
            errors = _errors(one, measure, side)
            if errors and is_coloured(errors):
                shell.put(
                    markup.paragraph(words, kind="quiet"),
                    letters(residues, errors, name=f"{name}, {words}", worst=worst),
                )
        if len(residues) >= MIN_CHART:
            shell.chart(
                residues_figure(one, measure),
                key=f"residues-{name}",
                alt=f"Error of each residue of {name}",
            )
    shell.put(letters_legend())


def worst_residue(traced: Mapping[str, Any], measure: str) -> int | None:
    """0-based residue where packed and unpacked differ most; one not finite is the worst."""
    values = _errors(traced, measure, BETWEEN)
    if not values:
        return None
    return max(range(len(values)), key=lambda place: _or_infinite(values[place]))


def worst_sentence(traced: Mapping[str, Any], measure: str) -> str:
    worst = worst_residue(traced, measure)
    if worst is None:
        return "came back with another number of residues, which cannot be set side by side"
    error = _errors(traced, measure, BETWEEN)[worst]
    value = "not finite" if error is None else f"{MEASURES[measure]} {format_error(error)}"
    number = len(str(traced.get("residues", "")))
    return f"worst residue {residue_name(traced, worst)} of {number:,}: {value}"


def residue_name(traced: Mapping[str, Any], place: int) -> str:
    """As biologists write it, the letter and the place counted from 1: "W138"."""
    letters = str(traced.get("residues", ""))
    return f"{letters[place] if place < len(letters) else '?'}{place + 1}"


def residues_figure(traced: Mapping[str, Any], measure: str) -> go.Figure:
    """Error over the place in the sequence, a line for each side; the worst residue is marked."""
    axis = error_axis([e for side, *_ in SIDES for e in _errors(traced, measure, side)])
    figure = new_figure(320)
    for side, name, colour, dash in SIDES:
        values = _errors(traced, measure, side)
        if not values:
            continue
        figure.add_trace(
            go.Scatter(
                x=list(range(1, len(values) + 1)),
                y=[axis.place(value) for value in values],
                mode="lines",
                name=name,
                line={"color": colour, "width": 1.3, "dash": dash},
                customdata=listed(
                    [None, hover_text(f"{residue_name(traced, place)}: {name} {_words(value)}")]
                    for place, value in enumerate(values)
                ),
                hovertemplate="%{customdata[1]}<extra></extra>",
            )
        )
    _mark_worst(figure, traced, measure, axis)
    figure.update_xaxes(title={"text": "residue, counted from 1"}, zeroline=False)
    figure.update_yaxes(**axis.settings(MEASURES[measure]))
    return figure


def _mark_worst(
    figure: go.Figure, traced: Mapping[str, Any], measure: str, axis: ErrorAxis
) -> None:
    worst = worst_residue(traced, measure)
    if worst is None:
        return
    values = _errors(traced, measure, BETWEEN)
    text = f"{residue_name(traced, worst)}: {_words(values[worst])}"
    figure.add_trace(
        go.Scatter(
            x=[worst + 1],
            y=[axis.place(values[worst])],
            mode="markers+text",
            name="worst residue",
            showlegend=False,
            marker={"symbol": "star", "size": 11, "color": VERMILION},
            text=[hover_text(text)],
            # Towards the middle, so that the words stay inside the chart.
            textposition="top left" if worst > len(values) / 2 else "top right",
            cliponaxis=False,
            textfont={"color": VERMILION},
            hoverinfo="skip",
        )
    )


def _errors(traced: Mapping[str, Any], measure: str, side: str) -> Errors:
    values: Errors = (traced.get(measure) or {}).get(side) or []
    return values


def _words(error: float | None) -> str:
    return "not finite" if error is None else format_error(error)


def _or_infinite(error: float | None) -> float:
    return math.inf if error is None else error
