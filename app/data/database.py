"""The read-only engine, and how answers are kept.

Records are frozen, so that all readers share one copy. What is shown is at most `FRESH_S` behind
the database: so often it is asked whether anything was written, and if so, all is asked anew. Where
asking anew takes long, as of a long history into which runners write all the time, that is done for
a part of the time only. Meanwhile one reader waits for each new answer: the others are shown what
was until it is there.
"""

import os
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import update_wrapper
from threading import Lock, local
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
            one.outdate()
    return now


class _Thread(local):
    """Whether this thread is asking for an answer: what that is made of must be as new."""

    asks = False


_thread = _Thread()


@contextmanager
def _asking() -> Iterator[None]:
    before, _thread.asks = _thread.asks, True
    try:
        yield
    finally:
        _thread.asks = before


@dataclass(frozen=True, slots=True)
class _Past(Generic[_Answer]):
    """The last answer to one question."""

    state: str
    at: float
    answer: _Answer


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
        self._ttl_s = ttl_s
        self._max_past = max_entries
        self._past: OrderedDict[str, _Past[_Answer]] = OrderedDict()
        self._asked: set[str] = set()
        self._lock = Lock()
        if not unchanging:
            _following.append(self)
        update_wrapper(self, question)

    def __call__(self, *args: _Asked.args, **kwargs: _Asked.kwargs) -> _Answer:
        named = (f"{name}={_stands_for(kwargs[name])}" for name in sorted(kwargs))
        state = "" if self._unchanging else database_state()
        url = database_url()
        name = "\0".join([url, *map(_stands_for, args), *named])

        def ask() -> _Answer:
            start = monotonic()
            with _asking():
                answered = self._question(*args, **kwargs)
            if not self._unchanging:
                _spent_s[url] = max(_spent_s.get(url, 0.0), monotonic() - start)
            return answered

        if self._unchanging:
            answer: _Answer = self._kept(name, ask)
            return answer
        return self._asked_once(name, state, ask)

    def _asked_once(self, name: str, state: str, ask: Callable[[], _Answer]) -> _Answer:
        """What is kept, asked anew by the first who misses it: others get the last answer."""
        with self._lock:
            past = self._past.get(name)
            if (
                past is not None
                and past.state != state
                and monotonic() - past.at < self._ttl_s
                and name in self._asked
                and not _thread.asks
            ):
                return past.answer
            self._asked.add(name)
        at = monotonic()
        try:
            answer: _Answer = self._kept(f"{name}\0{state}", ask)
        finally:
            with self._lock:
                self._asked.discard(name)
        with self._lock:
            self._past[name] = _Past(state, at, answer)
            self._past.move_to_end(name)
            while len(self._past) > self._max_past:
                self._past.popitem(last=False)
        return answer

    def outdate(self) -> None:
        """Drop the answers to a former state of the database, but for the last to each question."""
        self._kept.clear()

    def forget(self) -> None:
        """Drop all kept answers."""
        with self._lock:
            self._past.clear()
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
