"""Engines and connections: how each database is opened, and what its errors mean."""

import os
import re
import shlex
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote
from weakref import WeakKeyDictionary

from sqlalchemy import URL, Connection, Engine, NullPool, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError, StatementError

from virnucpro_monitor.disks import path_from
from virnucpro_monitor.errors import (
    ConfigurationError,
    DatabaseAway,
    MissingDatabase,
    MonitorError,
    NewerSchema,
    OutdatedSchema,
    StoreError,
)
from virnucpro_monitor.secrecy import masked, masked_url

REVISIONS = ("0001", "0002", "0003", "0004", "0005", "0006")
"""Every schema revision, oldest first. Kept here because reading Alembic's takes half a second."""

SCHEMA_REVISION = REVISIONS[-1]

BUSY_TIMEOUT_S = 30.0
POOL_SIZE = 20
CACHE_KIB = 64 * 1024


def parse_url(url: str) -> URL:
    """Understand a database URL; `postgresql://` means psycopg 3.

    Raises:
        ConfigurationError: it is not a URL, or names a database that is not supported.
    """
    if "://" not in url:
        raise ConfigurationError(
            f"{masked(url)!r} is not a database URL: write sqlite:///{masked(url)} for a file, or "
            "postgresql://…"
        )
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError) as error:
        raise ConfigurationError(
            f"The database URL cannot be understood ({masked(str(error))}): write sqlite:///FILE "
            "or postgresql://USER@HOST/NAME."
        ) from error
    if parsed.drivername in {"sqlite", "sqlite+pysqlite"}:
        if parsed.database in {None, "", ":memory:"} or parsed.query or parsed.host:
            raise ConfigurationError(
                f"{masked_url(url)!r} does not name a file: write sqlite:///FILE (four slashes "
                "before an absolute path), without options."
            )
        return parsed.set(drivername="sqlite")
    if "@" in (parsed.host or ""):  # else a part of the password would go for the host's name
        raise ConfigurationError(
            "The password in the database URL holds an @: write it there as %40, or keep it in "
            "PostgreSQL's own password file."
        )
    if parsed.drivername in {"postgresql", "postgres", "postgresql+psycopg"}:
        return parsed.set(drivername="postgresql+psycopg")
    raise ConfigurationError(
        f"Database {parsed.drivername!r} is not supported: use sqlite:///FILE or postgresql://…"
    )


def is_sqlite(url: URL) -> bool:
    return url.drivername == "sqlite"


def sqlite_path(url: URL) -> Path:
    return path_from(url.database or "").absolute()


def describe(url: URL) -> str:
    """The database's name for a person; a password is masked, in whatever form it is given."""
    return str(sqlite_path(url)) if is_sqlite(url) else _shown(url)


def option_for(url: URL) -> str:
    """The `--db` option that names this database again."""
    if is_sqlite(url):
        url = url.set(database=str(sqlite_path(url)))
    return f"--db {shlex.quote(_shown(url))}"


def _shown(url: URL) -> str:
    if not is_sqlite(url):
        url = url.set(drivername="postgresql")  # as people write it; the driver is ours
    return masked_url(url.render_as_string(hide_password=True))


def make_engine(url: URL, *, read_only: bool = False, foreign_keys: bool = True) -> Engine:
    """An engine that checks nothing; `open_engine` is what callers want.

    A writable SQLite connection never creates the file. `foreign_keys=False` is for migrations: a
    batch migration rebuilds tables, and would delete the children of each.
    """
    if is_sqlite(url):
        return _make_sqlite_engine(url, read_only=read_only, foreign_keys=foreign_keys)
    options = "-c default_transaction_read_only=on" if read_only else ""
    try:
        return create_engine(
            url,
            pool_size=POOL_SIZE,
            pool_pre_ping=True,
            # One snapshot for all the queries of a reader's block.
            isolation_level="REPEATABLE READ" if read_only else "READ COMMITTED",
            connect_args={"connect_timeout": 10, "options": options},
        )
    except ImportError as error:
        raise ConfigurationError(
            "PostgreSQL needs psycopg 3: pip install 'virnucpro_monitor[postgres]'."
        ) from error


