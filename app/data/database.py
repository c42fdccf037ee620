"""The read-only engine, and how answers are kept.

Records are frozen, so that all readers share one copy. What is shown is at most `FRESH_S` behind
the database: so often it is asked whether anything was written, and if so, all is asked anew. Where
asking anew takes long, as of a long history into which runners write all the time, that is done for
a part of the time only, and readers wait for it as seldom.
"""

import os
from collections.abc import Callable
from datetime import datetime
from functools import update_wrapper
from time import monotonic
from typing import Any, Generic, ParamSpec, TypeVar

import streamlit as st

from virnucpro_monitor.monitor import opening, reading
from virnucpro_monitor.monitor.histories import SeriesCard
from virnucpro_monitor.records import Commit, Run
from virnucpro_monitor.settings import load_settings

FRESH_S = 10
KEPT_S = 60  # acknowledgements run out, days go by: asked anew though nothing was written
URL_VARIABLE = "VIRNUCPRO_MONITOR_DB"
KEPT = 256
REST = 4
"""Kept answers are used for this many times as long as it took to ask for them."""

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


_states: dict[str, tuple[float, str]] = {}
_spent_s: dict[str, float] = {}
"""Seconds that the slowest question took since the state was asked for."""
_following: "list[Kept[Any, Any]]" = []
"""Those whose answers a change of the database makes old."""


def database_state() -> str:
    """What changes once something was written to the database, within `FRESH_S`."""
    url = database_url()
    asked_at, state = _states.get(url, (-FRESH_S, ""))
    if monotonic() - asked_at < max(FRESH_S, REST * _spent_s.get(url, 0.0)):
        return state
    now = reading.load_version(engine())
    _states[url] = (monotonic(), now)
    _spent_s[url] = 0.0
    if state and now != state:
        for one in _following:
            one.forget()
    return now


def kept(
    ttl_s: float = KEPT_S, *, unchanging: bool = False, max_entries: int = KEPT
) -> Callable[[Callable[_Asked, _Answer]], "Kept[_Asked, _Answer]"]:
    """Keep a question's answers for all readers, without copying them.

    The answers belong to the database that is configured when the question is asked, to its state
    and to the question's arguments. A stored run stands for itself by its identity, a series by its
    key.

    Args:
        ttl_s: seconds after which it is asked anew in any case.
        unchanging: what is asked of stored runs, which never change: nothing that is written makes
            it old.
        max_entries: answers that are kept, the last used ones; fewer where they are large.
    """

    def decorate(question: Callable[_Asked, _Answer]) -> Kept[_Asked, _Answer]:
        return Kept(question, ttl_s, unchanging=unchanging, max_entries=max_entries)

    return decorate


class Kept(Generic[_Asked, _Answer]):
    """A function whose answers are kept by database and arguments."""

    def __init__(
        self,
        question: Callable[_Asked, _Answer],
        ttl_s: float,
        *,
        unchanging: bool,
        max_entries: int,
    ) -> None:
        def answer(key: str, _ask: Callable[[], _Answer]) -> _Answer:
            return _ask()

        # Streamlit tells caches apart by the names of their functions.
        answer.__module__ = question.__module__
        answer.__qualname__ = f"kept {question.__qualname__}"
        self._question = question
        keep = st.cache_resource(ttl=ttl_s, max_entries=max_entries, show_spinner=False)
        self._kept: Any = keep(answer)
        self._unchanging = unchanging
        if not unchanging:
            _following.append(self)
        update_wrapper(self, question)

    def __call__(self, *args: _Asked.args, **kwargs: _Asked.kwargs) -> _Answer:
        named = (f"{name}={_stands_for(kwargs[name])}" for name in sorted(kwargs))
        state = "" if self._unchanging else database_state()
        url = database_url()
        key = "\0".join([url, state, *map(_stands_for, args), *named])

        def ask() -> _Answer:
            start = monotonic()
            answered = self._question(*args, **kwargs)
            if not self._unchanging:
                _spent_s[url] = max(_spent_s.get(url, 0.0), monotonic() - start)
            return answered

        answer: _Answer = self._kept(key, ask)
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
    if isinstance(argument, list | tuple) and all(isinstance(one, str) for one in argument):
        return repr(argument)
    raise TypeError(f"{type(argument).__name__} has no short name to keep an answer by.")
