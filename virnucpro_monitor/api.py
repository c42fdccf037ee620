"""The monitor for notebooks and other programs: what the command line does, as functions.

Everything here is handed on to `virnucpro_monitor.monitor`; records come back as they are stored.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from virnucpro_monitor.analysis.incidents import Incident, IncidentState
from virnucpro_monitor.analysis.regressions import Regressions
from virnucpro_monitor.errors import ClosedMonitor, ConfigurationError, MissingDatabase
from virnucpro_monitor.monitor import (
    acknowledging,
    comparing,
    naming,
    policies,
    questions,
    reading,
    status,
    stored_runs,
)
from virnucpro_monitor.monitor.bisecting import (
    WHOLE_VERDICT,
    BisectOptions,
    as_measured_last,
    bisect_and_store,
    only_stored_repository,
)
from virnucpro_monitor.monitor.comparing import CommitComparison
from virnucpro_monitor.monitor.opening import (
    Engine,
    ensure_database,
    open_database,
    open_for_reading,
)
from virnucpro_monitor.monitor.running import (
    LAST_COMMIT,
    SILENT,
    Listener,
    RunOptions,
    find_run_target,
    stream_runs,
)
from virnucpro_monitor.monitor.status import TargetStatus
from virnucpro_monitor.monitor.stored_runs import RunDetails
from virnucpro_monitor.records import (
    Acknowledgement,
    Bisection,
    PolicyRule,
    Run,
    SequenceResult,
    Target,
)
from virnucpro_monitor.report.values import run_values
from virnucpro_monitor.settings import Settings, load_settings

if TYPE_CHECKING:
    import pandas as pd

_MOMENTS = ("committed_at", "started_at")


def open_monitor(db: str | Path | None = None, *, create: bool = False) -> "Monitor":
    """Open the monitor on a database; use it in a `with` block, or close it.

    Args:
        db: an SQLAlchemy URL, or the path of an SQLite file; None for what the settings say.
        create: make an SQLite file that is not there yet.

    Raises:
        MissingDatabase: there is none, and `create` was not asked for.
        StoreError: its schema is another program version's, or it cannot be read.
    """
    if isinstance(db, Path) or (db and "://" not in db):
        db = f"sqlite:///{Path(db).expanduser().absolute()}"
    url = load_settings(db=db).database_url
    if create:
        ensure_database(url)
    try:
        return Monitor(url, open_for_reading(url))
    except MissingDatabase as error:
        raise MissingDatabase(f"{error} open_monitor(..., create=True) makes one.") from error


class Monitor:
    """An open database and what can be asked of it. Any number may be open in one process.

    It reads through a connection that cannot write, and opens one that can for what it is told to
    store. Made by `open_monitor`.
    """

    def __init__(self, url: str, engine: Engine) -> None:
        self.url = url
        self._open_engine: Engine | None = engine

    def __enter__(self) -> "Monitor":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the database. A second time does nothing."""
        if self._open_engine is not None:
            self._open_engine.dispose()
        self._open_engine = None

    @property
    def _engine(self) -> Engine:
        if self._open_engine is None:
            raise ClosedMonitor("This monitor is closed: open_monitor() opens it again.")
        return self._open_engine

    def targets(self) -> list[Target]:
        """All stored targets, by name."""
        return reading.load_targets(self._engine)

    def runs(
        self,
        *,
        target: str | None = None,
        benchmark: str | None = None,
        outcomes: Iterable[str] | None = None,
        limit: int | None = None,
        all_attempts: bool = False,
    ) -> list[Run]:
        """Stored runs, oldest commit first.

        Args:
            target: a name, or the path or URL of the repository.
            benchmark: a set's name, or "name@version".
            outcomes: such as ["failed", "error"].
            limit: only the newest commits' runs, so many.
            all_attempts: also runs that later ones replaced.

        Raises:
            NotFoundError: there is no such target.
            ConfigurationError: no such outcome, or a limit below 1.
        """
        return stored_runs.list_runs(
            self._engine,
            target=target,
            benchmark=benchmark,
            outcomes=outcomes,
            limit=limit,
            all_attempts=all_attempts,
        )

    def runs_frame(
        self,
        *,
        target: str | None = None,
        benchmark: str | None = None,
        outcomes: Iterable[str] | None = None,
        limit: int | None = None,
        all_attempts: bool = False,
    ) -> "pd.DataFrame":
        """`runs` as a table: a row for each run, the columns that `runs list --json` names.

        Moments are UTC. The gates become two columns each: `gate_NAME`, whether it held (None
        where it was not judged), and `gate_NAME_value`.
        """
        import pandas as pd

        runs = self.runs(
            target=target,
            benchmark=benchmark,
            outcomes=outcomes,
            limit=limit,
            all_attempts=all_attempts,
        )
        rows = []
        for run in runs:
            row = run_values(run)
            for name, gate in row.pop("gates").items():
                row[f"gate_{name}"] = gate["passed"]
                row[f"gate_{name}_value"] = gate["value"]
            rows.append(row)
        frame = pd.DataFrame(rows)
        for name in _MOMENTS:
            if name in frame:
                frame[name] = pd.to_datetime(frame[name], utc=True, format="ISO8601")
        return frame

    def find_run(
        self, run: int | str, *, target: str | None = None, benchmark: str | None = None
    ) -> Run:
        """The run that a number or a commit means; of a commit's several the latest started.

        Raises:
            NotFoundError: there is none.
            AmbiguousRevision: a short hash fits several commits.
        """
        found, _ = naming.find_run(self._engine, str(run), target=target, benchmark=benchmark)
        return found

    def details(
        self, run: int | str, *, target: str | None = None, benchmark: str | None = None
    ) -> RunDetails:
        """All that is stored of the run that a number or a commit means: its oracle, its
        sequences, the verdicts of all attempts, its failure.

        Raises:
            NotFoundError: there is none.
            AmbiguousRevision: a short hash fits several commits.
        """
        return stored_runs.load_details(self._engine, str(run), target=target, benchmark=benchmark)

    def policy(self, target: str, *, withdrawn: bool = False) -> list[PolicyRule]:
        """Which gates inform for a target and do not fail it, who said so and why, oldest first.

        Args:
            withdrawn: also rules that were taken back.

        Raises:
            NotFoundError: there is no such target.
        """
        return policies.list_policy(self._engine, target, withdrawn=withdrawn)

    def sequences(self, run: Run) -> list[SequenceResult]:
        """The per-sequence results that stand for a run: a skipped one's are those it inherits."""
        return questions.load_measured(self._engine, run)[1]

    def compare(
        self, base: str, head: str, *, target: str | None = None, benchmark: str | None = None
    ) -> CommitComparison:
        """Compare two commits, in every way in which both were measured.

        Args:
            base, head: a hash or its first digits, a branch, a tag.

        Raises:
            AmbiguousRevision: a short hash fits several commits.
            NotFoundError: a commit has no stored run, or the two have no benchmark in common.
            ConfigurationError: several targets could be meant.
        """
        return comparing.compare_commits(
            self._engine, base, head, target=target, benchmark=benchmark
        )

    def regressions(
        self,
        since: str | None = None,
        until: str | None = None,
        *,
        target: str | None = None,
        benchmark: str | None = None,
    ) -> Regressions:
        """What broke after `since`, up to and with `until`: commits, dates or ages ("30d")."""
        return questions.load_regressions(
            self._engine, since=since, until=until, target=target, benchmark=benchmark
        )

    def incidents(
        self, *, target: str | None = None, benchmark: str | None = None, state: str | None = None
    ) -> list[Incident]:
        """Stretches of bad runs with one cause, oldest first.

        Args:
            state: "open", "acknowledged", "not_seen", "rewritten" or "fixed"; None for all.

        Raises:
            NotFoundError: there is no such target.
            ConfigurationError: no such state.
        """
        wanted = None if state is None else _state(state)
        found = questions.load_incidents(
            self._engine, target=self._target_name(target), benchmark=benchmark
        )
        return [incident for incident in found if wanted in (None, incident.state)]

    def acknowledge(
        self,
        incident: str,
        *,
        who: str,
        why: str,
        scope: str = "",
        expires_at: datetime | None = None,
        reopen_if_worse_than: float | None = None,
    ) -> Incident:
        """Say that an incident is known; returns it as it stands then.

        Args:
            incident: its key, or the key's first digits.
            scope: what it covers, in your words; the target's name covers every incident that the
                same commit began there.
            expires_at: until when it holds, with a time zone; None: until it is taken back.
            reopen_if_worse_than: an error 1 - cos above which a later run reopens the incident.

        Raises:
            NotFoundError: there is no such incident.
            ConfigurationError: it is fixed, `who` or `why` is empty, or the time lies in the past
                or has no zone.
        """
        note = Acknowledgement(
            incident=incident,
            who=who.strip(),
            why=why.strip(),
            scope=scope.strip(),
            created_at=datetime.now(UTC),
            expires_at=expires_at,
            reopen_if_worse_than=reopen_if_worse_than,
        )
        with self._writable() as engine:
            return acknowledging.acknowledge(engine, note)

    def reopen(self, incident: str, *, who: str) -> Incident:
        """Take an incident's acknowledgement back; returns the incident as it stands then.

        Raises:
            NotFoundError: there is no such incident, or it is not acknowledged.
        """
        with self._writable() as engine:
            return acknowledging.reopen(engine, incident, who=who.strip())[0]

    def bisections(self, *, target: str | None = None) -> list[Bisection]:
        """Past and running searches for a first bad commit, the latest started last."""
        return list(questions.load_bisections(self._engine, self._target_name(target)))

    def status(self, *, target: str | None = None) -> list[TargetStatus]:
        """What is measured of each target, what is missing, and when its runner last spoke."""
        return list(status.load_statuses(self._engine, target))

    def run(
        self,
        target: str | None = None,
        options: RunOptions = LAST_COMMIT,
        *,
        package: str | None = None,
        listener: Listener = SILENT,
        **settings: Any,
    ) -> Iterator[Run]:
        """Validate commits of a target; yields each run once it is stored.

        Nothing is measured before the first run is asked for, and no more once the iterator is
        closed.

        Args:
            target: a name, or the path or URL of a repository; None for this package's own model.
            options: which commits, by default the branch's last, and how.
            package: import root, where it is to be named.
            listener: is told of progress and messages.
            settings: such as `device="cpu"`, in place of what environment and file say.

        Raises:
            MonitorError: nothing could be run at all; nothing is stored then.
        """
        own = self._settings(settings)
        return stream_runs(own, find_run_target(own, target, package), options, listener)

    def bisect(
        self,
        good: str,
        bad: str,
        target: str | None = None,
        options: BisectOptions = WHOLE_VERDICT,
        *,
        package: str | None = None,
        listener: Listener = SILENT,
        **settings: Any,
    ) -> Bisection:
        """Find the first bad commit, or, where `bad` is the older one, the one that mended it.

        Args:
            target: None for the only stored repository.
            settings: as of `run`; what is set nowhere is as in the target's newest stored run.

        Raises:
            RepositoryError: the commits are not on one line.
            ConfigurationError: `good` is not good, or `bad` is not bad.
        """
        own = self._settings(settings)
        chosen = find_run_target(own, target or only_stored_repository(own, good), package)
        return bisect_and_store(as_measured_last(own, chosen), chosen, good, bad, options, listener)

    def _settings(self, own: Mapping[str, Any]) -> Settings:
        _ = self._engine  # a closed monitor starts nothing
        if "db" in own:
            raise ConfigurationError(
                "A monitor writes to the database that it was opened on: open_monitor() on another."
            )
        return load_settings(db=self.url, **own)

    def _writable(self) -> AbstractContextManager[Engine]:
        """A connection that can write, for the time of one act."""
        _ = self._engine
        return open_database(self.url, read_only=False)

    def _target_name(self, target: str | None) -> str | None:
        return None if target is None else naming.choose_target(self._engine, target).name


def _state(name: str) -> IncidentState:
    try:
        return IncidentState(name)
    except ValueError as error:
        known = ", ".join(state.value for state in IncidentState)
        raise ConfigurationError(f"{error}: a state is one of {known}.") from error
