"""Runs of commits that the followed branch lacks, set into its history. Pure."""

from collections.abc import Collection, Mapping, Sequence

from virnucpro_monitor.analysis.series import commit_date
from virnucpro_monitor.records import Run

Branches = Mapping[str, Sequence[str]]
"""The branches that hold a commit, by its full hash."""


def branch_names(branches: Branches) -> list[str]:
    """All names, sorted."""
    return sorted({name for names in branches.values() for name in names})


def commits_of_branch(branches: Branches, branch: str) -> list[str]:
    """The commits that `branch` holds, by full hash."""
    return [commit for commit, names in branches.items() if branch in names]


def first_parents_outside(runs: Sequence[Run]) -> list[str]:
    """Where the runs' commits left another line: first parents that are not among the commits."""
    own = {run.commit.hash for run in runs}
    parents = {run.commit.parents[0]: None for run in runs if run.commit.parents}
    return [parent for parent in parents if parent not in own]


def merged_by_date(followed: Sequence[Run], others: Collection[Run]) -> list[Run]:
    """`followed` in its own order, each of `others` before the first commit that is younger."""
    waiting = sorted(others, key=commit_date, reverse=True)
    merged = []
    for run in followed:
        while waiting and commit_date(waiting[-1]) < commit_date(run):
            merged.append(waiting.pop())
        merged.append(run)
    return [*merged, *reversed(waiting)]
