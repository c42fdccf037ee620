"""The read-only engine, and how answers are kept.

Records are frozen, so that all readers share one copy. A kept list is at most `FRESH_S` old.
"""

import os
from collections.abc import Callable
from typing import Any, TypeVar, cast

import streamlit as st

from virnucpro_monitor.records import Run
from virnucpro_monitor.settings import load_settings
from virnucpro_monitor.store import reader
from virnucpro_monitor.store.engine import open_engine

FRESH_S = 10
URL_VARIABLE = "VIRNUCPRO_MONITOR_DB"
KEPT = 256

_Function = TypeVar("_Function", bound=Callable[..., Any])


def database_url() -> str:
    # `dashboard` hands the URL over in the environment; reading all settings takes milliseconds.
    return os.environ.get(URL_VARIABLE) or load_settings().database_url


@st.cache_resource(max_entries=8, show_spinner=False)
def _open(url: str) -> Any:
    return open_engine(url, read_only=True)


def engine() -> Any:
    """The read-only engine of the configured database, to hand to the store's readers."""
    return _open(database_url())


def check_database() -> None:
    """Raise the `StoreError` that says why the database cannot be shown, at each page anew."""
    reader.check_schema(engine())


def identity(run: Run) -> str:
    """A stored run for as long as it is kept: ids begin anew where a database is made anew."""
    return f"{run.id} {run.started_at.isoformat()}"


def kept(ttl_s: float = FRESH_S) -> Callable[[_Function], _Function]:
    """Keep a function's answers by its arguments for `ttl_s` seconds, without copying them.

    The database's URL must be among the arguments: another database has other answers.
    """
    keep = st.cache_resource(ttl=ttl_s, max_entries=KEPT, show_spinner=False)
    return cast("Callable[[_Function], _Function]", keep)


def forget(*functions: Callable[..., object]) -> None:
    """Drop the kept answers of functions that `kept` decorates."""
    for function in functions:
        cast("Any", function).clear()
