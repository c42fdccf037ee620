"""Incidents, what they are derived from, and the one thing that the app writes."""

import gc
import logging
from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import lru_cache
from math import inf
from threading import Lock, Thread
from time import monotonic
from typing import Any

from app.data.database import FRESH_S, database_url, engine, identity, kept
from app.data.questions import load_series
from virnucpro_monitor.analysis.incidents import Incident
from virnucpro_monitor.analysis.movements import LOOKED_AT, Movement, find_movements
from virnucpro_monitor.analysis.regressions import Bound, Regressions, find_regressions
from virnucpro_monitor.analysis.series import series_key, split_series
from virnucpro_monitor.errors import ConfigurationError, MonitorError
from virnucpro_monitor.monitor import acknowledging, questions, reading
from virnucpro_monitor.monitor.opening import Engine, open_database
from virnucpro_monitor.records import Acknowledgement, Run
from virnucpro_monitor.settings import load_settings

logger = logging.getLogger(__name__)
WARM_UP = "warm-up"
REGRESSIONS_S = 600
KEPT_MOVEMENTS = 200  # series


@kept()
def load_history() -> tuple[Run, ...]:
    """All current runs, in commit order within each target.

    While a runner stores results they differ at each look: kept, they are read once for all.
    """
    return _load_history(engine())


def _load_history(engine: Any) -> tuple[Run, ...]:
    with _one_reader:
        return _read_history(engine, reading.load_history_state(engine))


_one_reader = Lock()


@lru_cache(maxsize=2)
def _read_history(engine: Any, state: tuple[object, ...]) -> tuple[Run, ...]:
    """Kept until the state changes: thousands of runs take a second to read."""
    runs = tuple(reading.load_history(engine))
    # Let Python's collector not walk again and again through what is here to stay.
    gc.collect()
    gc.freeze()
    return runs


_warmed_up_at = -inf


def warm_up() -> None:
    """Begin to read what the incident pages need, while the reader looks at another page."""
    global _warmed_up_at
    if monotonic() - _warmed_up_at > FRESH_S and not _one_reader.locked():
        _warmed_up_at = monotonic()
        Thread(target=_warm_up, args=(engine(),), name=WARM_UP, daemon=True).start()


def _warm_up(engine: Any) -> None:
    import ruptures  # noqa: F401 (half a second that the first chart of speeds would wait for)

    try:
        for members in split_series(_load_history(engine)).values():
            _movements_of(members)
    except MonitorError as error:
        logger.info("Nothing was read ahead: %s", error)  # the page that needs it will say so


_movements: OrderedDict[tuple[object, ...], tuple[Movement, ...]] = OrderedDict()


def _movements_of(runs: Sequence[Run]) -> tuple[Movement, ...]:
    """Kept for each series while no run joins it: change points take a quarter of a second."""
    key = (series_key(runs[-1]), *((run.id, run.started_at) for run in runs[-LOOKED_AT:]))
    known = _movements.get(key)
    if known is None:
        known = _movements[key] = find_movements(runs)
        while len(_movements) > KEPT_MOVEMENTS:
            _movements.popitem(last=False)
    return known


@kept()
def load_incidents() -> tuple[Incident, ...]:
    """All incidents, oldest first, as their acknowledgements leave them now."""
    return questions.judge_incidents(engine(), load_history())


def load_regressions(target: str, since: Bound | None, until: Bound | None) -> Regressions:
    """What broke, moved or vanished in a range, of one target or of all where it is empty."""
    runs, incidents = load_history(), load_incidents()
    states = hash(tuple((one.key, one.state) for one in incidents))
    newest = f"{len(runs)} {identity(runs[-1]) if runs else ''} {states}"
    return _find_regressions(newest, target, since, until)


@kept(REGRESSIONS_S, unchanging=True)
def _find_regressions(
    newest: str, target: str, since: Bound | None, until: Bound | None
) -> Regressions:
    """Kept while runs and incidents stay as `newest` says: change points take a second to find."""
    runs = [run for run in load_history() if target in ("", run.target)]
    incidents = [one for one in load_incidents() if target in ("", one.series.target)]
    return find_regressions(runs, incidents, since=since, until=until, movements=_movements_of)


def may_acknowledge() -> bool:
    return load_settings().writable_app


def acknowledge(note: Acknowledgement) -> None:
    """Store an acknowledgement: the only thing the app writes, by a connection of its own."""
    _write(lambda writable: acknowledging.acknowledge(writable, note))


def reopen(incident: Incident, who: str) -> None:
    """Withdraw an incident's acknowledgement."""
    _write(lambda writable: acknowledging.reopen(writable, incident.key, who=who))


def _write(change: Callable[[Engine], object]) -> None:
    if not may_acknowledge():
        raise ConfigurationError(
            "This dashboard is read-only: start it with --allow-acknowledge, or use "
            "`virnucpro-monitor incidents ack`."
        )
    with open_database(database_url(), read_only=False) as writable:
        change(writable)
    load_incidents.forget()
    load_series.forget()
