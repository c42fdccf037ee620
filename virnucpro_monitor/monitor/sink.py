"""Where a start's reports go: the database, its heartbeats and its locks."""

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import TracebackType

from virnucpro_monitor.disks import explain
from virnucpro_monitor.errors import DatabaseAway, LockedError, MissingDatabase, MonitorError
from virnucpro_monitor.host.lock import file_lock, lease, lock_path
from virnucpro_monitor.monitor.verifying import require_founded
from virnucpro_monitor.records import ClusterHost, Commit, Run, RunReport, Target
from virnucpro_monitor.runner.selection import Selection
from virnucpro_monitor.secrecy import masked
from virnucpro_monitor.settings import Settings
from virnucpro_monitor.store.anchors import Anchors
from virnucpro_monitor.store.connection import reading
from virnucpro_monitor.store.engine import Engine, ensure_database, open_engine
from virnucpro_monitor.store.owners import new_owner
from virnucpro_monitor.store.reader import load_commits, load_runs
from virnucpro_monitor.store.retrying import PATIENCE_S
from virnucpro_monitor.store.spool import Spool, spool_folder
from virnucpro_monitor.store.writer import Writer

INTERRUPTED = "Interrupted; what was stored so far is kept."
INTERRUPTED_CODE = 130

Say = Callable[[str], None]


class Sink:
    """Stores one target's reports. A missing SQLite file is made when there is something to store.

    Args:
        say: receives what a person should know.
        heartbeat: whether this is the target's runner, which says what it does and how it ended.
            A start by hand says nothing there: its mistakes are no word of the runner's.
        patience_s: how long a database that is away is waited for.
    """

    def __init__(
        self,
        url: str,
        target: Target,
        *,
        say: Say,
        heartbeat: bool = False,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self._patience_s = patience_s
        self._url = url
        self.target = target
        self._say = say
        self._heartbeat = heartbeat
        self._engine: Engine | None = None
        self._spool = Spool(spool_folder(url))
        self._anchors = Anchors(url)
        self._open_commits: set[str] = set()
        self._cluster: tuple[ClusterHost, ...] | None = None

    def __enter__(self) -> "Sink":
        self._open()
        if self._engine is None and not self._url.startswith("sqlite"):
            open_engine(self._url)  # only SQLite is created by itself: let the error say how
        return self

    def _open(self) -> None:
        """Open the database, if it is there."""
        with suppress(MissingDatabase):
            self._engine = open_engine(self._url)
            self._replay(self.writer)  # before anybody asks what has been measured
            self._anchor()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._engine is None:
            return
        if error is not None and not isinstance(error, LockedError):
            message = f"{error!r}"
            if isinstance(error, MonitorError):
                message = str(error)
            elif isinstance(error, (KeyboardInterrupt, GeneratorExit)):
                message = INTERRUPTED
            code = error.exit_code if isinstance(error, MonitorError) else INTERRUPTED_CODE
            with suppress(MonitorError):  # the first error is the one to tell
                self._beat("finished", message, exit_code=code)
        self._engine.dispose()

    @property
    def engine(self) -> Engine:
        if self._engine is None:
            if ensure_database(self._url):
                self._say(f"Created the database {self._url}.")
            self._engine = open_engine(self._url)
        return self._engine

    @property
    def writer(self) -> Writer:
        return Writer(self.engine, patience_s=self._patience_s, on_wait=self._say)

    def known_runs(self) -> list[Run]:
        """The target's current runs, oldest commit first."""
        if self._engine is None:
            self._open()  # a start that was waited for may have made it
        return load_runs(self._engine, target=self.target.name) if self._engine else []

    def begin(self, selection: Selection) -> None:
        """Store the target and the watched part of its branch."""
        writer = self.writer
        writer.save_target(self.target)
        watched = watched_part(
            selection.branch, [*load_commits(self.engine, self.target.name), *selection.commits]
        )
        gone = writer.save_commits(self.target.name, watched, whole_history=True)
        if gone:
            self._say(
                f"The branch was rewritten: {gone} commits are no longer on it; "
                f"their results are kept."
            )
        self._open_commits = {commit.hash for commit in selection.commits}
        self._beat("running", f"{len(selection.commits)} commits to cover")

    def save(self, report: RunReport) -> int | None:
        """Store one report whole, and return the run's id.

        None where the database is away: the report waits in a file then, and is stored by the next
        call, or the next start, that finds the database again.

        Raises:
            StoreError: its verdict does not follow from its measures, or it cannot be stored.
        """
        require_founded(report)
        # Who waits behind others has waited already.
        writer = Writer(self.engine, patience_s=0) if len(self._spool) else self.writer
        try:
            self._replay(writer)
            run_id = writer.save_run(report)
        except DatabaseAway as error:
            self._spool.keep(report)
            self._say(
                f"{error} The result of {report.run.commit.short} waits in a file until then."
            )
            return None
        self._anchor()
        self._open_commits.discard(report.run.commit.hash)
        self._beat("running", f"{report.run.commit.short} {report.run.outcome}")
        return run_id

    def _replay(self, writer: Writer) -> None:
        stored = self._spool.replay(writer, self._say)
        if stored:
            self._say(f"The database is back: {stored} waiting results were stored.")

    def _anchor(self) -> None:
        """Note what is stored by now where who can write the database cannot."""
        try:
            with reading(self.engine) as connection:
                self._anchors.note(connection)
        except OSError as error:
            why = explain(error, self._anchors.path)
            self._say(f"What was stored could not be noted for later checks: {why}")
        except DatabaseAway:
            pass  # the next look notes it

    def note_hosts(self, hosts: tuple[ClusterHost, ...]) -> None:
        """Take where the cluster now measures; told with the next heartbeat."""
        self._cluster = hosts

    def end(self, exit_code: int, message: str) -> None:
        """Say how the start ended, as the last word of the target's runner."""
        self._open_commits = set()
        if self._engine is not None:
            self._beat("finished", message, exit_code=exit_code)

    def _beat(self, state: str, message: str, *, exit_code: int | None = None) -> None:
        if not self._heartbeat:
            return
        with suppress(DatabaseAway):  # what was measured is told when it is stored
            Writer(self.engine, patience_s=0).heartbeat(
                socket.gethostname(),
                self.target.name,
                state,
                masked(message),
                num_queued=len(self._open_commits),
                exit_code=exit_code,
                cluster=self._cluster,
            )


def watched_part(branch: tuple[Commit, ...], of_interest: list[Commit]) -> tuple[Commit, ...]:
    """The branch from the first commit on that is stored or asked for."""
    wanted = {commit.hash for commit in of_interest}
    start = next((i for i, commit in enumerate(branch) if commit.hash in wanted), len(branch))
    return branch[start:]


@contextmanager
def holding_locks(settings: Settings, sink: Sink, *, wait_s: float, on_wait: Say) -> Iterator[None]:
    """Hold the right to run this target: on this host, and across hosts that share a server."""
    path = lock_path(settings.database_url, sink.target.name)
    with file_lock(path, wait_s=wait_s, on_wait=on_wait):
        if settings.database_url.startswith("sqlite"):
            yield
            return
        writer = sink.writer

        def release(name: str, owner: str) -> None:
            with suppress(DatabaseAway):  # it runs out, and this host sees that we have ended
                Writer(sink.engine, patience_s=0).release_lease(name, owner)

        with lease(
            f"run {sink.target.name}",
            writer.acquire_lease,
            release,
            owner=new_owner(),
            wait_s=wait_s,
            on_wait=on_wait,
        ):
            yield
