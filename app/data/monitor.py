"""The monitor itself, its incidents, and the one thing that the app writes."""

from collections.abc import Callable
from datetime import UTC, datetime

from app.data.database import database_url, engine, forget, kept
from app.data.series import SeriesCard, load_series_cards
from virnucpro_monitor.analysis.incidents import Incident, derive_incidents
from virnucpro_monitor.errors import ConfigurationError
from virnucpro_monitor.records import (
    Acknowledgement,
    BenchmarkSet,
    Coverage,
    Health,
    Heartbeat,
    Run,
    SequencePoint,
    SequenceResult,
)
from virnucpro_monitor.settings import load_settings
from virnucpro_monitor.store import reader, summaries
from virnucpro_monitor.store.engine import open_engine
from virnucpro_monitor.store.writer import Writer


def load_heartbeats() -> list[Heartbeat]:
    return summaries.load_heartbeats(engine())


def load_health() -> Health:
    return _load_health(database_url())


@kept()
def _load_health(url: str) -> Health:
    return summaries.load_health(engine())


def load_coverage(target: str) -> Coverage:
    return _load_coverage(database_url(), target)


@kept()
def _load_coverage(url: str, target: str) -> Coverage:
    return summaries.load_coverage(engine(), target)


def load_benchmarks() -> list[BenchmarkSet]:
    return _load_benchmarks(database_url())


@kept(60)
def _load_benchmarks(url: str) -> list[BenchmarkSet]:
    return reader.load_benchmarks(engine())


def load_sequence_history(
    card: SeriesCard, sequence_id: str, limit: int | None
) -> list[SequencePoint]:
    """One sequence in the newest so many runs of a series that measured it, oldest first.

    Raises:
        NotFoundError: the benchmark set has no such sequence.
    """
    return reader.load_sequence_history(
        engine(),
        card.key.target,
        f"{card.key.benchmark}@{card.key.benchmark_version}",
        sequence_id,
        configuration=card.key.configuration,
        limit=limit,
    )


def load_pack(run: Run, pack: int) -> list[SequenceResult]:
    """What was packed together as one pack, in the order of the pack."""
    results = reader.load_sequences(engine(), run.id or 0, pack=pack)
    return sorted(results, key=lambda result: result.slot or 0)


def load_history() -> tuple[Run, ...]:
    """All current runs, in commit order within each target."""
    return _load_history(database_url())


@kept()
def _load_history(url: str) -> tuple[Run, ...]:
    return tuple(reader.load_runs(engine()))


def load_incidents() -> tuple[Incident, ...]:
    """All incidents, oldest first, as their acknowledgements leave them now."""
    return _load_incidents(database_url())


@kept()
def _load_incidents(url: str) -> tuple[Incident, ...]:
    acknowledgements = summaries.load_acknowledgements(engine())
    now = datetime.now(UTC)
    return tuple(derive_incidents(_load_history(url), acknowledgements, now=now))


def may_acknowledge() -> bool:
    return load_settings().writable_app


def acknowledge(acknowledgement: Acknowledgement) -> None:
    """Store an acknowledgement: the only thing the app writes, by a connection of its own."""
    _write(lambda writer: writer.acknowledge(acknowledgement))


def reopen(incident: Incident, who: str) -> None:
    """Withdraw an incident's acknowledgements."""
    _write(lambda writer: writer.withdraw_acknowledgements(incident.key, who))


def _write(change: Callable[[Writer], object]) -> None:
    if not may_acknowledge():
        raise ConfigurationError(
            "This dashboard is read-only: start it with --allow-acknowledge, or use "
            "`virnucpro-monitor incidents ack`."
        )
    writable = open_engine(database_url())
    try:
        change(Writer(writable))
    finally:
        writable.dispose()
    forget(_load_incidents, load_series_cards)
