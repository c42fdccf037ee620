"""How far behind the runner of a target is, and when it last spoke."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from virnucpro_monitor.errors import MonitorError
from virnucpro_monitor.monitor.hosts import load_hosts
from virnucpro_monitor.monitor.naming import choose_target
from virnucpro_monitor.monitor.questions import load_flips
from virnucpro_monitor.records import Outcome, Run, Target, WorkHost
from virnucpro_monitor.runner.selection import branch_history
from virnucpro_monitor.runner.sources import open_source
from virnucpro_monitor.settings import load_settings
from virnucpro_monitor.store import health_reader, reader, series_reader
from virnucpro_monitor.store.engine import Engine


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetStatus:
    """What is measured of a target, what is missing, and when its runner last spoke.

    Attributes:
        commits_measured: on the branch, measured or inherited.
        commits_not_measured: on the branch, with nothing but errors or runs that were not run.
        commits_missing: on the branch, without any run.
        flips: of commits whose verdict changed with the same code and set-up, by hash how often.
        commits_behind: on the repository's branch after the last one that was reached; None where
            that cannot be told, of which `repository_problem` says why.
        last_heartbeat, last_state, last_message: what its runner said last; None where none ever
            did.
        last_exit_code, last_finished_at: of the last invocation that ended.
        hosts: where it is measured.
    """

    target: str
    commits_on_branch: int
    commits_measured: int
    commits_not_measured: int
    commits_missing: int
    flips: dict[str, int]
    commits_behind: int | None
    repository_problem: str | None
    last_heartbeat: datetime | None
    last_state: str | None
    last_message: str | None
    last_exit_code: int | None
    last_finished_at: datetime | None
    hosts: tuple[WorkHost, ...] = ()


def load_statuses(engine: Engine, target: str | None = None) -> tuple[TargetStatus, ...]:
    """The status of one target, by name, path or URL, or of all.

    Raises:
        NotFoundError: that target is not in the database.
    """
    targets = [choose_target(engine, target)] if target else reader.load_targets(engine)
    return tuple(load_status(engine, one) for one in targets)


def load_status(engine: Engine, target: Target) -> TargetStatus:
    """The status of one stored target."""
    coverage = series_reader.load_coverage(engine, target.name)
    beats = [one for one in health_reader.load_heartbeats(engine) if one.target == target.name]
    runs = reader.load_runs(engine, target=target.name)
    behind, problem = count_commits_behind(target, reached(runs))
    last = beats[0] if beats else None
    ended = next((one for one in beats if one.finished_at is not None), None)
    return TargetStatus(
        target=target.name,
        commits_on_branch=coverage.num_on_branch,
        commits_measured=coverage.num_measured,
        commits_not_measured=coverage.num_unmeasured,
        commits_missing=coverage.num_missing,
        flips=_flips(engine, runs),
        commits_behind=behind,
        repository_problem=problem,
        last_heartbeat=last.at if last else None,
        last_state=last.state if last else None,
        last_message=last.message if last else None,
        last_exit_code=ended.exit_code if ended else None,
        last_finished_at=ended.finished_at if ended else None,
        hosts=load_hosts(engine, target.name),
    )


def _flips(engine: Engine, runs: Sequence[Run]) -> dict[str, int]:
    """The most in any set-up, by the commit that was measured."""
    found: dict[str, int] = {}
    flips = load_flips(engine, [run for run in runs if run.outcome.has_verdict])
    for run in runs:
        if count := flips.get(run.row_id):
            found[run.commit.hash] = max(count, found.get(run.commit.hash, 0))
    return found


def reached(runs: Iterable[Run]) -> set[str]:
    """Hashes of the commits of which there is a result: what is planned, or waits, has none."""
    return {run.commit.hash for run in runs if run.outcome is not Outcome.NOT_RUN}


def count_commits_behind(target: Target, seen: Collection[str]) -> tuple[int | None, str | None]:
    """Commits on the branch after the last one of these; or why that cannot be told."""
    if target.adapter == "builtin":
        return None, None
    try:
        repository = open_source(target, load_settings().cache_folder)
        history = branch_history(repository, target)
    except MonitorError as error:
        return None, str(error)
    places = [place for place, commit in enumerate(history) if commit in seen]
    return len(history) - (places[-1] + 1 if places else 0), None
