"""The menu: words on every screen, and links that carry the chosen series to each page."""

from typing import Any

import streamlit as st

from app import data, filters, links
from virnucpro_monitor.errors import NotFoundError

UNLISTED = {"regressions"}  # a view of the incidents with an address of its own
CHOICE = ("target", "benchmark", "config")
_KEPT = "chosen-series"


def put() -> None:
    """A link to each page; Streamlit marks the one that is shown."""
    pages: dict[str, Any] = st.session_state["pages"]
    chosen = chosen_series()
    with st.container(horizontal=True, gap="small", key="menu"):
        for name in (name for name in pages if name not in UNLISTED):
            st.page_link(pages[name], query_params=chosen or None)


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
