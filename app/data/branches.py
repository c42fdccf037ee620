"""The runs of one branch, or of all: those of the followed branch come with their series."""

from dataclasses import astuple
from datetime import datetime

from app.data.commits import load_commit_branches, load_target
from app.data.database import database_url, engine, kept
from app.data.series import SeriesCard, load_series_runs, load_stored_runs
from virnucpro_monitor.analysis.branches import (
    branch_names,
    commits_of_branch,
    first_parents_outside,
    merged_by_date,
)
from virnucpro_monitor.records import Run
from virnucpro_monitor.store import reader

EVERY_BRANCH = "*"  # git allows no such name
MAX_BRANCHES = 200


def load_branches(target: str) -> dict[str, str]:
    """What the reader can choose, with its label: "" is the followed branch, the first one."""
    known = load_target(target)
    followed = known.branch if known and known.branch else "Followed branch"
    names = branch_names(load_commit_branches(target))[:MAX_BRANCHES]
    return {"": followed, **{name: name for name in names}, EVERY_BRANCH: "All commits"}


def load_branch_runs(card: SeriesCard, branch: str, limit: int | None) -> tuple[Run, ...]:
    """The newest so many runs of a series on `branch`, oldest first.

    Args:
        branch: "" for the followed one, `EVERY_BRANCH` for its commits and all others by date, or
            a name: what only that branch holds, behind what the followed one had when it left.
    """
    if not branch:
        followed = load_series_runs(card, limit)
        return tuple(run for run in followed if run.commit.on_branch)
    return _load_branch_runs(database_url(), astuple(card.key), branch, limit, card)


Bound = int | datetime
"""An end of a range: a commit's place in the history, or a moment."""


def load_runs_between(card: SeriesCard, start: Bound | None, end: Bound | None) -> tuple[Run, ...]:
    """The runs of a series on the followed branch from `start` to `end`, both included.

    Where no commit of a range of moments has a date, all runs: git knows none of them.
    """
    return _load_runs_between(database_url(), astuple(card.key), start, end, card)


@kept()
def _load_runs_between(
    url: str,
    key: tuple[object, ...],
    start: Bound | None,
    end: Bound | None,
    _card: SeriesCard,
) -> tuple[Run, ...]:
    conditions: dict[str, Bound] = {}
    if start is not None:
        conditions["from_position" if isinstance(start, int) else "since"] = start
    if end is not None:
        conditions["to_position" if isinstance(end, int) else "until"] = end
    runs = load_stored_runs(_card, on_branch=True, **conditions)
    return tuple(runs) or load_branch_runs(_card, "", None)


@kept()
def _load_branch_runs(
    url: str, key: tuple[object, ...], branch: str, limit: int | None, _card: SeriesCard
) -> tuple[Run, ...]:
    card = _card
    if branch == EVERY_BRANCH:
        followed = load_branch_runs(card, "", limit)
        merged = merged_by_date(followed, load_stored_runs(card, on_branch=False, limit=limit))
        return tuple(merged[-limit:] if limit else merged)
    hashes = commits_of_branch(load_commit_branches(card.key.target), branch)
    own = load_stored_runs(card, on_branch=False, commits=hashes, limit=limit) if hashes else []
    own = merged_by_date([], own)
    left_at = max(
        (
            commit.position
            for parent in first_parents_outside(own)
            for commit in reader.find_commits(engine(), card.key.target, parent)
            if commit.position is not None
        ),
        default=None,
    )
    room = None if limit is None else limit - len(own)
    if left_at is None or room == 0:
        return tuple(own)
    before = load_stored_runs(card, on_branch=True, to_position=left_at, limit=room)
    return (*before, *own)
