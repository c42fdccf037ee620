"""The chain of each series: every stored run has a link, in the order in which they were stored."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, bindparam, select, update

from virnucpro_monitor.store.digests import chain_digest
from virnucpro_monitor.store.models import ChainLinkRow
from virnucpro_monitor.store.statements import Prepared, insert_rows, table_of

LINKS = table_of(ChainLinkRow)
SERIES_KEY = (LINKS.c.target_id, LINKS.c.benchmark_set_id, LINKS.c.configuration_id)
_NEW = (*(column.name for column in SERIES_KEY), "place", "run_id", "digest", "chain")
_LAST_LINK = Prepared(
    select(LINKS.c.place, LINKS.c.chain)
    .where(*(column == bindparam(f"of_{column.name}") for column in SERIES_KEY))
    .order_by(LINKS.c.place.desc())
    .limit(1)
)


class Chains:
    """Chains the runs of one transaction, while nobody else stores runs of their targets."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._last: dict[tuple[int, ...], tuple[int, str]] = {}
        self._new: list[tuple[Any, ...]] = []

    def add(self, ids: Mapping[str, Any], run_id: int, digest: str) -> None:
        """Chain a run that was just stored.

        Args:
            ids: the run's `target_id`, `benchmark_set_id` and `configuration_id`.
        """
        key = {column.name: ids[column.name] for column in SERIES_KEY}
        series = tuple(key.values())
        place, before = self._last.get(series) or self._read_last(key)
        chain = chain_digest(before, digest)
        self._last[series] = (place + 1, chain)
        self._new.append((*series, place + 1, run_id, digest, chain))

    def _read_last(self, key: Mapping[str, int]) -> tuple[int, str]:
        given = {f"of_{name}": value for name, value in key.items()}
        place, chain = _LAST_LINK.first(self._connection, given) or (-1, "")
        return int(place), str(chain)

    def write(self) -> None:
        """Store the links of all runs that were added."""
        if self._new:
            columns = zip(*self._new, strict=True)
            insert_rows(self._connection, ChainLinkRow, dict(zip(_NEW, columns, strict=True)))
            self._new = []


def mark_removed(connection: Connection, run_ids: Sequence[int]) -> None:
    """Say of runs that are deleted on purpose that they are: their links stay."""
    statement = update(LINKS).where(LINKS.c.run_id == bindparam("of_run"))
    now = datetime.now(UTC)
    connection.execute(
        statement.values(removed_at=bindparam("now")),
        [{"of_run": run_id, "now": now} for run_id in run_ids],
    )
