"""The monitor itself: runners, coverage, benchmark sets; one sequence over all runs."""

from app.data.database import database_url, engine, kept
from app.data.series import SeriesCard
from virnucpro_monitor.records import (
    BenchmarkSet,
    Coverage,
    Health,
    Heartbeat,
    Run,
    SequencePoint,
    SequenceResult,
)
from virnucpro_monitor.store import reader, summaries


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
