"""What a word of the user's means: a target, a commit, a run, a moment.

A commit is named by its hash or the first digits of it, or else by a branch, a tag or whatever its
repository knows it by.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path

from virnucpro_monitor.analysis.branches import commits_of_branch, merged_by_date
from virnucpro_monitor.analysis.regressions import Bound
from virnucpro_monitor.errors import (
    AmbiguousRevision,
    ConfigurationError,
    NotFoundError,
    RepositoryError,
)
from virnucpro_monitor.records import Commit, Run, Target, short_hash
from virnucpro_monitor.runner.matrix import environments_of
from virnucpro_monitor.runner.sources import is_here, open_source
from virnucpro_monitor.runner.targets import absolute_location
from virnucpro_monitor.runner.venv import is_package
from virnucpro_monitor.settings import load_settings
from virnucpro_monitor.store import reader, series_reader
from virnucpro_monitor.store.engine import Engine

MAX_NAMED = 5
_DAYS = {"d": 1, "w": 7, "y": 365}
_AGE = re.compile(r"(\d{1,5})([dwy])")
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}([T ].+)?")
_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")
_FULL_HASH = re.compile(r"[0-9a-fA-F]{40}|[0-9a-fA-F]{64}")
_NAME = re.compile(r"[\w./@^~{}+-]{1,200}")


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundCommit:
    target: str
    commit: Commit


def choose_target(engine: Engine, wanted: str | None, *, revision: str | None = None) -> Target:
    """The stored target that is meant.

    Args:
        wanted: a name, or the path or URL of the repository.
        revision: without `wanted`, the only target that has this commit.

    Raises:
        NotFoundError: there is none, or `wanted` is not among them.
        ConfigurationError: several could be meant.
    """
    targets = reader.load_targets(engine)
    if wanted is not None:
        return _target_named(targets, wanted)
    if len(targets) > 1:
        # What was never run answers no question, so it leaves none open either.
        targets = [one for one in targets if reader.load_commits(engine, one.name, limit=1)]
    if revision is not None and len(targets) > 1:
        names = {found.target for found in find_commits(engine, revision)}
        if not names:
            raise NotFoundError(
                f"{revision!r} is no commit of any target in the database: give a hash, a branch "
                f"or a tag of {', '.join(target.name for target in targets)}."
            )
        targets = [target for target in targets if target.name in names]
    if not targets:
        raise NotFoundError("Nothing is stored yet: virnucpro-monitor run fills the database.")
    if len(targets) > 1:
        names_text = ", ".join(target.name for target in targets)
        raise ConfigurationError(f"Several targets are stored: choose by --target ({names_text}).")
    return targets[0]


def _target_named(targets: Sequence[Target], wanted: str) -> Target:
    by_name = [target for target in targets if target.name == wanted]
    here = absolute_location(wanted)
    found = by_name or [target for target in targets if target.location in (wanted, here)]
    environments = environments_of(wanted, targets)
    if not found and environments:
        listed = ", ".join(target.name for target in environments)
        raise ConfigurationError(f"{wanted!r} means several environments: name one of {listed}.")
    if not found:
        known = ", ".join(target.name for target in targets) or "none"
        raise NotFoundError(f"There is no target {wanted!r} in the database; known: {known}.")
    return found[0]


def of_target(text: str) -> tuple[str | None, str]:
    """TARGET and REV of "TARGET:REV"; no name of git's for a commit has a colon."""
    name, colon, revision = text.rpartition(":")
    return (name, revision) if colon else (None, text)


def find_commits(engine: Engine, text: str, target: str | None = None) -> tuple[FoundCommit, ...]:
    """The stored commits that a name can mean, in one target or in all.

    A name is looked up in the target's repository where that can be read on this machine, else
    among the branches that were stored with runs. TARGET:NAME is looked for in that target, so that
    the same commit can be named in two environments.
    """
    named_target, text = of_target(text.strip())
    target = named_target or target
    by_hash = [
        FoundCommit(target=name, commit=commit)
        for name, commit in reader.find_commits_of_any_target(engine, text)
        if target in (None, name)
    ]
    if _FULL_HASH.fullmatch(text):
        return tuple(by_hash)
    named = [
        FoundCommit(target=one.name, commit=commit)
        for one in reader.load_targets(engine)
        if target in (None, one.name)
        for commit in _named(engine, one, text)
    ]
    return tuple(named or by_hash)


