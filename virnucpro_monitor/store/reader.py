"""Reads records back. No list of runs reads a per-sequence row, and every query has an index."""

from collections.abc import Collection
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Engine, and_, or_, select

from virnucpro_monitor.errors import NotFoundError
from virnucpro_monitor.records import (
    EMBEDDING_DATA,
    VERDICTS,
    BenchmarkSet,
    Commit,
    Failure,
    Json,
    Outcome,
    Protocol,
    Run,
    SequencePoint,
    SequenceResult,
    SequenceStatus,
    Target,
)
from virnucpro_monitor.store.connection import reading
from virnucpro_monitor.store.models import (
    BenchmarkSequenceRow,
    BenchmarkSetRow,
    CommitRow,
    DocumentRow,
    FailureRow,
    ProtocolRow,
    RunRow,
    SequenceResultRow,
    TargetRow,
)
from virnucpro_monitor.store.queries import (
    NEWEST_FIRST,
    benchmark_ids,
    newest_runs,
    read_runs,
    run_conditions,
)
from virnucpro_monitor.store.rows import (
    COMMIT_COLUMNS,
    RESULT_COLUMNS,
    TARGET_COLUMNS,
    commit_from_row,
    read_benchmark,
    result_from_row,
    target_from_row,
)
from virnucpro_monitor.store.statements import find_target_id

SEQUENCE_ORDERS: dict[str, Any] = {
    "index": SequenceResultRow.sequence_index.asc(),
    "id": BenchmarkSequenceRow.sequence_id.asc(),
    "length": SequenceResultRow.length.desc(),
    "similarity": SequenceResultRow.similarity.asc().nulls_first(),
    "packed_similarity": SequenceResultRow.packed_similarity.asc().nulls_first(),
    "unpacked_similarity": SequenceResultRow.unpacked_similarity.asc().nulls_first(),
    "relative_l2": SequenceResultRow.relative_l2.desc().nulls_first(),
    "packed_relative_l2": SequenceResultRow.packed_relative_l2.desc().nulls_first(),
    "unpacked_relative_l2": SequenceResultRow.unpacked_relative_l2.desc().nulls_first(),
    "gain": SequenceResultRow.gain.desc().nulls_first(),
    "worst_residue_similarity": SequenceResultRow.worst_residue_similarity.asc().nulls_first(),
    "max_abs_difference": SequenceResultRow.max_abs_difference.desc().nulls_first(),
    "pack": SequenceResultRow.pack.asc().nulls_first(),
}
"""What `load_sequences` sorts by: measures worst first, unknown ones before all."""


def check_schema(engine: Engine) -> None:
    """Raise the `StoreError` that says why the database cannot be read just now, if so."""
    with reading(engine):
        pass


def load_targets(engine: Engine) -> list[Target]:
    """All targets, by name."""
    with reading(engine) as connection:
        rows = connection.execute(select(*TARGET_COLUMNS).order_by(TargetRow.name))
        return [target_from_row(row) for row in rows]


def load_target(engine: Engine, name: str) -> Target:
    """Raises `NotFoundError` where there is no target of that name."""
    with reading(engine) as connection:
        find_target_id(connection, name)
        return target_from_row(
            connection.execute(select(*TARGET_COLUMNS).where(TargetRow.name == name)).one()
        )


def load_commits(
    engine: Engine, target: str, *, on_branch: bool | None = None, limit: int | None = None
) -> list[Commit]:
    """Commits of a target, oldest first; with `limit`, only the newest so many.

    Raises:
        NotFoundError: there is no such target.
    """
    with reading(engine) as connection:
        target_id = find_target_id(connection, target)
        query = select(*COMMIT_COLUMNS).where(CommitRow.target_id == target_id)
        if on_branch is not None:
            query = query.where(CommitRow.on_branch.is_(on_branch))
        rows = connection.execute(query.order_by(*NEWEST_FIRST).limit(limit)).all()
        return [commit_from_row(row) for row in reversed(rows)]


def find_commits(engine: Engine, target: str, prefix: str, *, limit: int = 20) -> list[Commit]:
    """Commits of a target whose hash begins with `prefix`: none, one, or several candidates.

    What is no beginning of a hash is a release, and has to be the whole of its version.
    """
    with reading(engine) as connection:
        target_id = find_target_id(connection, target)
        query = (
            select(*COMMIT_COLUMNS)
            .where(CommitRow.target_id == target_id, _hash_begins_with(prefix))
            .order_by(CommitRow.hash)
            .limit(limit)
        )
        return [commit_from_row(row) for row in connection.execute(query)]


