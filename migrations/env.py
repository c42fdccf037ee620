"""Runs the migrations on the connection that the program hands over.

From the shell, `alembic -x url=sqlite:///FILE current` works too; without `-x url` the program's
own settings name the database.
"""

from typing import Any

from alembic import context
from sqlalchemy import Connection

from virnucpro_monitor.settings import load_settings
from virnucpro_monitor.store.connection import make_engine, parse_url
from virnucpro_monitor.store.models import Base
from virnucpro_monitor.store.types import CleanText, JsonText, UtcDateTime


def render_item(kind: str, item: Any, autogen_context: Any) -> str | bool:
    """Write the package's column types as plain ones: a migration must not change with it."""
    if kind == "type" and isinstance(item, UtcDateTime):
        return "sa.DateTime(timezone=True)"
    if kind == "type" and isinstance(item, (CleanText, JsonText)):
        return "sa.Text()"
    return False


def run(connection: Connection) -> None:
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        render_as_batch=True,
        render_item=render_item,
        transactional_ddl=True,  # the engine begins its transactions itself, on SQLite too
    )
    with context.begin_transaction():
        context.run_migrations()


def run_from_shell() -> None:
    url = context.get_x_argument(as_dictionary=True).get("url") or load_settings().database_url
    engine = make_engine(parse_url(url), foreign_keys=False)
    with engine.connect().execution_options(writes=True) as connection, connection.begin():
        run(connection)
    engine.dispose()


given: Connection | None = context.config.attributes.get("connection")
if given is None:
    run_from_shell()
else:
    run(given)
