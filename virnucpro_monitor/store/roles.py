"""Roles of a PostgreSQL database: who may read, who may acknowledge, who may store runs.

They are groups without a login of their own: an administrator grants them to users. A table's owner
alone changes the schema.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from sqlalchemy import Connection, text

from virnucpro_monitor.errors import ConfigurationError, StoreError
from virnucpro_monitor.store.connection import is_sqlite, parse_url, writing
from virnucpro_monitor.store.engine import open_engine
from virnucpro_monitor.store.models import AcknowledgementRow, Base

DEFAULT_PREFIX = "virnucpro_monitor"
KINDS = ("reader", "acknowledger", "writer")
_PREFIX = re.compile(r"[a-z_][a-z0-9_]{0,40}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Roles:
    """What `make_roles` did, or would do.

    Attributes:
        names: of the roles, in the order of `KINDS`.
        statements: SQL, in the order in which it runs.
    """

    names: tuple[str, ...]
    statements: tuple[str, ...]


def make_roles(url: str, *, prefix: str = DEFAULT_PREFIX, apply: bool = True) -> Roles:
    """Make the three roles, or give those that are there exactly their rights again.

    Args:
        prefix: of their names: `PREFIX_reader` and so on.
        apply: whether it is done.

    Raises:
        ConfigurationError: the prefix is no plain name, or the database is SQLite's, which has no
            users.
        StoreError: this user may not make roles, or does not own the tables.
    """
    if is_sqlite(parse_url(url)):
        raise ConfigurationError(
            "An SQLite file has no users: give people rights on the file and its folder instead."
        )
    if not _PREFIX.fullmatch(prefix):
        raise ConfigurationError(
            f"{prefix!r} is no prefix for roles: use up to 41 small letters, digits and _."
        )
    engine = open_engine(url)
    try:
        with writing(engine) as connection:
            names = tuple(f"{prefix}_{kind}" for kind in KINDS)
            statements = tuple(_statements(connection, names))
            if apply:
                for statement in statements:
                    connection.execute(text(statement))
    except StoreError as error:
        if "permission denied" in str(error) or "must be owner" in str(error):
            raise StoreError(
                f"{error} Run this as the owner of the tables, with the right to create roles."
            ) from error
        raise
    finally:
        engine.dispose()
    return Roles(names=names, statements=statements)


def _statements(connection: Connection, names: tuple[str, ...]) -> Iterator[str]:
    quote = connection.dialect.identifier_preparer.quote
    _, acknowledger, writer = names
    database = quote(str(connection.execute(text("SELECT current_database()")).scalar_one()))
    schema = quote(str(connection.execute(text("SELECT current_schema()")).scalar_one()))
    there = set(connection.execute(text("SELECT rolname FROM pg_roles")).scalars())
    tables = [quote(name) for name in Base.metadata.tables]
    yield f"REVOKE CREATE ON SCHEMA {schema} FROM PUBLIC"
    for name in names:
        if name not in there:
            yield f"CREATE ROLE {name} NOLOGIN"
        yield f"REVOKE ALL ON ALL TABLES IN SCHEMA {schema} FROM {name}"
        yield f"REVOKE ALL ON ALL SEQUENCES IN SCHEMA {schema} FROM {name}"
        yield f"GRANT CONNECT ON DATABASE {database} TO {name}"
        yield f"GRANT USAGE ON SCHEMA {schema} TO {name}"
        yield f"GRANT SELECT ON alembic_version, {', '.join(tables)} TO {name}"
    notes = quote(AcknowledgementRow.__tablename__)
    yield f"GRANT INSERT, UPDATE ON {notes} TO {acknowledger}"
    yield f"GRANT USAGE ON SEQUENCE {_sequence(connection, notes)} TO {acknowledger}"
    yield f"GRANT INSERT, UPDATE, DELETE ON {', '.join(tables)} TO {writer}"
    yield f"GRANT USAGE ON ALL SEQUENCES IN SCHEMA {schema} TO {writer}"


def _sequence(connection: Connection, table: str) -> str:
    asked = text("SELECT pg_get_serial_sequence(:name, 'id')")
    return str(connection.execute(asked, {"name": table}).scalar_one())
