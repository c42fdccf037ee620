"""The runs of one branch, or of all: those of the followed branch come with their series."""

from datetime import datetime
from typing import Any

from virnucpro_monitor.analysis.branches import (
    Branches,
    branch_names,
    commits_of_branch,
    first_parents_outside,
    merged_by_date,
)
from virnucpro_monitor.monitor.histories import SeriesCard, series_runs
from virnucpro_monitor.records import Run
from virnucpro_monitor.store import reader, series_reader
from virnucpro_monitor.store.engine import Engine

EVERY_BRANCH = "*"  # git allows no such name
MAX_BRANCHES = 200

Place = int | datetime
"""An end of a range: a commit's place in the history, or a moment."""


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
    engine: Engine, card: SeriesCard, start: Place | None, end: Place | None
) -> tuple[Run, ...]:
    """The runs of a series on the followed branch from `start` to `end`, both included.

    Where no commit of a range of moments has a date, all runs: git knows none of them.
    """
    conditions: dict[str, Any] = {}
    if start is not None:
        conditions["from_position" if isinstance(start, int) else "since"] = start
    if end is not None:
        conditions["to_position" if isinstance(end, int) else "until"] = end
    runs = series_runs(engine, card.key, card.configurations, on_branch=True, **conditions)
    return tuple(runs) or branch_runs(engine, card, "")