def find_commit(engine: Engine, text: str, target: Target) -> Commit:
    """The one stored commit of a target that a name means.

    Raises:
        AmbiguousRevision: a short hash fits several.
        NotFoundError: it is not in the database, and not a name in the target's repository.
    """
    found = find_commits(engine, text, target.name)
    if len(found) > 1:
        listed = "; ".join(
            f"{one.commit.short} {one.commit.subject[:50]}" for one in found[:MAX_NAMED]
        )
        raise AmbiguousRevision(
            f"{text!r} fits {len(found)} commits of {target.name}: give more digits ({listed})."
        )
    if found:
        return found[0].commit
    cache_folder = load_settings().cache_folder
    here = _has_repository(target, cache_folder)
    full = _resolve(target, text, cache_folder) if here else None
    if full is None:
        raise NotFoundError(
            f"{text!r} is no commit of {target.name} in the database, and no branch or tag of its "
            "repository."
        )
    raise NotFoundError(
        f"{text!r} is {short_hash(full)}, which has not been validated: "
        f"virnucpro-monitor run --target {target.name} --commit {short_hash(full)} does that."
    )


def _named(engine: Engine, target: Target, text: str) -> list[Commit]:
    """What a name, not the digits of a hash, means in one target: at most one commit."""
    cache_folder = load_settings().cache_folder
    if _has_repository(target, cache_folder):
        try:
            full = _resolve(target, text, cache_folder)
        except AmbiguousRevision:  # digits of commits that need not all be stored
            return []
        if full is None or (full.startswith(text.lower()) and not is_package(target.location)):
            return []
        return reader.find_commits(engine, target.name, full)
    if text in ("HEAD", target.branch):
        return reader.load_commits(engine, target.name, on_branch=True, limit=1)
    tip = _stored_tip(engine, target.name, text)
    return [tip] if tip else []


def _has_repository(target: Target, cache_folder: Path) -> bool:
    return target.adapter != "builtin" and is_here(target, cache_folder)


def _resolve(target: Target, revision: str, cache_folder: Path) -> str | None:
    """A revision's full hash by the target's own repository; None where it knows none.

    Raises:
        AmbiguousRevision: a short hash fits several of its commits.
    """
    if not _NAME.fullmatch(revision):
        return None
    try:
        return open_source(target, cache_folder, fetch=False).resolve(revision)
    except AmbiguousRevision:
        raise
    except (RepositoryError, OSError):
        return None


def _stored_tip(engine: Engine, target: str, branch: str) -> Commit | None:
    """The youngest measured commit that `branch` holds and the followed branch lacks."""
    hashes = commits_of_branch(series_reader.load_branches(engine, target), branch)
    runs = reader.load_runs(engine, target=target, commits=hashes) if hashes else []
    return merged_by_date([], runs)[-1].commit if runs else None


def find_run(
    engine: Engine, text: str, *, target: str | None = None, benchmark: str | None = None
) -> tuple[Run, list[Run]]:
    """The run that a number or a commit means; of several runs of a commit the latest started.

    Returns:
        That run, and the commit's other current ones.

    Raises:
        NotFoundError: there is none.
    """
    if text.isdecimal() and len(text) < 10:
        try:
            return reader.load_run(engine, int(text)), []
        except NotFoundError:
            if len(text) < 4:  # too short to be meant as a hash
                raise
    stored = choose_target(engine, target, revision=text)
    commit = find_commit(engine, text, stored)
    runs = reader.load_runs(engine, target=stored.name, commits=[commit.hash], benchmark=benchmark)
    if not runs:
        raise NotFoundError(f"Commit {commit.short} of {stored.name} has no stored run.")
    latest = max(runs, key=lambda one: (one.started_at, one.row_id))
    return latest, [one for one in runs if one is not latest]


def find_bound(
    engine: Engine,
    text: str | None,
    target: str | None,
    now: datetime,
    *,
    is_end: bool = False,
    zone: tzinfo = UTC,
) -> tuple[Bound | None, str | None]:
    """A bound, and the target whose commit it is. What reads as a date or an age is one.

    Args:
        is_end: a day without a time of day then means its end: the range holds that day.
        zone: of dates without one.
    """
    if text is None:
        return None, None
    moment = parse_moment(text, now, zone)
    if moment is not None:
        if is_end and _DAY.fullmatch(text):
            moment += timedelta(days=1) - timedelta(microseconds=1)
        return moment, None
    stored = choose_target(engine, target, revision=text)
    return find_commit(engine, text, stored), stored.name


def parse_moment(text: str, now: datetime, zone: tzinfo = UTC) -> datetime | None:
    """A date ("2026-11-24", ISO 8601) or an age ("30d", "8w", "1y"); None where it is neither.

    Args:
        zone: of a date that names none.

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
    return (moment if moment.tzinfo else moment.replace(tzinfo=zone)).astimezone(UTC)
