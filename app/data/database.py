"""The read-only engine, and how answers are kept.

Records are frozen, so that all readers share one copy. A kept list is at most `FRESH_S` old.
"""

import os
from collections.abc import Callable
from datetime import datetime
from functools import update_wrapper
from typing import Any, Generic, ParamSpec, TypeVar

import streamlit as st

from virnucpro_monitor.monitor import opening
from virnucpro_monitor.monitor.histories import SeriesCard
from virnucpro_monitor.records import Commit, Run
from virnucpro_monitor.settings import load_settings

FRESH_S = 10
URL_VARIABLE = "VIRNUCPRO_MONITOR_DB"
KEPT = 256

_Asked = ParamSpec("_Asked")
_Answer = TypeVar("_Answer")


def database_url() -> str:
    # `dashboard` hands the URL over in the environment; reading all settings takes milliseconds.
    return os.environ.get(URL_VARIABLE) or load_settings().database_url


@st.cache_resource(max_entries=8, show_spinner=False)
def _open(url: str) -> Any:
    return opening.open_for_reading(url)


def engine() -> Any:
    """The read-only engine of the configured database, to hand to the monitor's questions."""
    return _open(database_url())


def check_database() -> None:
    """Raise the `StoreError` that says why the database cannot be shown, at each page anew."""
    opening.check_schema(engine())


def identity(run: Run) -> str:
    """A stored run for as long as it is kept: ids begin anew where a database is made anew."""
    return f"{run.id} {run.started_at.isoformat()}"


def kept(ttl_s: float = FRESH_S) -> Callable[[Callable[_Asked, _Answer]], "Kept[_Asked, _Answer]"]:
    """Keep a question's answers for `ttl_s` seconds, for all readers, without copying them.

    The answers belong to the database that is configured when the question is asked, and to its
    arguments. A stored run stands for itself by its identity, a series by its key.
    """

    def decorate(question: Callable[_Asked, _Answer]) -> Kept[_Asked, _Answer]:
        return Kept(question, ttl_s)

    return decorate


class Kept(Generic[_Asked, _Answer]):
    """A function whose answers are kept by database and arguments."""

    def __init__(self, question: Callable[_Asked, _Answer], ttl_s: float) -> None:
        def answer(key: str, _ask: Callable[[], _Answer]) -> _Answer:
            return _ask()

        # Streamlit tells caches apart by the names of their functions.
        answer.__module__ = question.__module__
        answer.__qualname__ = f"kept {question.__qualname__}"
        self._question = question
        keep = st.cache_resource(ttl=ttl_s, max_entries=KEPT, show_spinner=False)
        self._kept: Any = keep(answer)
        update_wrapper(self, question)

    def __call__(self, *args: _Asked.args, **kwargs: _Asked.kwargs) -> _Answer:
        named = (f"{name}={_stands_for(kwargs[name])}" for name in sorted(kwargs))
        key = "\0".join([database_url(), *map(_stands_for, args), *named])
        answer: _Answer = self._kept(key, lambda: self._question(*args, **kwargs))
        return answer

    def forget(self) -> None:
        """Drop all kept answers."""
        self._kept.clear()


def _stands_for(argument: object) -> str:
    if isinstance(argument, Run):
        return identity(argument)
    if isinstance(argument, SeriesCard):
        return f"{argument.key} {argument.configurations}"
    if isinstance(argument, Commit):
        return argument.hash
    if isinstance(argument, str | int | datetime | None):
        return repr(argument)
    raise TypeError(f"{type(argument).__name__} has no short name to keep an answer by.")
