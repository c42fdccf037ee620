"""Insert-or-find statements that work on SQLite and PostgreSQL."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import cache, lru_cache
from typing import Any, cast

from sqlalchemy import (
    Connection,
    Dialect,
    Insert,
    Table,
    and_,
    bindparam,
    case,
    func,
    not_,
    or_,
    select,
    text,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DBAPIError

from virnucpro_monitor.errors import NotFoundError, StoreError
from virnucpro_monitor.records import BenchmarkSet, Commit, Protocol, Target
from virnucpro_monitor.store.models import (
    Base,
    BenchmarkSequenceRow,
    BenchmarkSetRow,
    CommitRow,
    ConfigurationRow,
    EnvironmentRow,
    ProtocolRow,
    TargetRow,
)
from virnucpro_monitor.store.types import clean_text

CHUNK = 500
"""Hashes in one IN list: SQLite allows few parameters."""

ROWS_AT_ONCE = 200
"""Rows that SQLite is given in one statement; more are hardly quicker."""


def table_of(model: type[Base]) -> Table:
    return cast(Table, model.__table__)


def insert_or_update(connection: Connection, model: type[Base]) -> Any:
    """The dialect's own INSERT, which has `on_conflict_do_update` and `on_conflict_do_nothing`."""
    return insert_of_dialect(connection.dialect.name, model)


def insert_of_dialect(dialect: str, model: type[Base]) -> Any:
    return (postgresql if dialect == "postgresql" else sqlite).insert(table_of(model))


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
    columns: Mapping[str, Sequence[Any]],
    shared: Mapping[str, Any] | None = None,
) -> None:
    """Insert many rows of plain values, given column by column.

    The driver is called directly: SQLAlchemy's work on each row costs three times the insertion.
    PostgreSQL takes them by COPY, SQLite many in one statement.

    Args:
        shared: further columns, with the value that each has in all rows.
    """
    shared = shared or {}
    values = tuple(shared.values())
    place = _place_of(connection.dialect, model, (*shared, *columns))
    cursor: Any = connection.connection.cursor()
    try:
        if connection.dialect.name == "postgresql":
            with cursor.copy(f"COPY {place} FROM STDIN") as copy:
                for row in zip(*columns.values(), strict=True):
                    copy.write_row((*values, *row))
        else:
            num_rows, width = len(next(iter(columns.values()))), len(shared) + len(columns)
            for start in range(0, num_rows, ROWS_AT_ONCE):
                number = min(ROWS_AT_ONCE, num_rows - start)
                given: list[Any] = [None] * (number * width)
                # Far quicker than to make rows and to chain them.
                for at, value in enumerate(values):
                    given[at::width] = [value] * number
                for at, column in enumerate(columns.values(), len(values)):
                    given[at::width] = column[start : start + number]
                marks = _marks(width, number)
                cursor.execute(f"INSERT INTO {place} VALUES {marks}", given)
    except driver_errors(connection) as error:
        raise DBAPIError("", None, error) from error  # as SQLAlchemy would have it
    finally:
        cursor.close()


_PLACES: dict[tuple[Any, ...], str] = {}


def _place_of(dialect: Dialect, model: type[Base], names: tuple[str, ...]) -> str:
    """Where rows go: `table (column, column)`."""
    key = (dialect.name, model, names)
    if key not in _PLACES:
        quote = dialect.identifier_preparer.quote
        _PLACES[key] = f"{quote(model.__tablename__)} ({', '.join(map(quote, names))})"
    return _PLACES[key]


@lru_cache(maxsize=256)
def _marks(width: int, num_rows: int) -> str:
    """Rows of marks: `(?,?),(?,?)`.

    Without numbers, by which what all rows share could be given once: to Python's sqlite3 a number
    is a name, which it warns about from 3.12 on and refuses from 3.14 on where values are a list.
    """
    row = f"({','.join('?' * width)})"
    return ",".join([row] * num_rows)


