"""What the server serves: the pages, `/metrics` for Prometheus, and the keeping of a view.

`/process` tells the `dashboard` command that its own server answers, and not another's.
"""

import os
from pathlib import Path

import streamlit as st
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from app import saved
from virnucpro_monitor.errors import MonitorError
from virnucpro_monitor.monitor.histories import list_series
from virnucpro_monitor.monitor.opening import open_for_reading
from virnucpro_monitor.report.prometheus import CONTENT_TYPE, prometheus_text
from virnucpro_monitor.settings import load_settings


def metrics(_: Request) -> PlainTextResponse:
    """The newest figures of each series, where nobody has to log in to see them."""
    if st.secrets.load_if_toml_exists() and "auth" in st.secrets:
        # Prometheus cannot log in: its file is for a dashboard that asks for it.
        return PlainTextResponse("Log in, or use: virnucpro-monitor metrics FILE\n", 403)
    try:
        engine = open_for_reading(load_settings().database_url)
        try:
            text = prometheus_text(list_series(engine))
        finally:
            engine.dispose()
    except MonitorError as error:
        return PlainTextResponse(f"{error}\n", 503)
    return PlainTextResponse(text, media_type=CONTENT_TYPE)


def process(_: Request) -> PlainTextResponse:
    """Which process answers, and below which path: for the command that waits for its server."""
    return PlainTextResponse(f"{os.getpid()}\n{_BASE}")


def keep_view(request: Request) -> Response:
    """Keep an address under a name in the reader's own browser, and go back to it."""
    return _change_views(request, keep=True)


def drop_view(request: Request) -> Response:
    """Keep it no longer."""
    return _change_views(request, keep=False)


def _change_views(request: Request, *, keep: bool) -> Response:
    if request.headers.get("sec-fetch-site", "none") not in ("same-origin", "none"):
        return PlainTextResponse("Only the dashboard itself changes what is kept.\n", 403)
    name = saved.clean_name(request.query_params.get("called", ""))
    address = saved.clean_address(request.query_params.get("view", ""))
    if not name or address is None:
        return PlainTextResponse("A view has a name and an address of this dashboard.\n", 400)
    views = saved.read_views(request.cookies.get(saved.COOKIE, ""))
    views.pop(name, None)
    if keep:
        views[name] = address
    answer = RedirectResponse(address, status_code=303)
    answer.set_cookie(
        saved.COOKIE, saved.write_views(views), max_age=saved.KEPT_S, httponly=True, samesite="lax"
    )
    return answer


_ROUTES = {
    "metrics": metrics,
    "process": process,
    "keep-view": keep_view,
    "drop-view": drop_view,
}
_BASE = str(st.get_option("server.baseUrlPath") or "").strip("/")
app = st.App(
    Path(__file__).parent / "streamlit_app.py",
    routes=[
        Route(f"{below}/{name}", answer)
        for below in dict.fromkeys(["", f"/{_BASE}" if _BASE else ""])
        for name, answer in _ROUTES.items()
    ],
)
