"""The runs of one branch, or of all: those of the followed branch come with their series."""

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from virnucpro_monitor.analysis.branches import (
    Branches,
    branch_names,
    commits_of_branch,
    first_parents_outside,
    merged_by_date,
)
from virnucpro_monitor.analysis.regressions import Bound, is_after
from virnucpro_monitor.analysis.series import commit_date
from virnucpro_monitor.monitor.histories import SeriesCard, series_runs
from virnucpro_monitor.records import Run
from virnucpro_monitor.store import reader, series_reader
from virnucpro_monitor.store.engine import Engine

EVERY_BRANCH = "*"  # git allows no such name
MAX_BRANCHES = 200


def load_branches(engine: Engine, target: str) -> dict[str, str]:
    """What a reader can choose, with its label: "" is the followed branch, the first one."""
    known = next((one for one in reader.load_targets(engine) if one.name == target), None)
    if known is None:
        return {}
    names = branch_names(series_reader.load_branches(engine, target))[:MAX_BRANCHES]
    followed = known.branch or "Followed branch"
    return {"": followed, **{name: name for name in names}, EVERY_BRANCH: "All commits"}


def branch_runs(
    engine: Engine, card: SeriesCard, branch: str, limit: int | None = None
) -> tuple[Run, ...]:
    """The newest so many runs of a series on `branch`, oldest first.

    Args:
        branch: "" for the followed one, `EVERY_BRANCH` for its commits and all others by date, or
            a name: what only that branch holds, behind what the followed one had when it left.
    """
    key, configurations = card.key, card.configurations
    if not branch or branch == EVERY_BRANCH:
        runs = series_runs(engine, key, configurations, limit)
        followed = [run for run in runs if run.commit.on_branch]
        if not branch:
            return tuple(followed)
        others = series_runs(engine, key, configurations, limit, on_branch=False)
        merged = merged_by_date(followed, others)
        return tuple(merged[-limit:] if limit else merged)
    stored: Branches = series_reader.load_branches(engine, key.target)
    hashes = commits_of_branch(stored, branch)
    own = (
        series_runs(engine, key, configurations, limit, on_branch=False, commits=hashes)
        if hashes
        else []
    )
    own = merged_by_date([], own)
    left_at = max(
        (
            commit.position
            for parent in first_parents_outside(own)
            for commit in reader.find_commits(engine, key.target, parent)
            if commit.position is not None
        ),
        default=None,
    )
    room = None if limit is None else limit - len(own)
    if left_at is None or room == 0:
        return tuple(own)
    before = series_runs(engine, key, configurations, room, on_branch=True, to_position=left_at)
    return (*before, *own)


def runs_between(
    engine: Engine, card: SeriesCard, start: Bound | None, end: Bound | None
) -> tuple[Run, ...]:
    """The runs of a series on the followed branch from `start` to `end`, both included.

    Commits without a date of their own count by when they were run.
    """
    conditions: dict[str, Any] = {}
    for bound, place, moment in (
        (start, "from_position", "since"),
        (end, "to_position", "until"),
    ):
        if isinstance(bound, datetime):
            conditions[moment] = bound
        elif bound is not None and bound.position is not None:
            conditions[place] = bound.position
    runs = series_runs(engine, card.key, card.configurations, on_branch=True, **conditions)
    return runs_within(runs or branch_runs(engine, card, ""), start, end)


def runs_within(runs: Iterable[Run], start: Bound | None, end: Bound | None) -> tuple[Run, ...]:
    """Those of `runs` whose commits lie from `start` to `end`, both included."""
    return tuple(
        run
        for run in runs
        if (start is None or _is_at(run, start) or is_after(run, start))
        and (end is None or _is_at(run, end) or not is_after(run, end))
    )


def _is_at(run: Run, bound: Bound) -> bool:
    if isinstance(bound, datetime):
        return commit_date(run) == bound
    return run.commit.hash == bound.hash