def _make_sqlite_engine(url: URL, *, read_only: bool, foreign_keys: bool) -> Engine:
    path = sqlite_path(url)
    # In a folder that we may not write to, SQLite cannot make the files that WAL needs.
    folder_is_closed = read_only and not os.access(path.parent, os.W_OK)

    def connect() -> sqlite3.Connection:
        mode = "mode=ro" if read_only else "mode=rw"
        if folder_is_closed and not Path(f"{path}-wal").exists():
            mode = "mode=ro&immutable=1"  # nobody writes: there is no log to read
        connection = sqlite3.connect(
            f"file:{quote(str(path))}?{mode}",
            uri=True,
            timeout=BUSY_TIMEOUT_S,
            check_same_thread=False,
            isolation_level=None,  # BEGIN is ours, see below
        )
        try:
            connection.execute(f"PRAGMA cache_size=-{CACHE_KIB}")
            connection.execute(f"PRAGMA foreign_keys={'ON' if foreign_keys else 'OFF'}")
            if not read_only:
                connection.execute("PRAGMA synchronous=NORMAL")
        except BaseException:  # a damaged file is found here, and Python 3.13 warns of what is open
            connection.close()
            raise
        return connection

    options: dict[str, Any] = {"pool_size": POOL_SIZE, "max_overflow": POOL_SIZE}
    if folder_is_closed:
        options = {"poolclass": NullPool}  # whether somebody writes is decided each time
    engine = create_engine(url, creator=connect, **options)

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        # The driver would begin only at the first INSERT: a transaction that reads first could
        # then not become a writer while another one writes. A writer takes its turn at once.
        writes = connection.get_execution_options().get("writes", False)
        # Past SQLAlchemy, whose way costs more than a small transaction.
        driver: Any = connection.connection.driver_connection
        driver.execute("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """A connection that sees one state of the database throughout."""
    with translated_errors(engine.url), damage_named(engine.url):
        _drop_connections_to_replaced_file(engine)
        with engine.connect() as connection:
            check_revision(connection)
            yield connection


@contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """A connection in one transaction: all of it is stored at the end, or nothing."""
    with translated_errors(engine.url):
        _drop_connections_to_replaced_file(engine)
        with engine.connect() as plain:
            connection = plain.execution_options(writes=True)
            transaction = connection.begin()
            try:
                check_revision(connection)
                yield connection
            except BaseException:
                with suppress(SQLAlchemyError):  # a lost connection has rolled back by itself
                    transaction.rollback()
                raise
            try:
                with translated_errors(engine.url):
                    transaction.commit()
            except DatabaseAway as error:
                error.unsure = True
                raise


_FILES: WeakKeyDictionary[Engine, tuple[str, tuple[int, int] | None]] = WeakKeyDictionary()
"""The file of each engine, and which it was when it was last looked at."""


def _drop_connections_to_replaced_file(engine: Engine) -> None:
    """Notice that an SQLite file was deleted or replaced: open connections go on with the old."""
    if not is_sqlite(engine.url):
        return
    path, before = _FILES.get(engine) or (str(sqlite_path(engine.url)), None)
    try:
        status = os.stat(path)
    except OSError as error:
        raise missing_database(engine.url) from error
    identity = (status.st_dev, status.st_ino)
    if identity != before:
        if before is not None:
            engine.dispose()
        _FILES[engine] = (path, identity)


def check_revision(connection: Connection) -> None:
    """Refuse a schema that is not this program's own.

    Raises:
        MissingDatabase, OutdatedSchema, NewerSchema: with the command to run.
    """
    url = connection.engine.url
    query = "SELECT version_num FROM alembic_version"
    if is_sqlite(url) and connection.in_transaction():
        driver: Any = connection.connection.driver_connection  # as in `begin`
        revision = (driver.execute(query).fetchone() or (None,))[0]
    else:
        revision = connection.exec_driver_sql(query).scalar()
    if revision == SCHEMA_REVISION:
        return
    if revision is None:
        raise missing_database(url)
    if revision in REVISIONS:
        raise OutdatedSchema(
            f"The database {describe(url)} has schema {revision} and this program needs "
            f"{SCHEMA_REVISION}: run `virnucpro-monitor db upgrade {option_for(url)}`."
        )
    raise NewerSchema(
        f"The database {describe(url)} has schema {revision}, newer than this program's "
        f"{SCHEMA_REVISION}: upgrade virnucpro_monitor."
    )


def missing_database(url: URL) -> MissingDatabase:
    return MissingDatabase(
        f"There is no virnucpro-monitor database at {describe(url)}: run `virnucpro-monitor db "
        f"create {option_for(url)}`, or check the --db option."
    )


@contextmanager
def translated_errors(url: URL) -> Iterator[None]:
    """Turn the databases' own errors into `StoreError` sentences."""
    try:
        yield
    except (SQLAlchemyError, sqlite3.Error) as error:
        cause = error.orig if isinstance(error, StatementError) else error
        if isinstance(cause, MonitorError):
            raise cause from error  # a column type refused a value
        raise explain(cause or error, url) from error
    except UnicodeDecodeError as error:  # SQLite's own message, which quotes a damaged schema
        raise StoreError(f"The database {describe(url)} is damaged: restore a backup.") from error
    except MemoryError as error:  # a damaged length is believed
        raise StoreError(
            f"Reading the database {describe(url)} takes more memory than there is: it is damaged, "
            f"which `virnucpro-monitor db check {option_for(url)}` tells, or this machine lacks it."
        ) from error


@contextmanager
def damage_named(url: URL) -> Iterator[None]:
    """Say that a database is damaged where its rows cannot be understood."""
    try:
        yield
    except (ValueError, TypeError, LookupError) as error:
        what = masked(" ".join(str(error).split()))[:200]
        raise StoreError(
            f"The database {describe(url)} is damaged: a row cannot be understood "
            f"({type(error).__name__}: {what}). Restore a backup, or see what is wrong with "
            f"`virnucpro-monitor db check {option_for(url)}`."
        ) from error


PASSING_STATES = {
    "40001",  # serialization failure
    "40P01",  # deadlock
    "53300",  # too many connections
    "55P03",  # lock not available
    "57P01",  # shut down by its administrator
    "57P02",  # shut down after a crash
    "57P03",  # starting up
}
PASSING_SIGNS = ("starting up", "shutting down", "recovery", "too many", "terminating connection")


def is_passing(error: BaseException) -> bool:
    """Whether PostgreSQL's error is one that a later try may not meet."""
    state = getattr(error, "sqlstate", None)
    if state is not None:
        return str(state).startswith("08") or str(state) in PASSING_STATES  # 08: connection lost
    if type(error).__name__ not in {"OperationalError", "InterfaceError"}:
        return False
    lowered = str(error).lower()
    # A server that answers, and refuses, will do so again.
    return "fatal" not in lowered or any(sign in lowered for sign in PASSING_SIGNS)


def explain(error: BaseException, url: URL) -> StoreError:
    """The sentence for a database's error."""
    message = masked(" ".join(str(error).split()))
    lowered = message.lower()
    name = describe(url)
    if not is_sqlite(url):
        if re.search(r'database "[^"]*" does not exist', lowered):
            return MissingDatabase(
                f"The server of {name} has no database {url.database!r}: create it (`createdb "
                f"{url.database}`, or CREATE DATABASE), and then its tables by `virnucpro-monitor "
                f"db create {option_for(url)}`."
            )
        if re.search(r'role "[^"]*" does not exist', lowered):
            return StoreError(
                f"The server of {name} does not know the user {url.username!r}: check the --db "
                "option, or create the user."
            )
        if is_passing(error):
            return DatabaseAway(f"The database {name} cannot be reached just now: {message}.")
    if "no such table: alembic_version" in lowered or 'relation "alembic_version"' in lowered:
        return missing_database(url)
    for sign, sentence in (
        ("locked", f"The database {name} is locked by another program: try again later."),
        ("is full", f"The disk of the database {name} is full: free some space and try again."),
        ("no space left", f"The disk of the database {name} is full: free some space."),
        ("not a database", f"{name} is not an SQLite database: check the --db option."),
        ("malformed", f"The database {name} is damaged: restore a backup."),
        ("could not decode", f"The database {name} is damaged: restore a backup."),
        ("readonly", f"The database {name} cannot be written: check who owns the file and folder."),
        ("read-only", f"The database {name} was opened read-only."),
        ("unable to open", f"The database {name} cannot be opened: check the path and its rights."),
        (
            "disk i/o error",
            f"The disk of the database {name} is full or cannot be read: free some space and "
            "check the disk.",
        ),
    ):
        if sign in lowered:
            return StoreError(sentence)
    if "no such table" in lowered or "no such column" in lowered or "does not exist" in lowered:
        return StoreError(
            f"The database {name} lacks something that it should hold ({message}): run "
            f"`virnucpro-monitor db check {option_for(url)}`."
        )
    return StoreError(f"The database {name} cannot be used: {message}.")
