"""Takes the digests of stored runs again, and follows the chain of each series."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

from sqlalchemy import Connection, bindparam, select, type_coerce, update
from sqlalchemy.types import Text

from virnucpro_monitor.errors import StoreError
from virnucpro_monitor.records import VERDICTS, Configuration, Environment, Failure, content_digest
from virnucpro_monitor.store.chain import LINKS, SERIES_KEY, Chains
from virnucpro_monitor.store.digests import DIGESTED_COLUMNS, chain_digest, digest_run
from virnucpro_monitor.store.models import (
    BenchmarkSetRow,
    CommitRow,
    ConfigurationRow,
    DocumentRow,
    EnvironmentRow,
    FailureRow,
    ProtocolRow,
    RunRow,
    SequenceResultRow,
    TargetRow,
)
from virnucpro_monitor.store.results import COLUMN_KINDS, Results
from virnucpro_monitor.store.statements import table_of

CHUNK = 200
"""Runs that are held in memory at once."""

_RUNS = table_of(RunRow)
_BEHIND = {
    "target": TargetRow.name,
    "commit": CommitRow.hash,
    "benchmark_digest": BenchmarkSetRow.digest,
    "configuration_digest": ConfigurationRow.digest,
    "environment_digest": EnvironmentRow.digest,
    "protocol_digest": ProtocolRow.digest,
}
_RUN_IDS = ("target_id", "benchmark_set_id", "configuration_id")
_CONTENT = (
    select(
        _RUNS.c.id,
        _RUNS.c.digest,
        *(_RUNS.c[name] for name in _RUN_IDS),
        *(column.label(name) for name, column in _BEHIND.items()),
        *(_RUNS.c[name] for name in DIGESTED_COLUMNS if name != "gates"),
        type_coerce(_RUNS.c.gates, Text()).label("gates"),
    )
    .join(TargetRow, TargetRow.id == _RUNS.c.target_id)
    .join(CommitRow, CommitRow.id == _RUNS.c.commit_id)
    .join(BenchmarkSetRow, BenchmarkSetRow.id == _RUNS.c.benchmark_set_id)
    .join(ConfigurationRow, ConfigurationRow.id == _RUNS.c.configuration_id)
    .join(ProtocolRow, ProtocolRow.id == _RUNS.c.protocol_id)
    .outerjoin(EnvironmentRow, EnvironmentRow.id == _RUNS.c.environment_id)
    .order_by(_RUNS.c.id)
)
_RESULTS = table_of(SequenceResultRow)
_RESULT_COLUMNS = [
    type_coerce(_RESULTS.c[name], Text()) if kind == "status" else _RESULTS.c[name]
    for name, kind in COLUMN_KINDS.items()
]
_FAILURE_NAMES = tuple(field.name for field in fields(Failure))


@dataclass(frozen=True, slots=True)
class StoredRun:
    """A run as it stands in the database.

    Attributes:
        key: its `target_id`, `benchmark_set_id` and `configuration_id`.
        digest: what was stored with it, None where nothing was.
        digest_now: of its rows as they are.
    """

    id: int
    key: tuple[int, ...]
    digest: str | None
    digest_now: str


def digest_stored_runs(connection: Connection) -> Iterator[StoredRun]:
    """Every run with the digest of its rows, in the order in which they were stored.

    Raises:
        StoreError: rows hold what cannot be read.
    """
    last = -1
    while True:
        rows = connection.execute(_CONTENT.where(_RUNS.c.id > last).limit(CHUNK)).all()
        if not rows:
            return
        first = rows[0].id
        for row in rows:
            if row.id <= last:  # a damaged table: going on from here might never end
                raise StoreError(f"run {row.id} stands after run {last}: restore a backup")
            last = row.id
        results = _read_results(connection, first, last)
        documents: dict[int, dict[str, str]] = defaultdict(dict)
        content = type_coerce(DocumentRow.content, Text())
        for run_id, name, text in connection.execute(
            select(DocumentRow.run_id, DocumentRow.name, content).where(
                DocumentRow.run_id.between(first, last)
            )
        ):
            documents[run_id][name] = text
        failures = {
            row.run_id: {name: getattr(row, name) for name in _FAILURE_NAMES}
            for row in connection.execute(
                select(table_of(FailureRow)).where(FailureRow.run_id.between(first, last))
            )
        }
        for row in rows:
            values = row._mapping
            yield StoredRun(
                row.id,
                tuple(values[name] for name in _RUN_IDS),
                row.digest,
                digest_run(
                    {str(name): value for name, value in values.items()},
                    Results.of_rows(results[row.id]),
                    documents[row.id],
                    failures.get(row.id),
                ),
            )


def _read_results(
    connection: Connection, first: int, last: int
) -> dict[int, list[tuple[Any, ...]]]:
    """The rows of the results of runs with these ids, by run."""
    found: dict[int, list[tuple[Any, ...]]] = defaultdict(list)
    query = (
        select(_RESULTS.c.run_id, *_RESULT_COLUMNS)
        .where(_RESULTS.c.run_id.between(first, last))
        .order_by(_RESULTS.c.run_id, _RESULTS.c.sequence_index)
    )
    for run_id, *values in connection.execute(query):
        found[run_id].append(tuple(values))
    return found


def seal_runs(connection: Connection) -> int:
    """Give runs of an older schema their digests and their places in the chain, as they are now.

    Returns:
        How many there were.
    """
    chains = Chains(connection)
    sealing = (
        update(_RUNS).where(_RUNS.c.id == bindparam("of_run")).values(digest=bindparam("sealed"))
    )
    sealed = []
    for run in digest_stored_runs(connection):
        if run.digest is None:
            chains.add(dict(zip(_RUN_IDS, run.key, strict=True)), run.id, run.digest_now)
            sealed.append({"of_run": run.id, "sealed": run.digest_now})
    if sealed:
        connection.execute(sealing, sealed)
        chains.write()
    return len(sealed)


def find_altered_runs(connection: Connection) -> Iterator[str]:
    """One sentence for each run that was changed, inserted or removed since it was stored."""
    links = {row.run_id: row for row in connection.execute(select(LINKS))}
    seen = set()
    try:
        for run in digest_stored_runs(connection):
            seen.add(run.id)
            link = links.get(run.id)
            if run.digest is None or link is None:
                yield f"Run {run.id} was inserted: it is not in the chain of its series."
            elif run.digest_now != link.digest:
                yield f"Run {run.id} was changed: its rows no longer have its digest."
            elif run.digest != link.digest:
                yield f"Run {run.id} was changed: its digest is not the one in its chain."
            elif run.key != tuple(getattr(link, column.name) for column in SERIES_KEY):
                yield f"Run {run.id} was changed: its link is in the chain of another series."
            elif link.removed_at is not None:
                yield f"Run {run.id} is marked as removed, and is there."
    except (StoreError, ValueError, TypeError, LookupError) as error:
        yield f"The runs after run {max(seen, default=0)} cannot be read: {error}"
        return
    for run_id, link in links.items():
        if run_id not in seen and link.removed_at is None:
            yield f"Run {run_id} was removed: its link is still in the chain of its series."


def find_broken_chains(connection: Connection) -> Iterator[str]:
    """One sentence for each series whose links do not follow from each other."""
    query = (
        select(LINKS, TargetRow.name.label("target"))
        .join(TargetRow, TargetRow.id == LINKS.c.target_id)
        .order_by(*SERIES_KEY, LINKS.c.place)
    )
    series: Any = None
    place, chain = -1, ""
    for link in connection.execute(query):
        key = tuple(getattr(link, column.name) for column in SERIES_KEY)
        if key != series:
            series, place, chain = key, -1, ""
        expected = chain_digest(chain, link.digest)
        if link.place != place + 1:
            yield (
                f"A run of target {link.target} before run {link.run_id} was removed with its link."
            )
        elif link.chain != expected:
            yield f"The chain of target {link.target} does not hold at run {link.run_id}."
        place, chain = link.place, link.chain


def find_false_digests(connection: Connection) -> Iterator[str]:
    """One sentence for each configuration, environment or protocol that its digest belies."""
    for row in connection.execute(select(table_of(ProtocolRow))):
        if content_digest(row.content) != row.digest:
            yield f"Protocol {row.version} was changed: it has another digest."
    for model, record in ((ConfigurationRow, Configuration), (EnvironmentRow, Environment)):
        table = table_of(model)
        names = [field.name for field in fields(record)]
        for row in connection.execute(select(table)):
            content = record(**{name: getattr(row, name) for name in names})
            if content.digest != row.digest:
                yield f"Row {row.id} of {table.name} was changed: it has another digest."


def find_strange_heirs(connection: Connection) -> Iterator[str]:
    """One sentence for each skipped run that points at a run which cannot be what it inherits."""
    measured = _RUNS.alias("measured")
    query = (
        select(_RUNS.c.id, measured.c.id.label("of"))
        .join(measured, measured.c.id == _RUNS.c.inherited_run_id)
        .join(CommitRow, CommitRow.id == measured.c.commit_id)
        .where(
            (CommitRow.hash != _RUNS.c.inherited_from)
            | (measured.c.target_id != _RUNS.c.target_id)
            | (measured.c.benchmark_set_id != _RUNS.c.benchmark_set_id)
            | measured.c.outcome.not_in(VERDICTS)
        )
        .order_by(_RUNS.c.id)
    )
    for row in connection.execute(query):
        yield f"Run {row.id} points at run {row.of}, which is not what it inherits from."


def fingerprint(connection: Connection) -> str:
    """One digest of all chains, the same in a copy: to be noted elsewhere and compared later."""
    query = select(LINKS.c.run_id, LINKS.c.chain).order_by(LINKS.c.run_id)
    chain = ""
    for _, link in connection.execute(query):
        chain = chain_digest(chain, link)
    return chain
