"""A database, opened to be asked or to be written, and closed again."""

from collections.abc import Iterator
from contextlib import contextmanager

from virnucpro_monitor.settings import load_settings
from virnucpro_monitor.store.engine import Engine, ensure_database, open_engine
from virnucpro_monitor.store.reader import check_schema

__all__ = ["Engine", "check_schema", "ensure_database", "open_database", "open_for_reading"]


@contextmanager
def open_database(db: str | None, *, read_only: bool = True) -> Iterator[Engine]:
    """The database that `db` or the settings name; closed afterwards.

    Args:
        db: an SQLAlchemy URL; None for what the environment, the settings file or the default say.

    Raises:
        StoreError: there is none, or its schema is not this program's.
    """
    engine = open_engine(load_settings(db=db).database_url, read_only=read_only)
    try:
        yield engine
    finally:
        engine.dispose()


def open_for_reading(url: str) -> Engine:
    """A database that stays open until its engine is disposed of; nothing can be written.

    Raises:
        StoreError: as `open_database`.
    """
    return open_engine(url, read_only=True)