def find_commits_of_any_target(
    engine: Engine, prefix: str, *, limit: int = 20
) -> list[tuple[str, Commit]]:
    """As `find_commits`, over all targets: (target's name, commit)."""
    with reading(engine) as connection:
        query = (
            select(TargetRow.name, *COMMIT_COLUMNS)
            .join(TargetRow, TargetRow.id == CommitRow.target_id)
            .where(_hash_begins_with(prefix))
            .order_by(CommitRow.hash, TargetRow.name)
            .limit(limit)
        )
        return [(name, commit_from_row(row)) for name, *row in connection.execute(query)]


def _is_hash_prefix(prefix: str) -> bool:
    digits = prefix.strip().lower()
    return bool(digits) and not set(digits) - set("0123456789abcdef")


def _hash_begins_with(prefix: str) -> ColumnElement[bool]:
    if not _is_hash_prefix(prefix):
        return CommitRow.hash == prefix.strip()
    # A range, which has an index in both databases; LIKE would need one of its own.
    digits = prefix.strip().lower()
    return and_(CommitRow.hash >= digits, CommitRow.hash < f"{digits}g")


def load_runs(
    engine: Engine,
    *,
    target: str | None = None,
    benchmark: str | None = None,
    configuration: str | None = None,
    commits: Collection[str] | None = None,
    from_position: int | None = None,
    to_position: int | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    on_branch: bool | None = None,
    outcomes: Collection[Outcome] | None = None,
    all_attempts: bool = False,
    limit: int | None = None,
) -> list[Run]:
    """Runs in history order, oldest commit first: by target, position, then commit date.

    One run for each commit, benchmark set and configuration, the latest, unless `all_attempts`.

    Args:
        benchmark: a name for all versions of the set, or "name@version".
        configuration: a configuration's digest.
        commits: full hashes.
        from_position, to_position: places in the history, both included.
        since, until: commit dates, both included.
        limit: only the newest so many.
    """
    with reading(engine) as connection:
        conditions = run_conditions(target, benchmark, configuration, all_attempts)
        if commits is not None:
            conditions.append(CommitRow.hash.in_(commits))
        if from_position is not None:
            conditions.append(CommitRow.position >= from_position)
        if to_position is not None:
            conditions.append(CommitRow.position <= to_position)
        if since is not None:
            conditions.append(CommitRow.committed_at >= since)
        if until is not None:
            conditions.append(CommitRow.committed_at <= until)
        if on_branch is not None:
            conditions.append(CommitRow.on_branch.is_(on_branch))
        if outcomes is not None:
            conditions.append(RunRow.outcome.in_(outcomes))
        return read_runs(connection, conditions, limit)


def load_run(engine: Engine, run_id: int) -> Run:
    """Raises `NotFoundError` where there is no such run."""
    with reading(engine) as connection:
        runs = read_runs(connection, [RunRow.id == run_id])
        if not runs:
            raise NotFoundError(f"There is no run {run_id} in the database.")
        return runs[0]


def load_sequences(
    engine: Engine,
    run_id: int,
    *,
    only_failing: bool = False,
    search: str | None = None,
    pack: int | None = None,
    order_by: str = "index",
    limit: int | None = None,
    offset: int = 0,
) -> list[SequenceResult]:
    """The per-sequence results of one run.

    Args:
        only_failing: below the lenient threshold of the run's protocol, not finite, lost or
            doubled.
        search: part of a sequence's id, whatever its case.
        pack: only what was packed together as this pack.
        order_by: a key of `SEQUENCE_ORDERS`, worst first.

    Raises:
        NotFoundError: there is no such run, or no such order.
    """
    if order_by not in SEQUENCE_ORDERS:
        raise NotFoundError(
            f"Sequences cannot be sorted by {order_by!r}: use {', '.join(SEQUENCE_ORDERS)}."
        )
    with reading(engine) as connection:
        query = select(*RESULT_COLUMNS).where(_results_of(connection, run_id))
        if only_failing:
            query = query.where(_is_failing(_lenient_threshold(connection, run_id)))
        if search:
            query = query.where(BenchmarkSequenceRow.sequence_id.icontains(search, autoescape=True))
        if pack is not None:
            query = query.where(SequenceResultRow.pack == pack)
        query = query.order_by(SEQUENCE_ORDERS[order_by], SequenceResultRow.sequence_index)
        rows = connection.execute(query.limit(limit).offset(offset))
        return [result_from_row(row) for row in rows]


def _results_of(connection: Connection, run_id: int) -> Any:
    """The condition that joins one run's results with the sequences of its benchmark set."""
    benchmark_set_id = connection.execute(
        select(RunRow.benchmark_set_id).where(RunRow.id == run_id)
    ).scalar()
    if benchmark_set_id is None:
        raise NotFoundError(f"There is no run {run_id} in the database.")
    return and_(
        SequenceResultRow.run_id == run_id,
        BenchmarkSequenceRow.benchmark_set_id == benchmark_set_id,
        BenchmarkSequenceRow.sequence_index == SequenceResultRow.sequence_index,
    )


