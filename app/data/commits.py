"""Targets and commits: what a hash, a branch or a tag means."""

import re
from dataclasses import dataclass
from pathlib import Path

from app.data.database import database_url, engine, kept
from virnucpro_monitor.analysis.branches import Branches, commits_of_branch, merged_by_date
from virnucpro_monitor.errors import NotFoundError, RepositoryError
from virnucpro_monitor.records import Commit, Run, Target
from virnucpro_monitor.settings import load_settings
from virnucpro_monitor.store import reader, summaries


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundCommit:
    target: str
    commit: Commit


def find_commits(text: str, target: str | None) -> list[FoundCommit]:
    """The commits that a hash, the beginning of one, a branch or a tag can mean.

    A branch or tag is looked up in the target's repository where that lies on this machine, else
    among the branches that were stored with runs.
    """
    if target is None:
        found = reader.find_commits_of_any_target(engine(), text)
    else:
        try:
            found = [(target, commit) for commit in reader.find_commits(engine(), target, text)]
        except NotFoundError:
            return []
    if not found:
        found = _find_by_name(text, target)
    exact = [entry for entry in found if entry[1].hash == text.lower()]
    return [FoundCommit(target=name, commit=commit) for name, commit in exact or found]


def _find_by_name(text: str, wanted: str | None) -> list[tuple[str, Commit]]:
    found = []
    for target in load_targets():
        if wanted is not None and target.name != wanted:
            continue
        if text in ("HEAD", target.branch):
            tips = reader.load_commits(engine(), target.name, on_branch=True, limit=1)
        else:
            revision = _resolve(target, text) or _find_branch_tip(target.name, text)
            tips = reader.find_commits(engine(), target.name, revision) if revision else []
        found += [(target.name, commit) for commit in tips]
    return found


def _resolve(target: Target, revision: str) -> str | None:
    """A revision's full hash by the target's own repository, if that is a folder here."""
    if not re.fullmatch(r"[\w./@^~-]{1,200}", revision) or not Path(target.location).is_dir():
        return None
    from virnucpro_monitor.runner.checkout import Repository

    try:
        repository = Repository.open(target.location, load_settings().cache_folder, fetch=False)
        return repository.resolve(revision)
    except (RepositoryError, OSError):
        return None


def _find_branch_tip(target: str, branch: str) -> str | None:
    """The youngest measured commit that `branch` holds and the followed branch lacks."""
    hashes = commits_of_branch(load_commit_branches(target), branch)
    runs = reader.load_runs(engine(), target=target, commits=hashes) if hashes else []
    return merged_by_date([], runs)[-1].commit.hash if runs else None


def load_commit_branches(target: str) -> Branches:
    """The branches of the measured commits that a target's followed branch lacks."""
    return _load_commit_branches(database_url(), target)


@kept()
def _load_commit_branches(url: str, target: str) -> Branches:
    return summaries.load_branches(engine(), target)


def load_targets() -> list[Target]:
    return _load_targets(database_url())


@kept()
def _load_targets(url: str) -> list[Target]:
    return reader.load_targets(engine())


def load_target(name: str) -> Target | None:
    return next((target for target in load_targets() if target.name == name), None)


@kept()
def _load_commits(url: str, target: str) -> list[Commit]:
    return reader.load_commits(engine(), target, on_branch=True)


def load_commits(target: str) -> list[Commit]:
    """The commits on a target's branch, oldest first."""
    return _load_commits(database_url(), target)


def load_commits_between(base: Run, head: Run, limit: int) -> list[Commit]:
    """Commits after the older of two up to and with the newer, oldest first, at most `limit`."""
    places = sorted((run.commit.position is None, run.commit.position or 0) for run in (base, head))
    if places[1][0]:
        return []
    first, last = places[0][1], places[1][1]
    return [
        commit
        for commit in load_commits(head.target)
        if commit.position is not None and first < commit.position <= last
    ][:limit]


def diff_address(target: str, base: str, head: str) -> str | None:
    """The web page of the difference, where the target's repository is on a known kind of host."""
    known = load_target(target)
    return diff_pattern(known.location, base, head) if known else None


def diff_pattern(location: str, base: str, head: str) -> str | None:
    """The address of a difference between two commits of the repository at `location`."""
    match = re.fullmatch(
        r"(?:https?://(?:[^/@]*@)?([\w.-]+)/|(?:ssh://)?git@([\w.-]+)[:/])([\w./-]+?)(?:\.git)?/?",
        location,
    )
    if match is None:
        return None
    host = match[1] or match[2]
    middle = "/-/compare/" if "gitlab" in host else "/compare/"
    return f"https://{host}/{match[3]}{middle}{base}...{head}"
