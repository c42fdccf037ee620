"""The menu: words on every screen, links that carry the chosen series, and what a reader kept."""

from typing import Any

import streamlit as st

from app import data, filters, links, markup, saved, shell
from app.markup import Html, Value
from app.text import html_text, one_line
from virnucpro_monitor.errors import NotFoundError

UNLISTED = {"regressions"}  # a view of the incidents with an address of its own
CHOICE = ("target", "benchmark", "config")
_KEPT = "chosen-series"


def put(shown: str) -> None:
    """A link to each page; Streamlit marks the one that is shown.

    Args:
        shown: the path of the page.
    """
    pages: dict[str, Any] = st.session_state["pages"]
    chosen = chosen_series()
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key="menu"):
        for name in (name for name in pages if name not in UNLISTED):
            st.page_link(pages[name], query_params=chosen or None)
        with st.popover("Views", type="tertiary"):
            _put_views(shown)


def _put_views(shown: str) -> None:
    """The views that this browser keeps, and a form to keep the one that is shown."""
    kept = saved.read_views(st.context.cookies.get(saved.COOKIE, ""))
    address = links.link(shown or "overview", **st.query_params.to_dict())
    view = html_text(saved.clean_address(address) or "./", saved.MAX_ADDRESS)
    rows: list[Value] = [
        markup.paragraph(
            markup.anchor(one, one_line(name, saved.MAX_NAME)),
            markup.anchor(
                links.link("drop-view", called=name, view=address),
                Html(f'<span aria-hidden="true">✕</span><span class="sr">drop '
                     f"{html_text(name)}</span>"),
                title="Keep it no longer",
            ),
        )
        for name, one in kept.items()
    ]  # fmt: skip
    if not rows:
        rows.append(markup.quiet("No view is kept yet. This browser keeps them."))
    form = (  # Streamlit lets no field into a page whose name a form has a property of: no "name"
        '<form action="keep-view" method="get" class="vm-keep">'
        f'<input type="hidden" name="view" value="{view}">'
        '<label>Keep this view as <input name="called" type="text" required '
        f'maxlength="{saved.MAX_NAME}"></label> <button type="submit">Keep</button></form>'
    )
    shell.put(Html("".join(markup.render(row) for row in rows)), Html(form))


def chosen_series() -> dict[str, str]:
    """What names the series in an address: the address's own, its run's, or the last chosen."""
    given = {name: value for name in CHOICE if (value := filters.parameter(name))}
    run_id = filters.number_parameter("run")
    if not given and run_id is not None:
        try:
            given = links.series_parameters(data.load_run(run_id))
        except NotFoundError:
            given = {}
    if given:
        st.session_state[_KEPT] = given
    kept: dict[str, str] = st.session_state.get(_KEPT, {})
    return kept
