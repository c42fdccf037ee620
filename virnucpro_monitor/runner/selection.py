"""Which commits a start of the runner covers."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from virnucpro_monitor.errors import AmbiguousRevision, RepositoryError
from virnucpro_monitor.records import Commit, Outcome, Run, Target, short_hash
from virnucpro_monitor.runner.folders import Folder
from virnucpro_monitor.runner.sources import Source

MIN_HASH_DIGITS = 4


@dataclass(frozen=True, slots=True)
class Selection:
    """Commits to cover, and what the branch looks like.

    Attributes:
        commits: to be covered, oldest first.
        branch: all commits of the watched branch, oldest first.
        note: what a person should know about the choice; empty if nothing.
    """

    commits: tuple[Commit, ...]
    branch: tuple[Commit, ...]
    note: str = ""


def branch_history(repository: Source, target: Target) -> tuple[str, ...]:
    """First-parent history of the branch that is watched, oldest first.

    Raises:
        RepositoryError: the branch does not exist, or the repository is empty.
    """
    return repository.history(repository.resolve_branch(target.branch))


def select_revisions(
    repository: Source, target: Target, revisions: Sequence[str], *, all_parents: bool = False
) -> Selection:
    """Commits named one by one or as `A..B` (all that B has and A has not, along first parents).

    Raises:
        RepositoryError: an unknown revision, or a range that holds no commit.
    """
    history = branch_history(repository, target)
    places = {name: place for place, name in enumerate(history)}
    hashes: list[str] = []
    notes: list[str] = []
    for revision in revisions:
        base, dots, tip = revision.partition("..")
        if not dots:
            hashes.append(_find(repository, revision, history, notes))
            continue
        end = tip.removeprefix(".")
        first = _find(repository, base or "HEAD", history, notes)
        last = _find(repository, end, history, notes) if end else history[-1]
        if first in places and last in places and not all_parents:
            found = history[places[first] + 1 : places[last] + 1]
        else:
            found = repository.between(first, last, first_parent=not all_parents)
        if not found:
            raise RepositoryError(
                f"The range {revision} holds no commit: its first end must come before its second."
            )
        hashes += found
    unique = list(dict.fromkeys(hashes))
    commits = repository.commits(unique, history)
    if all(commit.hash in places for commit in commits):
        commits = tuple(sorted(commits, key=lambda commit: places[commit.hash]))
    return Selection(commits, repository.commits(history, history), " ".join(notes))


def _find(repository: Source, revision: str, history: Sequence[str], notes: list[str]) -> str:
    """As `Repository.resolve`, but a commit of the branch is found even where it is damaged."""
    try:
        return repository.resolve(revision, notes.append)
    except AmbiguousRevision:
        raise
    except RepositoryError:
        matches = [name for name in history if name.startswith(revision.lower())]
        if len(revision) < MIN_HASH_DIGITS or len(matches) != 1:
            raise
        return matches[0]


def select_new(
    repository: Source, target: Target, known: Mapping[str, Collection[Run]]
) -> Selection:
    """Commits since the last one that has a run, and those that were left out before.

    Args:
        known: earlier runs of each series that is watched, by the series' name. A commit that one
            of them lacks is chosen. A series without any run begins at the branch's last commit.
    """
    history = branch_history(repository, target)
    places = {name: place for place, name in enumerate(history)}
    branch = repository.commits(history, history)
    chosen: set[int] = set()
    for runs in known.values():
        there = [run for run in runs if run.commit.hash in places]
        seen = [places[run.commit.hash] for run in there]
        chosen.update(range(max(seen) + 1 if seen else len(history) - 1, len(history)))
        settled = {run.commit.hash for run in there if run.outcome is not Outcome.NOT_RUN}
        chosen.update(places[run.commit.hash] for run in there if run.commit.hash not in settled)
    notes = []
    if chosen and isinstance(repository, Folder):
        first = repository.back_at(history[-1])
        notes += [f"The folder is back at {short_hash(first)}."] if first else []
    begun = [name for name, runs in known.items() if not runs and len(history) > 1]
    if begun:
        notes.append(
            f"Nothing of {' and '.join(begun)} was measured in this configuration before: "
            f"beginning at the branch's last commit. Its whole history, {len(history)} commits: "
            f"--all"
        )
    return Selection(tuple(branch[place] for place in sorted(chosen)), branch, " ".join(notes))
