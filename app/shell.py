"""What every page needs: HTML on the page, the reader's clock, clicks on charts."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar, cast
from zoneinfo import ZoneInfo

import plotly.graph_objects as go
import streamlit as st

from app import data, markup
from app.markup import Html, Value
from app.text import markdown_text, zone

KEPT_DRAWINGS = 200
KEPT_DRAWINGS_S = 600.0

_Made = TypeVar("_Made")

CHART_SETTINGS = {
    "displaylogo": False,
    "showSendToCloud": False,
    "scrollZoom": False,
    "displayModeBar": True,  # its camera saves the chart as a PNG; without a mouse it stays in view
}
PNG_SCALE = 2  # sharp in print


def put(*parts: Html) -> None:
    """Write HTML pieces to the page."""
    st.html(markup.page(*parts))


def put_style() -> None:
    st.html(f"<style>{(Path(__file__).parent / 'style.css').read_text(encoding='utf-8')}</style>")


def reader_zone() -> ZoneInfo:
    return zone(st.context.timezone)


def now() -> datetime:
    return datetime.now(UTC)


def title(text: str, *lines: Value) -> None:
    st.title(markdown_text(text), anchor=False)
    if lines:
        put(*(markup.paragraph(line, kind="quiet") for line in lines))


def heading(text: str, anchor: str | None = None) -> None:
    """A section's title; `anchor` is what a link within the page names it by."""
    st.header(markdown_text(text), anchor=anchor or False)


def jumps(*sections: tuple[str, str]) -> None:
    """Links to the sections of a long page: (anchor, title)."""
    parts = (Html(f'<a href="#{anchor}">{markup.render(title)}</a>') for anchor, title in sections)
    put(Html(f'<nav class="vm-jumps" aria-label="On this page">{markup.join(parts).code}</nav>'))


def prepared(make: Callable[[], _Made], *key: str | int | None) -> _Made:
    """What `make` makes, kept for all readers under `key`.

    Args:
        key: everything that the result depends on; the database is added to it. Stored runs never
            change, so that their `identity` stands for them.
    """
    made: _Made = _prepared((data.database_url(), *key), make)
    return made


@st.cache_resource(max_entries=KEPT_DRAWINGS, ttl=KEPT_DRAWINGS_S, show_spinner=False)
def _prepared(key: tuple[str | int | None, ...], _make: Callable[[], Any]) -> Any:
    made = _make()
    return _Drawn(made) if isinstance(made, go.Figure) else made


class _Drawn(go.Figure):  # type: ignore[misc]  # plotly has no types
    """A finished figure, whose content is worked out once for all who look at it.

    Streamlit asks for it at each showing; copying thousands of points takes longer than the page.
    """

    def __init__(self, figure: go.Figure) -> None:
        super().__init__(layout=figure.layout)
        self._content: dict[str, Any] = figure.to_dict()

    def to_dict(self) -> dict[str, Any]:
        return self._content


def chart(figure: go.Figure, *, key: str, alt: str) -> None:
    """A chart without clicks. `alt` says in words what it shows."""
    st.plotly_chart(figure, key=key, config=_chart_settings(key), alt=alt)


def clickable_chart(
    figure: go.Figure, *, key: str, alt: str, on_click: Callable[[Any], None]
) -> None:
    """A chart whose markers open something: `on_click` gets the marker's `customdata[0]`."""
    event = st.plotly_chart(
        figure,
        key=key,
        config=_chart_settings(key),
        alt=alt,
        on_select="rerun",
        selection_mode="points",
    )
    points = cast("dict[str, Any]", event).get("selection", {}).get("points", [])
    custom = points[0].get("customdata") if points else None
    if isinstance(custom, list | tuple) and custom and custom[0] is not None:
        on_click(custom[0])


def _chart_settings(key: str) -> dict[str, Any]:
    image = {"format": "png", "filename": key, "scale": PNG_SCALE}
    return CHART_SETTINGS | {"toImageButtonOptions": image}


def open_page(name: str, **parameters: str | int | None) -> None:
    """Go to another page within the same session; the address follows."""
    pages: dict[str, Any] = st.session_state["pages"]
    given = {key: str(value) for key, value in parameters.items() if value not in (None, "")}
    st.switch_page(pages[name], query_params=given)


def open_run(run_id: Any) -> None:
    open_page("run", run=run_id)
