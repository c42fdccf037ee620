"""Has anything been written to a database since it was last looked at?"""

from pathlib import Path

from sqlalchemy import Engine, text

from virnucpro_monitor.store.connection import is_sqlite, sqlite_path, translated_errors


def load_version(engine: Engine) -> str:
    """What changes whenever somebody commits a change, in a fraction of a millisecond.

    Of SQLite it is the state of its two files, of PostgreSQL the snapshot that a reader gets. It
    may change although nothing of ours did; while it stays, every answer stays.

    Raises:
        StoreError: PostgreSQL does not answer.
    """
    url = engine.url
    if is_sqlite(url):
        path = sqlite_path(url)
        return " ".join(map(_file_state, (path, Path(f"{path}-wal"))))
    with translated_errors(url), engine.connect() as connection:
        return str(connection.execute(text("SELECT pg_current_snapshot()::text")).scalar())


def _file_state(path: Path) -> str:
    try:
        found = path.stat()
    except OSError:
        return "absent"
    return f"{found.st_ino} {found.st_size} {found.st_mtime_ns}"