def _lenient_threshold(connection: Connection, run_id: int) -> float | None:
    content = connection.execute(
        select(ProtocolRow.content)
        .join(RunRow, RunRow.protocol_id == ProtocolRow.id)
        .where(RunRow.id == run_id)
    ).scalar_one()
    lenient: float | None = content.get("thresholds", {}).get("lenient")
    return lenient


def _is_failing(lenient: float | None) -> Any:
    failing = or_(
        SequenceResultRow.status != SequenceStatus.OK, SequenceResultRow.similarity.is_(None)
    )
    return failing if lenient is None else or_(failing, SequenceResultRow.similarity < lenient)


def load_failure(engine: Engine, run_id: int) -> Failure | None:
    """Why a run is an error; None where it is not one."""
    with reading(engine) as connection:
        row = connection.execute(
            select(FailureRow.kind, FailureRow.message, FailureRow.traceback, FailureRow.log).where(
                FailureRow.run_id == run_id
            )
        ).first()
        return row and Failure(kind=row[0], message=row[1], traceback=row[2], log=row[3])


def load_document(engine: Engine, run_id: int, name: str) -> Json:
    """One document of a run ("probes", "trace", "residues", …); None where it has none."""
    with reading(engine) as connection:
        return connection.execute(
            select(DocumentRow.content).where(
                DocumentRow.run_id == run_id, DocumentRow.name == name
            )
        ).scalar()


def load_documents(engine: Engine, run_id: int) -> dict[str, Json]:
    """All documents of a run by name, but for its embeddings' bytes."""
    with reading(engine) as connection:
        rows = connection.execute(
            select(DocumentRow.name, DocumentRow.content)
            .where(DocumentRow.run_id == run_id, DocumentRow.name != EMBEDDING_DATA)
            .order_by(DocumentRow.name)
        )
        return {row.name: row.content for row in rows}


def load_benchmarks(engine: Engine) -> list[BenchmarkSet]:
    """All benchmark sets that runs have used or that were saved, with their sequences."""
    with reading(engine) as connection:
        rows = connection.execute(
            select(BenchmarkSetRow.__table__).order_by(
                BenchmarkSetRow.name, BenchmarkSetRow.version
            )
        ).all()
        return [read_benchmark(connection, row) for row in rows]


def load_protocol(engine: Engine, digest: str) -> Protocol:
    """Raises `NotFoundError` where no stored run was judged under that protocol."""
    with reading(engine) as connection:
        row = connection.execute(
            select(ProtocolRow.version, ProtocolRow.content).where(ProtocolRow.digest == digest)
        ).first()
        if row is None:
            raise NotFoundError(f"There is no protocol {digest[:12]} in the database.")
        return Protocol(version=row.version, digest=digest, content=row.content)


def load_sequence_history(
    engine: Engine,
    target: str,
    benchmark: str,
    sequence_id: str,
    *,
    configuration: str | None = None,
    limit: int | None = None,
) -> list[SequencePoint]:
    """One sequence in all current runs that measured it, oldest commit first.

    Raises:
        NotFoundError: there is no such target, or no such sequence in the set.
    """
    with reading(engine) as connection:
        find_target_id(connection, target)
        _require_sequence(connection, benchmark, sequence_id)
        conditions = [
            *run_conditions(target, benchmark, configuration, all_attempts=False),
            # Only these have results. The index of a series holds the outcome, so that no wide row
            # is read to find which runs are the newest.
            RunRow.outcome.in_(VERDICTS),
        ]
        # Each result lies on a page of its own: read those of the wanted runs alone.
        query = select(SequenceResultRow.run_id, *RESULT_COLUMNS).where(
            *newest_runs(conditions, limit),
            BenchmarkSequenceRow.benchmark_set_id == RunRow.benchmark_set_id,
            BenchmarkSequenceRow.sequence_id == sequence_id,
            SequenceResultRow.run_id == RunRow.id,
            SequenceResultRow.sequence_index == BenchmarkSequenceRow.sequence_index,
        )
        results = {run_id: result_from_row(row) for run_id, *row in connection.execute(query)}
        return [
            SequencePoint(run=run, result=results[run.id])
            for run in read_runs(connection, conditions, limit)
            if run.id in results
        ]


def _require_sequence(connection: Connection, benchmark: str, sequence_id: str) -> None:
    query = select(BenchmarkSequenceRow.sequence_index).where(
        BenchmarkSequenceRow.benchmark_set_id.in_(benchmark_ids(benchmark)),
        BenchmarkSequenceRow.sequence_id == sequence_id,
    )
    if connection.execute(query).first() is None:
        raise NotFoundError(f"There is no sequence {sequence_id!r} in benchmark set {benchmark!r}.")
