"""Copies a whole database: into a file as its backup, or between SQLite and PostgreSQL."""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Table, bindparam, func, insert, select, text, update

from virnucpro_monitor.errors import MissingDatabase, StoreError
from virnucpro_monitor.store.chain import LINKS
from virnucpro_monitor.store.connection import (
    describe,
    is_sqlite,
    parse_url,
    reading,
    sqlite_path,
    translated_errors,
    writing,
)
from virnucpro_monitor.store.engine import create_database, open_engine
from virnucpro_monitor.store.health_reader import count_rows
from virnucpro_monitor.store.integrity import digest_stored_runs, fingerprint
from virnucpro_monitor.store.models import Base, LeaseRow, RunRow, SequenceResultRow
from virnucpro_monitor.store.results import COLUMN_KINDS, Results
from virnucpro_monitor.store.statements import insert_rows, table_of

CHUNK = 1000
"""Rows that are held in memory at once."""

_RUNS = table_of(RunRow)
_RESULTS = table_of(SequenceResultRow)


@dataclass(frozen=True, slots=True, kw_only=True)
class Copied:
    """What a copy holds, after it was compared with its source.

    Attributes:
        database: path or URL of the copy, the password masked.
        fingerprint: as of `check_database`, the same as the source's.
    """

    database: str
    num_runs: int
    num_rows: int
    fingerprint: str


def back_up_database(url: str, path: Path) -> Copied:
    """Copy a database into a new SQLite file, while others go on reading and writing.

    Raises:
        StoreError: the file exists, or cannot be written; nothing is left behind then.
    """
    path = path.expanduser().absolute()
    if path.exists():
        raise StoreError(f"{path} exists already: name a file that does not, or remove it.")
    parsed = parse_url(url)
    if not is_sqlite(parsed):
        return copy_database(url, f"sqlite:///{path}")
    open_engine(url, read_only=True).dispose()  # says what is wrong with it
    draft = path.with_name(f".{path.name}.{os.getpid()}.draft")
    try:
        with translated_errors(parsed.set(database=str(path))):
            _copy_pages(sqlite_path(parsed), draft)
        copied = _look_over(f"sqlite:///{draft}")
        os.link(draft, path)  # never over a file that came in the meantime
        _sync(path.parent)
    except OSError as error:
        raise StoreError(
            f"The backup {path} cannot be written: {error.strerror or error}."
        ) from error
    finally:
        for leftover in (draft, Path(f"{draft}-wal"), Path(f"{draft}-shm")):
            with suppress(OSError):
                leftover.unlink(missing_ok=True)
    return Copied(
        database=str(path),
        num_runs=copied.num_runs,
        num_rows=copied.num_rows,
        fingerprint=copied.fingerprint,
    )


def _copy_pages(source: Path, draft: Path) -> None:
    with (
        closing(sqlite3.connect(f"file:{source}?mode=ro", uri=True)) as old,
        closing(sqlite3.connect(draft)) as new,
    ):
        old.backup(new)
    with draft.open("rb") as file:
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def copy_database(source_url: str, target_url: str) -> Copied:
    """Copy everything but leases into an empty database, which is created where it is missing.

    Ids stay the same. The copy is compared with its source, run by run, before it counts.

    Raises:
        StoreError: the target holds something, or the copy differs; the target is empty then.
    """
    source = open_engine(source_url, read_only=True)
    try:
        parsed = parse_url(target_url)
        made = _create_where_missing(target_url)
        target = open_engine(target_url)
        try:
            with reading(source) as old, writing(target) as new:
                if any(count_rows(new).values()):
                    raise StoreError(
                        f"The database {describe(parsed)} is not empty: copy into a new one."
                    )
                for table in Base.metadata.sorted_tables:
                    _copy_table(old, new, table)
                _go_on_counting(new)
                return _verified(old, new, parsed)
        except BaseException:
            if made and is_sqlite(parsed):
                sqlite_path(parsed).unlink(missing_ok=True)
            raise
        finally:
            target.dispose()
    finally:
        source.dispose()


