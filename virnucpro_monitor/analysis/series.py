"""Series: the runs that may stand on one line, and the error that is drawn there."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache

from virnucpro_monitor.records import GATES, Configuration, Run, benchmark_label
from virnucpro_monitor.records import error_of as error_of

ERROR_FLOOR = 1e-12
"""Errors (1 - cos) below this are rounding of the float64 cosine itself and count as equal."""

UNKNOWN_BACKENDS = frozenset({"", "auto"})
"""What a run is stored under whose model was never loaded, so that no backend could run."""


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class SeriesKey:
    """One target on one benchmark set under one configuration."""

    target: str
    benchmark: str
    benchmark_version: int
    configuration: str  # the configuration's digest

    @property
    def benchmark_label(self) -> str:
        return benchmark_label(self.benchmark, self.benchmark_version)


def series_key(run: Run) -> SeriesKey:
    return SeriesKey(
        target=run.target,
        benchmark=run.benchmark,
        benchmark_version=run.benchmark_version,
        configuration=_digest(run.configuration),
    )


@lru_cache(maxsize=256)
def _digest(configuration: Configuration) -> str:
    # Thousands of runs share a few configurations.
    return configuration.digest


def split_series(runs: Iterable[Run]) -> dict[SeriesKey, list[Run]]:
    """Group runs by series, keeping their order.

    A run whose model was never loaded does not know the attention backend. Where the other runs of
    its target name one, it belongs to the series that otherwise has the same configuration (the
    one with most runs, if several have), unless that series holds its commit already.
    """
    groups: dict[SeriesKey, list[tuple[int, Run]]] = {}
    for place, run in enumerate(runs):
        groups.setdefault(series_key(run), []).append((place, run))
    for key in [key for key, members in groups.items() if _is_loose(members[0][1])]:
        first = groups[key][0][1]
        homes = [
            other
            for other, members in groups.items()
            if not _is_loose(members[0][1]) and _same_but_backend(first, members[0][1])
        ]
        if not homes:
            continue
        home = max(homes, key=lambda other: (len(groups[other]), other.configuration))
        there = {run.commit.hash for _, run in groups[home]}
        moved = [(place, run) for place, run in groups.pop(key) if run.commit.hash not in there]
        groups[home] = sorted([*groups[home], *moved], key=lambda member: member[0])
    return {key: [run for _, run in members] for key, members in groups.items()}


def _is_loose(run: Run) -> bool:
    return run.configuration.backend in UNKNOWN_BACKENDS and not run.outcome.has_verdict


def _same_but_backend(a: Run, b: Run) -> bool:
    def rest(run: Run) -> tuple[str | int, ...]:
        used = run.configuration
        names = [name for name in Configuration.__dataclass_fields__ if name != "backend"]
        return (
            run.target,
            run.benchmark,
            run.benchmark_version,
            *(getattr(used, name) for name in names),
        )

    return rest(a) == rest(b)


def log10_error(error: float, floor: float = ERROR_FLOOR) -> float:
    """log10 of an error, with everything at or below `floor` at the floor."""
    return math.log10(max(error, floor))


def worst_error(run: Run) -> float | None:
    """The largest error among a run's sequences that have one; None where none has."""
    return error_of(run.figures.min_similarity) if run.figures else None


def lacks_values(run: Run) -> bool:
    """Whether a measured run has sequences without a similarity: not finite, lost or doubled.

    No number is worse than that, so it counts as worse than any error.
    """
    if run.figures is None:
        return False
    telling = {gate.name for gate in GATES if gate.loses_values}
    broken = any(gate.name in telling and gate.passed is False for gate in run.gates)
    return broken or run.figures.min_similarity is None


def commit_date(run: Run) -> datetime:
    """When the run's commit was made; the run's start where git's dates are not known."""
    return run.commit.committed_at or run.commit.authored_at or run.started_at
