"""Which commits a start of the runner covers."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from virnucpro_monitor.errors import RepositoryError
from virnucpro_monitor.records import Commit, Outcome, Run, Target
from virnucpro_monitor.runner.checkout import Repository


@dataclass(frozen=True, slots=True)
class Selection:
    """Commits to cover, and what the branch looks like.

    Attributes:
        commits: to be covered, oldest first.
        branch: all commits of the watched branch, oldest first.
    """

    commits: tuple[Commit, ...]
    branch: tuple[Commit, ...]


def branch_history(repository: Repository, target: Target) -> tuple[str, ...]:
    """First-parent history of the branch that is watched, oldest first.

    Raises:
        RepositoryError: the branch does not exist, or the repository is empty.
    """
    return repository.history(repository.resolve(target.branch or "HEAD"))


def select_revisions(
    repository: Repository, target: Target, revisions: Sequence[str], *, all_parents: bool = False
) -> Selection:
    """Commits named one by one or as `A..B` (all that B has and A has not, along first parents).

    Raises:
        RepositoryError: an unknown revision, or a range that holds no commit.
    """
    history = branch_history(repository, target)
    hashes: list[str] = []
    for revision in revisions:
        base, dots, tip = revision.partition("..")
        if not dots:
            hashes.append(repository.resolve(revision))
            continue
        found = repository.between(
            repository.resolve(base or "HEAD"),
            repository.resolve(tip.removeprefix(".") or target.branch or "HEAD"),
            first_parent=not all_parents,
        )
        if not found:
            raise RepositoryError(
                f"The range {revision} holds no commit: its first end must come before its second."
            )
        hashes += found
    unique = list(dict.fromkeys(hashes))
    commits = repository.commits(unique, history)
    places = {name: place for place, name in enumerate(history)}
    if all(commit.hash in places for commit in commits):
        commits = tuple(sorted(commits, key=lambda commit: places[commit.hash]))
    return Selection(commits, repository.commits(history, history))


def select_new(repository: Repository, target: Target, known: Collection[Run]) -> Selection:
    """Commits since the last one that has a run, and those that were left out before.

    Where nothing was measured yet, that is the branch's last commit alone.
    """
    history = branch_history(repository, target)
    places = {name: place for place, name in enumerate(history)}
    seen = [places[run.commit.hash] for run in known if run.commit.hash in places]
    start = max(seen) + 1 if seen else len(history) - 1
    settled = {run.commit.hash for run in known if run.outcome is not Outcome.NOT_RUN}
    left_out = {
        run.commit.hash
        for run in known
        if run.outcome is Outcome.NOT_RUN and run.commit.hash in places
    } - settled
    branch = repository.commits(history, history)
    chosen = tuple(
        commit for place, commit in enumerate(branch) if place >= start or commit.hash in left_out
    )
    return Selection(chosen, branch)
