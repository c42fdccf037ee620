"""Series: what the overview lists, and the runs on one line."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from app.data.database import database_url, engine, kept
from virnucpro_monitor.analysis.comparison import Thresholds
from virnucpro_monitor.analysis.incidents import Incident, IncidentState, derive_incidents
from virnucpro_monitor.analysis.series import (
    BAD_OUTCOMES,
    UNKNOWN_BACKENDS,
    SeriesKey,
    series_key,
    split_series,
)
from virnucpro_monitor.records import Configuration, Outcome, Run, RunMark, Series
from virnucpro_monitor.store import reader, summaries

INCIDENT_WINDOW = 1000
NUM_MARKS = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesCard:
    """One series of the overview.

    Attributes:
        latest: its newest run; of a commit that could not be loaded too.
        configurations: digests of the configurations whose runs belong to it: its own, and that
            of runs which failed before their attention backend was known.
        incidents: that are not fixed.
        marks: its newest runs for the small chart, newest last.
    """

    key: SeriesKey
    latest: Run
    label: str
    commits_behind: int
    configurations: tuple[str, ...]
    incidents: tuple[Incident, ...]
    marks: tuple[RunMark, ...]

    @property
    def words(self) -> str:
        """What a search looks through."""
        return f"{self.key.target} {self.key.benchmark} {self.label} {self.latest.outcome}".lower()


def load_series() -> tuple[SeriesCard, ...]:
    """All series: the bad ones first, then the most recently measured."""
    return load_series_cards(database_url())


@kept()
def load_series_cards(url: str) -> tuple[SeriesCard, ...]:
    stored = summaries.load_series(engine())
    acknowledgements = summaries.load_acknowledgements(engine())
    by_key = {series_key(series.latest): series for series in stored}
    groups: dict[SeriesKey, list[Series]] = {}
    for key, runs in split_series([series.latest for series in stored]).items():
        groups[key] = [by_key[series_key(run)] for run in runs]
    for series in stored:  # a loose series whose commit its home holds too has nothing to add
        if not any(series in members for members in groups.values()) and not _is_loose(series):
            groups.setdefault(series_key(series.latest), []).append(series)
    marks = _marks_by_series()
    labels = _labels([by_key[key].configuration for key in groups])
    cards = []
    for key, members in groups.items():
        newest = max(members, key=lambda series: _history_place(series.latest))
        configurations = tuple(series.configuration.digest for series in members)
        incidents: tuple[Incident, ...] = ()
        if newest.latest.effective_outcome is not Outcome.PASSED:
            runs = _series_runs(key, configurations, INCIDENT_WINDOW)
            incidents = tuple(
                incident
                for incident in derive_incidents(runs, acknowledgements, now=datetime.now(UTC))
                if incident.state is not IncidentState.FIXED
            )
        cards.append(
            SeriesCard(
                key=key,
                latest=newest.latest,
                label=labels[key.configuration],
                commits_behind=newest.commits_behind,
                configurations=configurations,
                incidents=incidents,
                marks=_merged([marks[series_key(series.latest)] for series in members]),
            )
        )
    cards.sort(key=lambda card: card.latest.started_at, reverse=True)
    return tuple(sorted(cards, key=lambda card: card.latest.effective_outcome not in BAD_OUTCOMES))


def _marks_by_series() -> dict[SeriesKey, list[RunMark]]:
    marks: dict[SeriesKey, list[RunMark]] = defaultdict(list)
    for mark in summaries.load_recent_marks(engine(), NUM_MARKS):
        key = SeriesKey(
            target=mark.target,
            benchmark=mark.benchmark,
            benchmark_version=mark.benchmark_version,
            configuration=mark.configuration,
        )
        marks[key].append(mark)
    return marks


def _merged(members: Sequence[Sequence[RunMark]]) -> tuple[RunMark, ...]:
    """The newest marks of all configurations that belong to one series, newest last."""
    if len(members) == 1:
        return tuple(members[0])
    marks = [mark for member in members for mark in member]
    marks.sort(key=lambda mark: -1 if mark.position is None else mark.position)
    return tuple(marks[-NUM_MARKS:])


def _is_loose(series: Series) -> bool:
    return series.configuration.backend in UNKNOWN_BACKENDS


def _history_place(run: Run) -> tuple[int, float]:
    position = -1 if run.commit.position is None else run.commit.position
    return position, run.started_at.timestamp()


def configuration_label(configuration: Configuration) -> str:
    return " · ".join(
        (
            configuration.model,
            configuration.dtype,
            configuration.backend,
            configuration.device,
            f"{configuration.weights} weights",
        )
    )


def _labels(configurations: Iterable[Configuration]) -> dict[str, str]:
    """A label for each digest; what is needed to tell two apart is added to it."""
    unique = {configuration.digest: configuration for configuration in configurations}
    labels = {digest: configuration_label(c) for digest, c in unique.items()}
    shown = list(labels.values())
    return {
        digest: label
        if shown.count(label) == 1
        else f"{label} {unique[digest].weights_digest[:8]} · "
        f"packs of {unique[digest].token_budget:,}"
        for digest, label in labels.items()
    }


def load_series_runs(card: SeriesCard, limit: int | None) -> tuple[Run, ...]:
    """The newest so many runs of a series, oldest commit first."""
    key = card.key
    return _load_series_runs(
        database_url(),
        (key.target, key.benchmark, key.benchmark_version, key.configuration),
        card.configurations,
        limit,
    )


@kept()
def _load_series_runs(
    url: str,
    key: tuple[str, str, int, str],
    configurations: tuple[str, ...],
    limit: int | None,
) -> tuple[Run, ...]:
    target, benchmark, version, configuration = key
    series = SeriesKey(
        target=target,
        benchmark=benchmark,
        benchmark_version=version,
        configuration=configuration,
    )
    return tuple(_series_runs(series, configurations, limit))


def load_stored_runs(card: SeriesCard, **conditions: Any) -> list[Run]:
    """The runs of a series that fit further conditions of `reader.load_runs`, oldest first."""
    return _series_runs(card.key, card.configurations, **conditions)


def _series_runs(
    key: SeriesKey,
    configurations: Sequence[str],
    limit: int | None = None,
    **conditions: Any,
) -> list[Run]:
    runs = [
        run
        for digest in configurations
        for run in reader.load_runs(
            engine(),
            target=key.target,
            benchmark=f"{key.benchmark}@{key.benchmark_version}",
            configuration=digest,
            limit=limit,
            **conditions,
        )
    ]
    if len(configurations) > 1:
        runs.sort(key=_history_place)
    members = split_series(runs).get(key, runs)
    return members[-limit:] if limit else members


@kept()
def _load_thresholds(url: str, digest: str) -> Thresholds:
    return Thresholds.of_protocol(reader.load_protocol(engine(), digest).content)


def load_thresholds(runs: Iterable[Run]) -> dict[str, Thresholds]:
    """The thresholds of each protocol that `runs` were judged under, by its digest."""
    return {
        digest: _load_thresholds(database_url(), digest)
        for digest in {run.protocol_digest for run in runs}
    }
