"""Deletes old attempts that nothing points to any more."""

from dataclasses import dataclass, replace
from datetime import datetime

from sqlalchemy import ColumnElement, Connection, Engine, and_, delete, func, select

from virnucpro_monitor.records import EMBEDDING_DATA, VERDICTS
from virnucpro_monitor.store.chain import mark_removed
from virnucpro_monitor.store.connection import reading, writing
from virnucpro_monitor.store.models import BisectStepRow, DocumentRow, JudgementRow, RunRow
from virnucpro_monitor.store.statements import table_of

CHUNK = 500
_RUNS = table_of(RunRow)
_DOCUMENTS = table_of(DocumentRow)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pruning:
    """What is deleted, or would be.

    Attributes:
        run_ids: superseded attempts, oldest first.
        num_results: their rows of per-sequence results.
        num_kept: superseded attempts of that age that something points to.
        num_embeddings: runs of that age whose embeddings go, where that was asked for.
    """

    run_ids: tuple[int, ...]
    num_results: int
    num_kept: int
    num_embeddings: int = 0


def prune(
    engine: Engine, before: datetime, *, apply: bool = False, embeddings: bool = False
) -> Pruning:
    """Delete superseded attempts that began before a moment; only with `apply` anything is.

    Current runs stay, whatever their age: lists, incidents and comparisons are made of them. So do
    attempts that a skipped run inherits from, that a bisection tried, that were judged again, and
    the verdicts of code whose attempts disagree, since they are its flips.

    Args:
        embeddings: of current runs too, the kept embeddings go: all else of them stays.
    """
    if not apply:
        with reading(engine) as connection:
            return _with_embeddings(connection, _find(connection, before), before, embeddings)
    with writing(engine) as connection:
        found = _find(connection, before)
        for start in range(0, len(found.run_ids), CHUNK):
            ids = found.run_ids[start : start + CHUNK]
            connection.execute(delete(_RUNS).where(_RUNS.c.id.in_(ids)))
            mark_removed(connection, ids)
        found = _with_embeddings(connection, found, before, embeddings)
        if embeddings:
            connection.execute(delete(_DOCUMENTS).where(_kept_embeddings(before)))
    return found


def _with_embeddings(
    connection: Connection, found: Pruning, before: datetime, embeddings: bool
) -> Pruning:
    if not embeddings:
        return found
    count = select(func.count()).select_from(_DOCUMENTS).where(_kept_embeddings(before))
    return replace(found, num_embeddings=connection.execute(count).scalar_one())


def _kept_embeddings(before: datetime) -> ColumnElement[bool]:
    old = select(_RUNS.c.id).where(_RUNS.c.started_at < before)
    return and_(_DOCUMENTS.c.name == EMBEDDING_DATA, _DOCUMENTS.c.run_id.in_(old))


def _find(connection: Connection, before: datetime) -> Pruning:
    old = select(_RUNS.c.id, _RUNS.c.num_results).where(
        _RUNS.c.superseded.is_(True), _RUNS.c.started_at < before
    )
    heir, other = _RUNS.alias("heir"), _RUNS.alias("other")
    pointed_at = [
        select(heir.c.id).where(heir.c.inherited_run_id == _RUNS.c.id),
        select(BisectStepRow.run_id).where(BisectStepRow.run_id == _RUNS.c.id),
        select(JudgementRow.run_id).where(JudgementRow.run_id == _RUNS.c.id),
        select(other.c.id).where(
            other.c.target_id == _RUNS.c.target_id,
            other.c.code_digest == _RUNS.c.code_digest,
            other.c.benchmark_set_id == _RUNS.c.benchmark_set_id,
            other.c.configuration_id == _RUNS.c.configuration_id,
            other.c.environment_id == _RUNS.c.environment_id,
            other.c.protocol_id == _RUNS.c.protocol_id,
            other.c.outcome.in_(VERDICTS),
            _RUNS.c.outcome.in_(VERDICTS),
            other.c.outcome != _RUNS.c.outcome,
        ),
    ]
    for query in pointed_at:
        old = old.where(~query.exists())
    rows = connection.execute(old.order_by(_RUNS.c.id)).all()
    num_old = connection.execute(
        select(func.count()).where(_RUNS.c.superseded.is_(True), _RUNS.c.started_at < before)
    ).scalar_one()
    return Pruning(
        run_ids=tuple(row.id for row in rows),
        num_results=sum(row.num_results for row in rows),
        num_kept=num_old - len(rows),
    )
