"""Runs that this process has read before: their rows are fetched again, but not decoded again.

To make a record of a row's JSON, times and words takes ten times as long as to fetch it, and a
dashboard reads the same thousand runs after each one that is stored. Rows are compared as the
driver gives them, so that whatever was changed, by whomever, is decoded anew.
"""

from collections.abc import Callable, Iterable, Sequence
from threading import Lock
from typing import Any
from weakref import WeakKeyDictionary

from sqlalchemy import Connection, Engine, Select

from virnucpro_monitor.records import Run
from virnucpro_monitor.store.rows import COMMIT_COLUMNS, RUN_COLUMNS, RunReader

MAX_KNOWN = 20_000
"""Runs that are kept for each engine; some 6 KB each."""


class _KnownRuns:
    """Run by id, with its row and its commit's: a hash of them would be equal for -1 and -2."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[tuple[Any, ...], Run]] = {}
        self._lock = Lock()

    def find(self, row: tuple[Any, ...]) -> Run | None:
        known = self._known.get(row[0])
        return known[1] if known is not None and known[0] == row else None

    def keep(self, rows: Iterable[tuple[tuple[Any, ...], Run]]) -> None:
        with self._lock:
            for row, run in rows:
                self._known.pop(row[0], None)  # the last one kept is the last one to go
                self._known[row[0]] = (row, run)
            for run_id in list(self._known)[: max(0, len(self._known) - MAX_KNOWN)]:
                del self._known[run_id]


_OF_ENGINES: WeakKeyDictionary[Engine, _KnownRuns] = WeakKeyDictionary()


def fetch_runs(connection: Connection, query: Select[Any]) -> list[Run]:
    """The runs of a query of `RUN_COLUMNS` and then `COMMIT_COLUMNS`, in its order."""
    known = _OF_ENGINES.setdefault(connection.engine, _KnownRuns())
    result = connection.execute(query)
    cursor: Any = result.cursor
    rows = [tuple(row) for row in cursor.fetchall()]
    decoders = _decoders(connection, [column[1] for column in cursor.description])
    result.close()
    runs = [known.find(row) for row in rows]
    new = [place for place, run in enumerate(runs) if run is None]
    if new:
        reader = RunReader(connection)
        decoded = [reader.run_from_row(_decoded(rows[place], decoders)) for place in new]
        for place, run in zip(new, decoded, strict=True):
            runs[place] = run
        known.keep(zip((rows[place] for place in new), decoded, strict=True))
    return [run for run in runs if run is not None]


_Decoder = Callable[[Any], Any] | None


def _decoders(connection: Connection, kinds: Sequence[Any]) -> list[_Decoder]:
    """What SQLAlchemy makes of each column's values; `kinds` are the driver's own types."""
    dialect = connection.dialect
    return [
        column.type.dialect_impl(dialect).result_processor(dialect, kind)
        for column, kind in zip((*RUN_COLUMNS, *COMMIT_COLUMNS), kinds, strict=True)
    ]


def _decoded(row: tuple[Any, ...], decoders: Sequence[_Decoder]) -> tuple[Any, ...]:
    return tuple(
        value if decode is None else decode(value)
        for value, decode in zip(row, decoders, strict=True)
    )
