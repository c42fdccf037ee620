"""What can be done with a database as a whole: made, upgraded, copied, pruned, exported."""

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from virnucpro_monitor.errors import MissingDatabase, MonitorError, OutdatedSchema
from virnucpro_monitor.host.doctor import OK, PROBLEM, WARNING, Finding, examine
from virnucpro_monitor.monitor.naming import choose_target
from virnucpro_monitor.monitor.opening import open_database
from virnucpro_monitor.records import Run
from virnucpro_monitor.records.batches import SequenceBatch
from virnucpro_monitor.settings import Settings
from virnucpro_monitor.store import copying, engine, exporting, pruning, roles
from virnucpro_monitor.store.connection import describe, option_for, parse_url
from virnucpro_monitor.store.copying import Copied
from virnucpro_monitor.store.engine import Upgrade
from virnucpro_monitor.store.pruning import Pruning
from virnucpro_monitor.store.roles import Roles


def database_name(url: str) -> str:
    """The database's name for a person: an SQLite file's path, a URL with its password masked.

    Raises:
        ConfigurationError: it is not a URL, or names a database that is not supported.
    """
    return describe(parse_url(url))


def create_database(url: str) -> None:
    """Create an SQLite file, or the tables in an existing PostgreSQL database.

    Raises:
        StoreError: there is one already, or it cannot be made.
    """
    engine.create_database(url)


def make_roles(url: str, *, prefix: str, apply: bool) -> Roles:
    """Make PostgreSQL's roles, or say how; see `store.roles`.

    Raises:
        ConfigurationError: the prefix is no plain name, or the database has no users.
        StoreError: this user may not make roles, or does not own the tables.
    """
    return roles.make_roles(url, prefix=prefix, apply=apply)


def upgrade_database(url: str) -> Upgrade:
    """Bring an older schema up to this program's; an SQLite file is copied first.

    Raises:
        MissingDatabase, NewerSchema, StoreError: as where a database is opened.
    """
    return engine.upgrade_database(url)


def back_up_database(url: str, path: Path) -> Copied:
    """Copy a database into a new SQLite file, while others go on reading and writing."""
    return copying.back_up_database(url, path)


def copy_database(source_url: str, target_url: str) -> Copied:
    """Copy everything into another, empty database, and compare each run by its digest."""
    return copying.copy_database(source_url, target_url)


def prune_database(url: str, before: datetime, *, apply: bool, embeddings: bool) -> Pruning:
    """Delete superseded attempts that started before a moment and that nothing points to.

    Args:
        apply: False only says what would go, and opens the database read-only.
        embeddings: of every run of that age, the kept embeddings go too.
    """
    with open_database(url, read_only=not apply) as opened:
        return pruning.prune(opened, before, apply=apply, embeddings=embeddings)


def export_runs(
    db: str | None, *, target: str | None = None, benchmark: str | None = None
) -> Iterator[list[Run]]:
    """The current runs of a target or of all, by id, in batches.

    Args:
        db: an SQLAlchemy URL; None for what the settings say.
        target: a name, or the path or URL of the repository.
        benchmark: a set's name, or "name@version".
    """
    with open_database(db) as opened:
        name = choose_target(opened, target).name if target else None
        yield from exporting.stream_runs(opened, target=name, benchmark=benchmark)


def export_sequences(
    db: str | None, *, target: str | None = None, benchmark: str | None = None
) -> Iterator[SequenceBatch]:
    """The per-sequence results of the current runs, by run id and index, in batches.

    Args:
        db, target, benchmark: as of `export_runs`.
    """
    with open_database(db) as opened:
        name = choose_target(opened, target).name if target else None
        yield from exporting.stream_sequences(opened, target=name, benchmark=benchmark)


def examine_everything(settings: Settings) -> list[Finding]:
    """What works on this machine and what does not, the database last."""
    found = examine(settings.device, settings.model, settings.weights, settings.cache_folder)
    return [*found, examine_database(settings.database_url)]


def examine_database(url: str) -> Finding:
    """Whether the database can be opened with this program's schema."""
    try:
        parsed = parse_url(url)
        engine.open_engine(url, read_only=True).dispose()
    except MissingDatabase as error:
        sqlite = url.startswith("sqlite")
        remedy = f"virnucpro-monitor db create {option_for(parsed)}"
        return Finding("database", WARNING if sqlite else PROBLEM, str(error), remedy)
    except OutdatedSchema as error:
        remedy = f"virnucpro-monitor db upgrade {option_for(parsed)}"
        return Finding("database", PROBLEM, str(error), remedy)
    except MonitorError as error:
        return Finding("database", PROBLEM, str(error))
    return Finding("database", OK, describe(parsed))
