"""Series: which there are, the runs on one line, and what lies next to a run.

A run that failed before its attention backend was known belongs to the series that otherwise has
its configuration: every question here counts it in.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from virnucpro_monitor.analysis.incidents import OVER, Incident, IncidentState, derive_incidents
from virnucpro_monitor.analysis.series import (
    UNKNOWN_BACKENDS,
    SeriesKey,
    series_key,
    split_series,
)
from virnucpro_monitor.records import (
    Acknowledgement,
    Configuration,
    Outcome,
    Run,
    RunMark,
    Series,
)
from virnucpro_monitor.store import notes_reader, reader, series_reader
from virnucpro_monitor.store.engine import Engine
from virnucpro_monitor.store.findings_reader import load_findings

INCIDENT_WINDOW = 1000
NUM_MARKS = 40
MAX_RECENT_SERIES = 50
RECENT_OF_SERIES = 10
WINDOWS = (20, 500, None)
"""Places of the history to look through: most answers lie near."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesCard:
    """One series as the overview lists it.

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
    def is_unwatched(self) -> bool:
        """Whether it was bad when last measured, and its target has been measured without it."""
        unseen = [one.state is IncidentState.NOT_SEEN for one in self.incidents]
        return bool(unseen) and all(unseen)

    @property
    def words(self) -> str:
        """What a search looks through."""
        return f"{self.key.target} {self.key.benchmark} {self.label} {self.latest.outcome}".lower()


def list_series(engine: Engine) -> tuple[SeriesCard, ...]:
    """All series: the bad ones first, then the most recently measured."""
    stored = series_reader.load_series(engine)
    by_key = {series_key(series.latest): series for series in stored}
    groups = _group(stored)
    marks = _marks_by_series(engine)
    labels = configuration_labels([by_key[key].configuration for key in groups])
    members_of = {
        key: tuple(series.configuration.digest for series in members)
        for key, members in groups.items()
    }
    newest = {
        key: max(members, key=lambda series: _history_place(series.latest))
        for key, members in groups.items()
    }
    bad = [
        key
        for key, series in newest.items()
        if series.latest.effective_outcome is not Outcome.PASSED
    ]
    incidents = _open_incidents(engine, bad, members_of, [series.latest for series in stored])
    cards = [
        SeriesCard(
            key=key,
            latest=newest[key].latest,
            label=labels[key.configuration],
            commits_behind=newest[key].commits_behind,
            configurations=members_of[key],
            incidents=tuple(incidents[key]),
            marks=_merged([marks[series_key(series.latest)] for series in members]),
        )
        for key, members in groups.items()
    ]
    cards.sort(key=lambda card: card.latest.started_at, reverse=True)
    return tuple(sorted(cards, key=lambda card: not card.latest.effective_outcome.is_bad))


def _group(stored: Sequence[Series]) -> dict[SeriesKey, list[Series]]:
    """Which stored series belong together, by the key of the one that names a backend."""
    by_key = {series_key(series.latest): series for series in stored}
    return {
        key: [by_key[series_key(run)] for run in runs]
        for key, runs in split_series([series.latest for series in stored]).items()
    }


def _open_incidents(
    engine: Engine,
    keys: Sequence[SeriesKey],
    members_of: dict[SeriesKey, tuple[str, ...]],
    newest: Sequence[Run],
) -> dict[SeriesKey, list[Incident]]:
    """The incidents of some series that are not fixed.

    Args:
        newest: the newest run of every series.
    """
    if not keys:
        return defaultdict(list)
    acknowledgements = notes_reader.load_acknowledgements(engine, withdrawn=True)
    wanted = {*keys, *_named_by_target(acknowledgements, members_of)}
    runs = [
        run for key in wanted for run in series_runs(engine, key, members_of[key], INCIDENT_WINDOW)
    ]
    found: dict[SeriesKey, list[Incident]] = defaultdict(list)
    incidents = derive_incidents(
        runs,
        acknowledgements,
        now=datetime.now(UTC),
        findings=load_findings(engine),
        newest=newest,
    )
    for incident in incidents:
        if incident.state not in OVER:
            found[incident.series].append(incident)
    return found


def _named_by_target(
    acknowledgements: Iterable[Acknowledgement], keys: Iterable[SeriesKey]
) -> list[SeriesKey]:
    """Series whose incidents an acknowledgement "for the whole target" may have been given to."""
    scopes = {one.scope for one in acknowledgements}
    return [key for key in keys if key.target in scopes]


def _marks_by_series(engine: Engine) -> dict[SeriesKey, list[RunMark]]:
    marks: dict[SeriesKey, list[RunMark]] = defaultdict(list)
    for mark in series_reader.load_recent_marks(engine, NUM_MARKS):
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


def configuration_labels(configurations: Iterable[Configuration]) -> dict[str, str]:
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


def series_runs(
    engine: Engine,
    key: SeriesKey,
    configurations: Sequence[str],
    limit: int | None = None,
    **conditions: Any,
) -> list[Run]:
    """The newest so many runs of a series that fit further conditions of `load_runs`.

    Returns:
        Oldest commit first.
    """
    runs = [
        run
        for digest in configurations
        for run in reader.load_runs(
            engine,
            target=key.target,
            benchmark=key.benchmark_label,
            configuration=digest,
            limit=limit,
            **conditions,
        )
    ]
    if len(configurations) > 1:
        runs.sort(key=_history_place)
    members = split_series(runs).get(key, runs)
    return members[-limit:] if limit else members


def series_of(engine: Engine, run: Run) -> tuple[SeriesKey, tuple[str, ...]]:
    """The series that a run belongs to: its key, and the configurations whose runs are in it."""
    key = series_key(run)
    if run.configuration.backend not in UNKNOWN_BACKENDS:
        loose = (replace(run.configuration, backend=name) for name in sorted(UNKNOWN_BACKENDS))
        return key, (key.configuration, *(configuration.digest for configuration in loose))
    homes = {
        home: members
        for home, members in _group(series_reader.load_series(engine, target=run.target)).items()
        if (home.benchmark, home.benchmark_version) == (key.benchmark, key.benchmark_version)
        and _differ_in_backend_only(members[0].configuration, run.configuration)
    }
    if not homes:
        return key, (key.configuration,)
    home = max(homes, key=lambda one: (_num_runs(homes[one]), one.configuration))
    digests = (series.configuration.digest for series in homes[home])
    return home, tuple(dict.fromkeys((home.configuration, *digests, key.configuration)))


def _differ_in_backend_only(one: Configuration, other: Configuration) -> bool:
    return replace(one, backend=other.backend) == other


def _num_runs(members: Iterable[Series]) -> int:
    return sum(sum(series.outcome_counts.values()) for series in members)


def load_neighbours(engine: Engine, run: Run) -> tuple[Run | None, Run | None]:
    """The runs of the previous and the next commit of the same series that has one."""
    key, configurations = series_of(engine, run)
    position = run.commit.position
    if position is None:  # off the followed branch only its parent is known
        before = series_runs(engine, key, configurations, commits=run.commit.parents[:1])
        return (before[-1] if before else None), None
    before = series_runs(engine, key, configurations, to_position=position - 1, limit=1)
    for window in WINDOWS:
        after = series_runs(
            engine,
            key,
            configurations,
            from_position=position + 1,
            to_position=position + window if window else None,
        )
        if after:
            break
    return (before[0] if before else None), (after[0] if after else None)


def load_last_good(engine: Engine, run: Run) -> Run | None:
    """The last good run of the same series before `run`, if `run` itself is bad.

    A run that inherits a pass is as good as the one that passed: the incidents count it too.
    """
    return find_good_before(engine, run) if run.effective_outcome.is_bad else None


def find_good_before(engine: Engine, run: Run) -> Run | None:
    """The last good run of the same series before `run`, whatever became of `run` itself."""
    if run.commit.position is None:
        return None
    key, configurations = series_of(engine, run)
    for limit in (1, *WINDOWS):
        runs = series_runs(
            engine,
            key,
            configurations[:1],
            limit,
            to_position=run.commit.position - 1,
            outcomes=[Outcome.PASSED, Outcome.SKIPPED],
        )
        good = [one for one in runs if one.effective_outcome is Outcome.PASSED]
        if good or limit is None or len(runs) < limit:
            return good[-1] if good else None
    return None


def load_outcomes(engine: Engine, like: Run, hashes: Sequence[str]) -> dict[str, Run]:
    """The runs of some commits in the series of `like`, by hash."""
    key, configurations = series_of(engine, like)
    runs = series_runs(engine, key, configurations, commits=list(hashes))
    return {run.commit.hash: run for run in runs}


def recent_runs(engine: Engine, limit: int = 30) -> tuple[Run, ...]:
    """The newest runs of each series, the most recently started first."""
    runs = [
        run
        for card in list_series(engine)[:MAX_RECENT_SERIES]
        for run in series_runs(engine, card.key, card.configurations, RECENT_OF_SERIES)
    ]
    return tuple(sorted(runs, key=lambda run: run.started_at, reverse=True)[:limit])
