"""Open, create and upgrade a database: three acts, and none does another's work."""

import contextlib
import fcntl
import os
import sqlite3
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import URL, Connection, Engine, inspect, text

from virnucpro_monitor.errors import MissingDatabase, NewerSchema, StoreError
from virnucpro_monitor.settings import resource_folder
from virnucpro_monitor.store.anchors import Anchors
from virnucpro_monitor.store.connection import (
    REVISIONS,
    SCHEMA_REVISION,
    check_revision,
    describe,
    is_sqlite,
    make_engine,
    missing_database,
    option_for,
    parse_url,
    sqlite_path,
    translated_errors,
)

if TYPE_CHECKING:
    from alembic.config import Config

__all__ = [
    "REVISIONS",
    "SCHEMA_REVISION",
    "Engine",
    "Upgrade",
    "create_database",
    "ensure_database",
    "open_engine",
    "upgrade_database",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Upgrade:
    """What an upgrade did; the revisions are equal where there was nothing to do.

    Attributes:
        backup: copy of the SQLite file as it was before.
    """

    from_revision: str
    to_revision: str
    backup: Path | None = None


def open_engine(url: str, *, read_only: bool = False) -> Engine:
    """Open an existing database whose schema is this program's.

    Raises:
        ConfigurationError: the URL is not understood or not supported.
        MissingDatabase: there is none, with the command that creates it.
        OutdatedSchema, NewerSchema: its schema is another's.
        StoreError: it cannot be read.
    """
    parsed = parse_url(url)
    _require_database(parsed)
    engine = make_engine(parsed, read_only=read_only)
    try:
        with translated_errors(parsed), engine.connect() as connection:
            _require_own_tables(connection)
            check_revision(connection)
    except BaseException:
        engine.dispose()
        raise
    return engine


def create_database(url: str) -> None:
    """Create an SQLite file with its folder, or the tables in an existing PostgreSQL database.

    Raises:
        StoreError: there is one already, or it cannot be written.
    """
    parsed = parse_url(url)
    if is_sqlite(parsed):
        if not _create_sqlite(parsed):
            open_engine(url, read_only=True).dispose()  # what stands there may be no database
            raise _already_there(parsed)
        _forget_old(url)
        return
    engine = make_engine(parsed)
    try:
        with translated_errors(parsed):
            with engine.connect() as connection:
                if inspect(connection).has_table("alembic_version"):
                    raise _already_there(parsed)
            _migrate(parsed)
    finally:
        engine.dispose()
    _forget_old(url)


def _forget_old(url: str) -> None:
    """What was noted of a database that stood here before says nothing of the new one."""
    with contextlib.suppress(OSError):
        Anchors(url).forget()


def ensure_database(url: str) -> bool:
    """Create a missing SQLite file; True where it was created.

    PostgreSQL is only ever created by `create_database`. An older schema is left as it is:
    `open_engine` refuses it.
    """
    parsed = parse_url(url)
    made = is_sqlite(parsed) and _create_sqlite(parsed)
    if made:
        _forget_old(url)
    return made


def upgrade_database(url: str) -> Upgrade:
    """Bring an older schema up to this program's; an SQLite file is copied first.

    Raises:
        MissingDatabase, NewerSchema, StoreError: as `open_engine`.
    """
    parsed = parse_url(url)
    _require_database(parsed)
    before = _stored_revision(parsed)
    if before == SCHEMA_REVISION:
        return Upgrade(from_revision=before, to_revision=before)
    if before not in REVISIONS:
        raise NewerSchema(
            f"The database {describe(parsed)} has schema {before}, newer than this program's "
            f"{SCHEMA_REVISION}: upgrade virnucpro_monitor."
        )
    backup = _back_up(sqlite_path(parsed), before) if is_sqlite(parsed) else None
    with translated_errors(parsed):
        _migrate(parsed)
    return Upgrade(from_revision=before, to_revision=SCHEMA_REVISION, backup=backup)


def _require_database(url: URL) -> None:
    if is_sqlite(url) and _is_absent(sqlite_path(url)):
        raise missing_database(url)
    if is_sqlite(url) and sqlite_path(url).is_dir():
        raise StoreError(f"{describe(url)} is a folder, not a database: check the --db option.")


def _is_absent(path: Path) -> bool:
    """Whether there is nothing, or only the empty file that some tools leave behind."""
    return not path.exists() or (path.is_file() and path.stat().st_size == 0)


def _require_own_tables(connection: Connection) -> None:
    tables = inspect(connection).get_table_names()
    if "alembic_version" in tables:
        return
    url = connection.engine.url
    if not tables:
        raise missing_database(url)
    raise MissingDatabase(
        f"The database {describe(url)} belongs to another program (it holds {tables[0]!r}): "
        "check the --db option."
    )


def _stored_revision(url: URL) -> str:
    engine = make_engine(url, read_only=True)
    try:
        with translated_errors(url), engine.connect() as connection:
            _require_own_tables(connection)
            revision = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
            if revision is None:
                raise missing_database(url)
            return str(revision)
    finally:
        engine.dispose()


def _already_there(url: URL) -> StoreError:
    return StoreError(
        f"There is a database at {describe(url)} already: use it as it is, or run "
        f"`virnucpro-monitor db upgrade {option_for(url)}`."
    )


def _create_sqlite(url: URL) -> bool:
    """Build the file under another name, so that no reader ever meets a half-made one.

    Returns:
        False where there is a database already, also one that was made in the meantime.
    """
    path = sqlite_path(url)
    if not _is_absent(path):
        return False
    draft = path.with_name(f".{path.name}.{os.getpid()}.draft")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft.touch()
        try:
            with translated_errors(url):
                _migrate(url.set(database=str(draft)))
                with contextlib.closing(sqlite3.connect(draft)) as connection:
                    connection.execute("PRAGMA journal_mode=WAL")
            return _put_in_place(draft, path)
        finally:
            for leftover in (draft, Path(f"{draft}-wal"), Path(f"{draft}-shm")):
                leftover.unlink(missing_ok=True)
    except OSError as error:
        raise StoreError(
            f"The database {describe(url)} cannot be created: {error.strerror or error}."
        ) from error


def _put_in_place(draft: Path, path: Path) -> bool:
    """Give `draft` its real name, unless another process was quicker."""
    try:
        os.link(draft, path)
        return True
    except FileExistsError:
        with path.open("rb") as existing:
            # Whoever else wants to replace the same empty file waits here, and then sees another.
            fcntl.flock(existing, fcntl.LOCK_EX)
            status = os.fstat(existing.fileno())
            if status.st_size or not os.path.samestat(status, path.stat()):
                return False
            draft.replace(path)
            return True


def _back_up(path: Path, revision: str) -> Path:
    moment = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
    backup = path.with_name(f"{path.name}.schema-{revision}.{moment}.backup")
    try:
        with (
            contextlib.closing(sqlite3.connect(path)) as source,
            contextlib.closing(sqlite3.connect(backup)) as target,
        ):
            source.backup(target)
    except (OSError, sqlite3.Error) as error:
        backup.unlink(missing_ok=True)
        raise StoreError(
            f"{path} could not be copied before its upgrade ({error}): nothing was changed."
        ) from error
    return backup


def alembic_config() -> "Config":
    """Alembic's configuration for the migrations that came with this program."""
    from alembic.config import Config

    config = Config()
    folder = str(resource_folder("migrations")).replace("%", "%%")
    config.set_main_option("script_location", folder)
    config.set_main_option("path_separator", "os")
    return config


def _migrate(url: URL) -> None:
    """Run the migrations in one transaction, with foreign keys off, and seal older runs."""
    from alembic import command

    from virnucpro_monitor.store.integrity import seal_runs

    engine = make_engine(url, foreign_keys=False)
    try:
        with engine.connect().execution_options(writes=True) as connection, connection.begin():
            config = alembic_config()
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
            seal_runs(connection)
            if is_sqlite(url):
                orphan = connection.exec_driver_sql("PRAGMA foreign_key_check").first()
                if orphan is not None:
                    raise StoreError(
                        f"The migration of {describe(url)} left rows of {orphan[0]!r} without "
                        "their parents and was undone."
                    )
    finally:
        engine.dispose()
