"""Insert-or-find statements that work on SQLite and PostgreSQL."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, cast

from sqlalchemy import Connection, Insert, Table, and_, case, func, insert, not_, or_, select
from sqlalchemy.dialects import postgresql, sqlite

from virnucpro_monitor.errors import NotFoundError, StoreError
from virnucpro_monitor.records import BenchmarkSet, Commit, Protocol, Target
from virnucpro_monitor.store.models import (
    Base,
    BenchmarkSequenceRow,
    BenchmarkSetRow,
    CommitRow,
    ProtocolRow,
    TargetRow,
)

CHUNK = 500
"""Hashes in one IN list: SQLite allows few parameters."""


def table_of(model: type[Base]) -> Table:
    return cast(Table, model.__table__)


def insert_or_update(connection: Connection, model: type[Base]) -> Any:
    """The dialect's own INSERT, which has `on_conflict_do_update` and `on_conflict_do_nothing`."""
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    return dialect.insert(table_of(model))


def upsert(model: type[Base], connection: Connection, on: Sequence[str], values: Any) -> Insert:
    """Insert `values`, or give the row with the same `on` columns the other values."""
    statement = insert_or_update(connection, model).values(values)
    return cast(
        Insert,
        statement.on_conflict_do_update(
            index_elements=list(on),
            set_={name: statement.excluded[name] for name in values if name not in on},
        ),
    )


def insert_rows(
    connection: Connection,
    model: type[Base],
    names: Sequence[str],
    rows: Sequence[tuple[Any, ...]],
) -> None:
    """Insert many rows of plain values, `names` giving their order.

    The driver is called directly: SQLAlchemy's work on each row costs three times the insertion.
    """
    quote = connection.dialect.identifier_preparer.quote
    mark = "?" if connection.dialect.paramstyle == "qmark" else "%s"
    connection.exec_driver_sql(
        f"INSERT INTO {quote(model.__tablename__)} ({', '.join(quote(name) for name in names)}) "
        f"VALUES ({', '.join([mark] * len(names))})",
        list(rows),
    )


def find_target_id(connection: Connection, name: str) -> int:
    """Raises `NotFoundError` where there is no target of that name."""
    found = connection.execute(select(TargetRow.id).where(TargetRow.name == name)).scalar()
    if found is None:
        raise NotFoundError(
            f"There is no target {name!r} in the database: `virnucpro-monitor targets list` "
            "shows what there is."
        )
    return found


def target_values(target: Target) -> dict[str, Any]:
    return {**dataclasses.asdict(target), "paths": list(target.paths)}


def ensure_target(connection: Connection, target: Target) -> int:
    """The id of the target of that name; inserted as given where it is new."""
    connection.execute(
        insert_or_update(connection, TargetRow)
        .values(target_values(target))
        .on_conflict_do_nothing(index_elements=["name"])
    )
    return find_target_id(connection, target.name)


def ensure_commits(
    connection: Connection, target_id: int, commits: Sequence[Commit]
) -> dict[str, int]:
    """Store commits and return their ids by hash. What is not known of one keeps its stored value.

    The conflicting row stays locked until the transaction ends, so that two runs of one commit
    are stored one after the other.
    """
    rows = [
        {**dataclasses.asdict(commit), "parents": list(commit.parents), "target_id": target_id}
        for commit in commits
    ]
    if not rows:
        return {}
    statement = insert_or_update(connection, CommitRow)
    new, old = statement.excluded, table_of(CommitRow).c
    connection.execute(
        statement.on_conflict_do_update(
            index_elements=["target_id", "hash"],
            set_={
                "parents": case((new.parents == [], old.parents), else_=new.parents),
                "subject": case((new.subject == "", old.subject), else_=new.subject),
                "author": case((new.author == "", old.author), else_=new.author),
                "authored_at": func.coalesce(new.authored_at, old.authored_at),
                "committed_at": func.coalesce(new.committed_at, old.committed_at),
                "position": case(
                    (not_(new.on_branch), None),
                    else_=func.coalesce(new.position, old.position),
                ),
                # Without a position, "on the branch" is only the record's default.
                "on_branch": case(
                    (or_(not_(new.on_branch), new.position.is_not(None)), new.on_branch),
                    else_=old.on_branch,
                ),
            },
        ),
        rows,
    )
    ids: dict[str, int] = {}
    for start in range(0, len(rows), CHUNK):
        hashes = [row["hash"] for row in rows[start : start + CHUNK]]
        found = connection.execute(
            select(CommitRow.hash, CommitRow.id).where(
                and_(CommitRow.target_id == target_id, CommitRow.hash.in_(hashes))
            )
        )
        ids.update((row.hash, row.id) for row in found)
    return ids


def ensure_digested(
    connection: Connection, model: Any, digest: str, values: Mapping[str, Any]
) -> int:
    """The id of the row with `digest`; inserted with `values` where it is new."""
    statement = select(model.id).where(model.digest == digest)
    found = connection.execute(statement).scalar()
    if found is None:
        connection.execute(
            insert_or_update(connection, model)
            .values(digest=digest, **values)
            .on_conflict_do_nothing(index_elements=["digest"])
        )
        found = connection.execute(statement).scalar_one()
    return int(found)


def ensure_protocol(connection: Connection, protocol: Protocol) -> int:
    values = {"version": protocol.version, "content": dict(protocol.content)}
    return ensure_digested(connection, ProtocolRow, protocol.digest, values)


def ensure_benchmark(connection: Connection, benchmark: BenchmarkSet) -> int:
    """The id of the set, inserted with its sequences where it is new.

    Raises:
        StoreError: the stored set of that name and version has another digest.
    """
    statement = select(BenchmarkSetRow.id, BenchmarkSetRow.digest).where(
        BenchmarkSetRow.name == benchmark.name, BenchmarkSetRow.version == benchmark.version
    )
    found = connection.execute(statement).first()
    if found is None:
        inserted = connection.execute(
            insert_or_update(connection, BenchmarkSetRow)
            .values(
                name=benchmark.name,
                version=benchmark.version,
                digest=benchmark.digest,
                description=benchmark.description,
            )
            .on_conflict_do_nothing(index_elements=["name", "version"])
            .returning(BenchmarkSetRow.id)
        ).first()
        found = connection.execute(statement).one()
        if inserted is not None and benchmark.sequences:
            connection.execute(
                insert(table_of(BenchmarkSequenceRow)),
                [
                    {
                        "benchmark_set_id": found.id,
                        "sequence_index": index,
                        "sequence_id": sequence.id,
                        "residues": sequence.residues,
                    }
                    for index, sequence in enumerate(benchmark.sequences)
                ],
            )
    if found.digest != benchmark.digest:
        raise StoreError(
            f"Benchmark {benchmark.label} in the database has other content "
            f"(digest {found.digest[:12]}, not {benchmark.digest[:12]}): add your sequences under "
            "another name."
        )
    return int(found.id)