def _create_where_missing(url: str) -> bool:
    try:
        open_engine(url).dispose()
    except MissingDatabase:
        create_database(url)
        return True
    return False


def _copy_table(old: Connection, new: Connection, table: Table) -> None:
    if table is table_of(LeaseRow):
        return  # a lock of the old database locks nothing here
    order = list(table.primary_key.columns)
    rows = old.execution_options(yield_per=CHUNK).execute(select(table).order_by(*order))
    if table is _RESULTS:
        for chunk in rows.partitions():
            for run_id, results in _by_run(chunk):
                shared = {"run_id": run_id, **results.shared}
                insert_rows(new, SequenceResultRow, results.columns, shared)
        return
    heirs = []
    for chunk in rows.partitions():
        values = [dict(row._mapping) for row in chunk]
        if table is _RUNS:
            # A run may point at one that comes later.
            heirs += [
                {"of_run": one["id"], "measured": one["inherited_run_id"]}
                for one in values
                if one["inherited_run_id"] is not None
            ]
            values = [{**one, "inherited_run_id": None} for one in values]
        new.execute(insert(table), values)
    if heirs:
        pointing = update(_RUNS).where(_RUNS.c.id == bindparam("of_run"))
        new.execute(pointing.values(inherited_run_id=bindparam("measured")), heirs)


def _by_run(rows: Any) -> Iterator[tuple[int, Results]]:
    """Consecutive rows of one run each."""
    start = 0
    for end in range(1, len(rows) + 1):
        if end == len(rows) or rows[end].run_id != rows[start].run_id:
            part = [tuple(getattr(row, name) for name in COLUMN_KINDS) for row in rows[start:end]]
            yield rows[start].run_id, Results.of_rows(part)
            start = end


def _go_on_counting(connection: Connection) -> None:
    """Give new rows ids that no row had, not even a run that is deleted by now."""
    last_run = connection.execute(select(func.max(LINKS.c.run_id))).scalar()
    if connection.dialect.name == "sqlite":
        if last_run is not None:
            connection.execute(text("DELETE FROM sqlite_sequence WHERE name = 'runs'"))
            statement = text("INSERT INTO sqlite_sequence (name, seq) VALUES ('runs', :last)")
            connection.execute(statement, {"last": last_run})
        return
    for table in Base.metadata.sorted_tables:
        (key, *others) = table.primary_key.columns
        if others or key.name != "id":
            continue
        last = connection.execute(select(func.max(key))).scalar()
        if table is _RUNS:
            last = max(last or 0, last_run or 0)
        if last:
            sequence = func.pg_get_serial_sequence(table.name, key.name)
            connection.execute(select(func.setval(sequence, last)))


def _verified(old: Connection, new: Connection, url: URL) -> Copied:
    for before, after in zip(digest_stored_runs(old), digest_stored_runs(new), strict=True):
        if before != after or after.digest != after.digest_now:
            raise StoreError(
                f"Run {before.id} differs in the copy, or was changed before: the copy was "
                "dropped. See what is wrong with `virnucpro-monitor db check`."
            )
    counts, fingerprints = (
        [dict(count_rows(one), leases=0) for one in (old, new)],
        [fingerprint(one) for one in (old, new)],
    )
    if counts[0] != counts[1] or fingerprints[0] != fingerprints[1]:
        raise StoreError(f"The copy {describe(url)} does not hold what its source does.")
    return _summary(new, url)


def _look_over(url: str) -> Copied:
    engine = open_engine(url, read_only=True)
    try:
        with reading(engine) as connection:
            finding = connection.exec_driver_sql("PRAGMA quick_check(1)").scalar()
            if finding != "ok":
                what = " ".join(str(finding).split())
                raise StoreError(f"The copy is damaged, as the database may be: {what}.")
            return _summary(connection, engine.url)
    finally:
        engine.dispose()


def _summary(connection: Connection, url: URL) -> Copied:
    counts = count_rows(connection)
    return Copied(
        database=describe(url),
        num_runs=counts["runs"],
        num_rows=sum(counts.values()),
        fingerprint=fingerprint(connection),
    )