class Prepared:
    """A statement that is compiled once for each dialect and handed to the driver as it is.

    For what is sent with every run: SQLAlchemy's own way costs several times the statement itself.
    """

    def __init__(self, statement: Any, names: Sequence[str] | None = None) -> None:
        """`names`: the columns that an INSERT is given, where the statement does not say."""
        self._statement, self._names = statement, names
        self._compiled: dict[str, _Compiled] = {}

    def first(self, connection: Connection, values: Mapping[str, Any]) -> Any:
        """Send it with these values, and return the first row of its answer, None without one."""
        return next(iter(self.rows(connection, values)), None)

    def rows(self, connection: Connection, values: Mapping[str, Any]) -> list[Any]:
        """Send it with these values, and return the rows of its answer as the driver gives them."""
        dialect = connection.dialect
        compiled = self._compiled.get(dialect.name)
        if compiled is None:
            compiled = self._compiled[dialect.name] = self._compile(dialect)
        given = [
            value if convert is None else convert(value)
            for value, convert in zip(
                map(values.get, compiled.names, compiled.constants),
                compiled.conversions,
                strict=True,
            )
        ]
        cursor = connection.connection.cursor()
        try:
            cursor.execute(
                compiled.text,
                given if compiled.by_place else dict(zip(compiled.names, given, strict=True)),
            )
            return list(cursor.fetchall()) if cursor.description else []
        except driver_errors(connection) as error:
            raise DBAPIError(compiled.text, None, error) from error  # as SQLAlchemy would have it
        finally:
            cursor.close()

    def _compile(self, dialect: Dialect) -> "_Compiled":
        given = None if self._names is None else list(self._names)
        compiled: Any = self._statement.compile(dialect=dialect, column_keys=given)
        names = tuple(compiled.positiontup if compiled.positional else compiled.params)
        return _Compiled(
            text=str(compiled),
            by_place=bool(compiled.positional),
            names=names,
            conversions=tuple(
                compiled.binds[name].type.dialect_impl(dialect).bind_processor(dialect)
                for name in names
            ),
            constants=tuple(compiled.params[name] for name in names),
        )


@dataclasses.dataclass(frozen=True, slots=True)
class _Compiled:
    """A statement as the driver takes it: its parameters' names, and what becomes of their values.

    Attributes:
        by_place: values are given in the order of `names`, not by name.
        constants: the values of those that are not given.
    """

    text: str
    by_place: bool
    names: tuple[str, ...]
    conversions: tuple[Callable[[Any], Any] | None, ...]
    constants: tuple[Any, ...]


def driver_errors(connection: Connection) -> type[Exception]:
    """The class of the driver's own errors."""
    return cast(type[Exception], connection.dialect.loaded_dbapi.Error)


def lock_target(connection: Connection, target_id: int) -> None:
    """Wait until nobody else stores runs of a target; SQLite has one writer anyway."""
    if connection.dialect.name == "postgresql":
        connection.execute(_LOCK_TARGET, {"id": target_id})


_LOCK_TARGET = text("SELECT id FROM targets WHERE id = :id FOR NO KEY UPDATE")


def find_target_id(connection: Connection, name: str) -> int:
    """Raises `NotFoundError` where there is no target of that name."""
    found = _look_up_target(connection, name)
    if found is None:
        raise NotFoundError(
            f"There is no target {name!r} in the database: `virnucpro-monitor targets list` "
            "shows what there is."
        )
    return found


_TARGET_ID = Prepared(
    select(table_of(TargetRow).c.id).where(table_of(TargetRow).c.name == bindparam("of_name"))
)


def _look_up_target(connection: Connection, name: str) -> int | None:
    found = _TARGET_ID.first(connection, {"of_name": name})
    return None if found is None else int(found[0])


def _id_where(model: type[Base], **columns: str) -> Any:
    table = table_of(model)
    conditions = (table.c[name] == bindparam(given) for name, given in columns.items())
    return select(table.c.id).where(*conditions).scalar_subquery()


_SHARED = Prepared(
    select(
        _id_where(TargetRow, name="target"),
        _id_where(BenchmarkSetRow, name="set_name", version="set_version", digest="set_digest"),
        _id_where(ProtocolRow, digest="protocol"),
        _id_where(ConfigurationRow, digest="configuration"),
        _id_where(EnvironmentRow, digest="environment"),
    )
)


def find_shared(
    connection: Connection, target: str, benchmark: BenchmarkSet, digests: Mapping[str, str | None]
) -> tuple[int | None, ...]:
    """The ids of what many runs share, in one statement; None of what is not stored.

    Args:
        digests: of `protocol`, `configuration` and `environment`.

    Returns:
        The ids of the target, of the set with this very content, and of the three.
    """
    of_set = {
        "set_name": benchmark.name,
        "set_version": benchmark.version,
        "set_digest": benchmark.digest,
    }
    found = _SHARED.first(connection, {"target": target, **of_set, **digests})
    return tuple(found)


