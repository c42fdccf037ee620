"""The layer trace of a failed run's worst sequences: where in the model a side departs."""

from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go
import streamlit as st

from app import markup, shell
from app.axes import error_axis, listed, new_figure
from app.marks import AMBER, BLUE, GREY, VERMILION
from app.text import format_error, one_line
from virnucpro_monitor.records import Json

MAX_TRACED = 4
SIDES = (
    ("packed", "packed", BLUE, "circle", "solid"),
    ("unpacked", "unpacked", AMBER, "square", "dash"),
    ("packed_unpacked", "packed against unpacked", GREY, "diamond", "dot"),
)


def put_trace(document: Json) -> None:
    """Show a run's "trace" document; nothing where there is none."""
    if not isinstance(document, Mapping) or not document:
        return
    shell.heading("Where it departs, layer by layer", "layers")
    if "not_traced" in document:
        shell.put(markup.paragraph(one_line(str(document["not_traced"]), 500)))
        return
    traced = list(document.get("sequences", []))[:MAX_TRACED]
    if document.get("finding") and not any(one.get("finding") for one in traced):
        shell.put(markup.paragraph(one_line(str(document["finding"]), 500)))
    reference = str(document.get("reference", "oracle"))
    for column, one in zip(st.columns(max(1, len(traced))), traced, strict=False):
        with column:
            name = one_line(str(one.get("sequence_id", "")), 80)
            shell.put(markup.paragraph(markup.mono(name), one_line(str(one.get("finding", "")))))
            shell.chart(
                layers_figure(one, reference),
                key=f"trace-{name}",
                alt=f"Error of each layer for {name}",
            )


def layers_figure(traced: Mapping[str, Any], reference: str) -> go.Figure:
    """Relative L2 of each layer's output; the layer where a side departs is marked."""
    lines: dict[str, Sequence[float | None]] = {key: traced.get(key) or [] for key, *_ in SIDES}
    axis = error_axis([error for values in lines.values() for error in values])
    figure = new_figure(320)
    for key, name, colour, symbol, dash in SIDES:
        values = lines[key]
        if not values:
            continue
        label = name if key == "packed_unpacked" else f"{name} from {reference}"
        figure.add_trace(
            go.Scatter(
                x=list(range(len(values))),
                y=[axis.place(value) for value in values],
                mode="lines+markers",
                name=label,
                line={"color": colour, "width": 1.6, "dash": dash},
                marker={"symbol": symbol, "size": 6},
                customdata=listed(
                    [None, f"layer {layer}: {label} {format_error(value)}"]
                    for layer, value in enumerate(values)
                ),
                hovertemplate="%{customdata[1]}<extra></extra>",
            )
        )
    departs = traced.get("departs_at")
    if isinstance(departs, int):
        place: Any = departs
        figure.add_vline(
            x=place,
            line={"color": VERMILION, "width": 1.4},
            annotation={"text": "departs", "font": {"size": 11, "color": VERMILION}},
            annotation_position="bottom right",
        )
    figure.update_xaxes(title={"text": "layer (0 is the embedding)"}, zeroline=False)
    figure.update_yaxes(**axis.settings("relative L2"))
    return figure
