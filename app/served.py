"""What the server serves: the pages, and at `/metrics` the newest figures for Prometheus."""

from pathlib import Path

import streamlit as st
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

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


app = st.App(Path(__file__).parent / "streamlit_app.py", routes=[Route("/metrics", metrics)])