def target_values(target: Target) -> dict[str, Any]:
    return {**dataclasses.asdict(target), "paths": list(target.paths)}


def ensure_target(connection: Connection, target: Target) -> int:
    """The id of the target of that name; inserted as given where it is new."""
    found = _look_up_target(connection, target.name)
    if found is not None:
        return found
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
    if not commits:
        return {}
    connection.execute(
        _upsert_commits(connection.dialect.name),
        [{**commit_values(commit), "target_id": target_id} for commit in commits],
    )
    ids: dict[str, int] = {}
    for start in range(0, len(commits), CHUNK):
        hashes = [commit.hash for commit in commits[start : start + CHUNK]]
        found = connection.execute(
            select(CommitRow.hash, CommitRow.id).where(
                and_(CommitRow.target_id == target_id, CommitRow.hash.in_(hashes))
            )
        )
        ids.update((row.hash, row.id) for row in found)
    return ids


_COMMIT_NAMES = tuple(field.name for field in dataclasses.fields(Commit))


def ensure_commit(connection: Connection, target_id: int, commit: Commit) -> int:
    """As `ensure_commits`, for one."""
    given = {**commit_values(commit), "target_id": target_id}
    return int(_upsert_commit(connection.dialect.name).first(connection, given)[0])


@cache
def _upsert_commit(dialect: str) -> Prepared:
    statement = _upsert_commits(dialect).returning(table_of(CommitRow).c.id)
    return Prepared(statement, [*_COMMIT_NAMES, "target_id"])


def commit_values(commit: Commit) -> dict[str, Any]:
    values = {name: getattr(commit, name) for name in _COMMIT_NAMES}
    return {**values, "parents": list(commit.parents)}


@cache
def _upsert_commits(dialect: str) -> Any:
    statement = insert_of_dialect(dialect, CommitRow)
    new, old = statement.excluded, table_of(CommitRow).c
    statement = statement.on_conflict_do_update(
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
            **{
                name: case((and_(new.on_branch, new.position.is_not(None)), None), else_=old[name])
                for name in ("former_position", "left_at")
            },
        },
    )
    return statement


def ensure_digested(
    connection: Connection, model: Any, digest: str, make: Callable[[], Mapping[str, Any]]
) -> int:
    """The id of the row with `digest`; inserted with what `make` gives where it is new."""
    statement, given = _id_by_digest(model), {"of_digest": digest}
    found = statement.first(connection, given)
    if found is None:
        connection.execute(
            insert_or_update(connection, model)
            .values(digest=digest, **make())
            .on_conflict_do_nothing(index_elements=["digest"])
        )
        found = statement.first(connection, given)
    return int(found[0])


@cache
def _id_by_digest(model: Any) -> Prepared:
    columns = table_of(model).c
    return Prepared(select(columns.id).where(columns.digest == bindparam("of_digest")))


def ensure_protocol(connection: Connection, protocol: Protocol) -> int:
    def make() -> dict[str, Any]:
        return {"version": protocol.version, "content": dict(protocol.content)}

    return ensure_digested(connection, ProtocolRow, protocol.digest, make)


_SETS = table_of(BenchmarkSetRow).c
_SET_ID = Prepared(
    select(_SETS.id, _SETS.digest).where(
        _SETS.name == bindparam("of_name"), _SETS.version == bindparam("of_version")
    )
)


def ensure_benchmark(connection: Connection, benchmark: BenchmarkSet) -> int:
    """The id of the set, inserted with its sequences where it is new.

    Raises:
        StoreError: the stored set of that name and version has another digest.
    """
    given = {"of_name": benchmark.name, "of_version": benchmark.version}
    found = _SET_ID.first(connection, given)
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
        found = _SET_ID.first(connection, given)
        if inserted is not None and benchmark.sequences:
            insert_rows(
                connection,
                BenchmarkSequenceRow,
                {
                    "sequence_index": range(len(benchmark.sequences)),
                    "sequence_id": [clean_text(one.id) for one in benchmark.sequences],
                    "residues": [clean_text(one.residues) for one in benchmark.sequences],
                },
                {"benchmark_set_id": found[0]},
            )
    set_id, digest = found
    if digest != benchmark.digest:
        raise StoreError(
            f"Benchmark {benchmark.label} in the database has other content "
            f"(digest {digest[:12]}, not {benchmark.digest[:12]}): add your sequences under "
            "another name."
        )
    return int(set_id)
