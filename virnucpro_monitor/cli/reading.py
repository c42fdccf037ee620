"""What the reading commands share: the database, a target, a commit, a moment."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from virnucpro_monitor.errors import (
    AmbiguousRevision,
    ConfigurationError,
    NotFoundError,
    RepositoryError,
)
from virnucpro_monitor.records import Commit, Outcome, Run, SequenceResult, Target
from virnucpro_monitor.settings import Settings, load_settings

if TYPE_CHECKING:
    from virnucpro_monitor.analysis.incidents import Incident
    from virnucpro_monitor.store.engine import Engine

_DAYS = {"d": 1, "w": 7, "y": 365}
_AGE = re.compile(r"(\d{1,5})([dwy])")
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}([T ].+)?")


@contextmanager
def open_database(db: str | None, *, read_only: bool = True) -> Iterator["Engine"]:
    """The database that `--db` or the settings name; closed afterwards."""
    from virnucpro_monitor.store.engine import open_engine

    engine = open_engine(load_settings(db=db).database_url, read_only=read_only)
    try:
        yield engine
    finally:
        engine.dispose()


def choose_target(engine: "Engine", wanted: str | None, revision: str | None = None) -> Target:
    """The stored target that is meant.

    Args:
        wanted: a name, or the path or URL of the repository.
        revision: without `wanted`, the only target that has this commit.

    Raises:
        NotFoundError: there is none, or `wanted` is not among them.
        ConfigurationError: several could be meant.
    """
    from virnucpro_monitor.store.reader import find_commits_of_any_target, load_targets

    targets = load_targets(engine)
    if wanted is not None:
        return _target_named(targets, wanted)
    if revision is not None and len(targets) > 1:
        names = {name for name, _ in find_commits_of_any_target(engine, revision)}
        targets = [target for target in targets if target.name in names] or targets
    if not targets:
        raise NotFoundError("Nothing is stored yet: virnucpro-monitor run fills the database.")
    if len(targets) > 1:
        names_text = ", ".join(target.name for target in targets)
        raise ConfigurationError(f"Several targets are stored: choose by --target ({names_text}).")
    return targets[0]


def _target_named(targets: Sequence[Target], wanted: str) -> Target:
    from virnucpro_monitor.runner.targets import absolute_location

    by_name = [target for target in targets if target.name == wanted]
    here = absolute_location(wanted)
    found = by_name or [target for target in targets if target.location in (wanted, here)]
    if not found:
        known = ", ".join(target.name for target in targets) or "none"
        raise NotFoundError(f"There is no target {wanted!r} in the database; known: {known}.")
    return found[0]


def find_commit(engine: "Engine", target: Target, revision: str, settings: Settings) -> Commit:
    """The stored commit that a full or short hash, a branch or a tag means.

    Raises:
        AmbiguousRevision: a short hash fits several.
        NotFoundError: it is not in the database, and not a name in the target's repository.
    """
    from virnucpro_monitor.store.reader import find_commits

    found = find_commits(engine, target.name, revision)
    if len(found) > 1:
        listed = "; ".join(f"{commit.hash[:12]} {commit.subject[:50]}" for commit in found[:5])
        raise AmbiguousRevision(
            f"{revision!r} fits {len(found)} commits of {target.name}: give more digits ({listed})."
        )
    if found:
        return found[0]
    full = _resolve_in_repository(target, revision, settings)
    found = find_commits(engine, target.name, full)
    if not found:
        raise NotFoundError(
            f"{revision!r} is {full[:12]}, which has not been validated: "
            f"virnucpro-monitor run --target {target.name} --commit {full[:12]} does that."
        )
    return found[0]


def _resolve_in_repository(target: Target, revision: str, settings: Settings) -> str:
    from virnucpro_monitor.runner.checkout import Repository

    unknown = NotFoundError(
        f"{revision!r} is no commit of {target.name} in the database, and no branch or tag of its "
        "repository."
    )
    if target.adapter == "builtin":
        raise unknown
    try:
        repository = Repository.open(target.location, settings.cache_folder, fetch=False)
        return repository.resolve(revision)
    except AmbiguousRevision:
        raise
    except RepositoryError as error:
        raise unknown from error


def find_run(
    engine: "Engine", text: str, target: str | None, benchmark: str | None
) -> tuple[Run, list[Run]]:
    """The run that a number or a commit means; of several runs of a commit the latest started.

    Returns:
        That run, and the commit's other current ones.

    Raises:
        NotFoundError: there is none.
    """
    from virnucpro_monitor.store.reader import load_run, load_runs

    if text.isdecimal() and len(text) < 10:
        try:
            return load_run(engine, int(text)), []
        except NotFoundError:
            if len(text) < 4:  # too short to be meant as a hash
                raise
    stored = choose_target(engine, target, revision=text)
    commit = find_commit(engine, stored, text, load_settings())
    runs = load_runs(engine, target=stored.name, commits=[commit.hash], benchmark=benchmark)
    if not runs:
        raise NotFoundError(f"Commit {commit.hash[:12]} of {stored.name} has no stored run.")
    latest = max(runs, key=lambda one: (one.started_at, one.id or 0))
    return latest, [one for one in runs if one is not latest]


def parse_moment(text: str, now: datetime) -> datetime | None:
    """A date ("2026-11-24", ISO 8601) or an age ("30d", "8w", "1y"); None where it is neither.

    Without a zone it is UTC.

    Raises:
        ConfigurationError: it looks like a date and is none.
    """
    age = _AGE.fullmatch(text)
    if age:
        return now - timedelta(days=int(age[1]) * _DAYS[age[2]])
    if not _DATE.fullmatch(text):
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise ConfigurationError(f"{text!r} is not a date: write 2026-11-24.") from error
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def measured_run(engine: "Engine", run: Run) -> Run:
    """The run whose measures stand for `run`: for a skipped one, the run that it inherits from.

    Where that run is gone, `run` itself, which then has no sequences.
    """
    from virnucpro_monitor.store.reader import load_runs

    if run.outcome is not Outcome.SKIPPED or run.inherited_from is None:
        return run
    candidates = load_runs(
        engine,
        target=run.target,
        benchmark=f"{run.benchmark}@{run.benchmark_version}",
        configuration=run.configuration.digest,
        commits=[run.inherited_from],
    )
    return next((one for one in candidates if one.outcome is not Outcome.SKIPPED), run)


def load_measured(engine: "Engine", run: Run) -> tuple[Run, list[SequenceResult]]:
    """The run that was measured, and its per-sequence results."""
    from virnucpro_monitor.store.reader import load_sequences

    measured = measured_run(engine, run)
    return measured, [] if measured.id is None else load_sequences(engine, measured.id)


def load_incidents(
    engine: "Engine", *, target: str | None = None, benchmark: str | None = None
) -> tuple[list[Run], "list[Incident]"]:
    """Current runs, and the incidents that follow from them now."""
    from virnucpro_monitor.analysis.incidents import derive_incidents
    from virnucpro_monitor.store.reader import load_runs
    from virnucpro_monitor.store.summaries import load_acknowledgements

    runs = load_runs(engine, target=target, benchmark=benchmark)
    acknowledgements = load_acknowledgements(engine, withdrawn=True)
    return runs, derive_incidents(runs, acknowledgements, now=datetime.now(UTC))
