"""The repositories that are watched: listed, stored, looked at and deleted."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from virnucpro_monitor.errors import ConfigurationError
from virnucpro_monitor.monitor.opening import open_database
from virnucpro_monitor.monitor.policies import policy_of
from virnucpro_monitor.monitor.running import stored_targets, with_own_adapter
from virnucpro_monitor.monitor.sink import Sink
from virnucpro_monitor.monitor.trying import Trial, check_file_of, check_target
from virnucpro_monitor.records import Commit, Target, short_hash
from virnucpro_monitor.runner.adapter_names import is_plain, with_oracle
from virnucpro_monitor.runner.builtin import BUILTIN
from virnucpro_monitor.runner.code_digest import covers
from virnucpro_monitor.runner.interface import find_names
from virnucpro_monitor.runner.matrix import with_environments, with_requirements
from virnucpro_monitor.runner.passwords import forget_password, keep_password
from virnucpro_monitor.runner.releases import check_words
from virnucpro_monitor.runner.selection import branch_history
from virnucpro_monitor.runner.sources import open_source
from virnucpro_monitor.runner.targets import absolute_location, check_name, read_targets
from virnucpro_monitor.runner.venv import requirement_file
from virnucpro_monitor.secrecy import masked_url
from virnucpro_monitor.settings import Settings
from virnucpro_monitor.store.anchors import Anchors
from virnucpro_monitor.store.reader import load_target, load_targets
from virnucpro_monitor.store.writer import Writer


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetFindings:
    """What a target's repository has, at one commit. Nothing of its code was run.

    Attributes:
        num_commits: on the branch that is watched.
        note: what a checkout had to leave out; empty if nothing.
        num_files: files that each of the target's paths covers.
        package, loader, collator: where the interface stands, as importable names; None where an
            adapter of its own loads the target.
        adapter: that one, which the commit's pyproject.toml may name; else None.
    """

    num_commits: int
    commit: Commit
    note: str
    num_files: tuple[tuple[str, int], ...]
    package: str | None = None
    loader: str | None = None
    collator: str | None = None
    adapter: str | None = None


def known_targets(settings: Settings, on_problem: Callable[[str], object]) -> list[Target]:
    """Stored targets and those of the settings file, by name.

    Args:
        on_problem: receives a sentence for each target of the file that cannot be used.
    """
    in_file = read_targets(on_problem=lambda _, error: on_problem(str(error)))
    known = {one.name: one for one in (*stored_targets(settings), *in_file)}
    return [known[name] for name in sorted(known)]


def in_environments(
    target: Target, extra: Sequence[str], matrix: Sequence[str]
) -> tuple[Target, ...]:
    """A target with what is installed with each commit; one for each environment of a matrix.

    Args:
        extra: requirements, as in "torch==2.13.0".
        matrix: packages with versions, as in "torch=2.10.0,2.14.1"; all combinations are made.

    Raises:
        ConfigurationError: something is not well formed.
    """
    return with_environments(with_requirements(target, extra), matrix)


def store_target(
    settings: Settings,
    target: Target,
    say: Callable[[str], None],
    *,
    on_trial: Callable[[Trial], object] | None = None,
    own_adapter: bool = False,
    oracle: str | None = None,
) -> int:
    """Store a target once its repository can be read; returns its branch's number of commits.

    The same name again changes it.

    Args:
        own_adapter: take the adapter that the last commit's pyproject.toml names, if it does.
        oracle: what the target is held against; None for what its adapter is by default.
        on_trial: given for an adapter that is to be tried first on the branch's last commit, in
            that commit's environment; receives what came of it.

    Raises:
        ConfigurationError: its name cannot be one.
        RepositoryError: the repository or the branch is not there.
        TargetError: it was tried, and cannot be loaded.
        WeightsError: its oracle is a file that cannot be one.
    """
    if target.name == BUILTIN:
        raise ConfigurationError("The name 'builtin' stands for this package's own model.")
    check_name(target.name)
    target = replace(
        target,
        location=absolute_location(target.location),
        adapter=with_oracle(target.adapter, oracle),
    )
    check_words(target)
    repository = open_source(target, settings.cache_folder)
    history = branch_history(repository, target)
    if own_adapter:
        target = with_own_adapter(target, repository, say)
    check_file_of(target.adapter)
    if on_trial is not None and not is_plain(target.adapter, "seed-interface"):
        (commit,) = repository.commits([history[-1]], history)
        on_trial(check_target(settings, target, repository, commit, say))
    keep_password(target.location, say)
    former = [one for one in stored_targets(settings) if one.name == target.name]
    with Sink(settings.database_url, target, say=say) as sink:
        sink.writer.save_target(sink.target)
    if former and former[0].location != target.location:
        _say_policy(settings, former[0], say)
    return len(history)


def _say_policy(settings: Settings, former: Target, say: Callable[[str], None]) -> None:
    """Say which gates inform for a target whose location is another one now."""
    gates = [rule.gate for rule in policy_of(settings.database_url, former.name)]
    if gates:
        say(
            f"{former.name} was {masked_url(former.location)}, and what was said of that one still "
            f"holds: {', '.join(gates)} only inform; targets policy {former.name} --fail GATE "
            f"takes it back."
        )


def look_at(settings: Settings, target: Target, commit: str | None = None) -> TargetFindings | None:
    """Whether a commit of a target has the interface and what the target names; not run.

    Args:
        commit: None for the branch's last.

    Returns:
        None for the built-in target, which has no repository.

    Raises:
        MonitorError: what is missing, in one sentence.
    """
    if target.adapter == "builtin":
        return None
    repository = open_source(target, settings.cache_folder)
    history = branch_history(repository, target)
    full = repository.resolve(commit) if commit else history[-1]
    if replace(target, location=absolute_location(target.location)) not in stored_targets(settings):
        target = with_own_adapter(target, repository, lambda _: None)  # as a start takes it
    files = repository.files(full)
    num_files = tuple(
        (pattern, sum(covers(pattern, path) for path in files)) for pattern in target.paths
    )
    for pattern, number in num_files:
        if not number:
            raise ConfigurationError(f"The path {pattern!r} covers no file of {short_hash(full)}.")
    needed = requirement_file(target)
    if needed and needed not in files:
        raise ConfigurationError(f"The requirement file {needed!r} is not in {short_hash(full)}.")
    with repository.checkout(full) as (folder, note):
        found = TargetFindings(
            num_commits=len(history),
            commit=repository.commits([full])[0],
            note=note,
            num_files=num_files,
        )
        if not is_plain(target.adapter, "seed-interface"):
            return replace(found, adapter=target.adapter)
        names = find_names(folder, target.package)
        return replace(
            found,
            package=names.package,
            loader=f"{names.loader_module}.load_esm2_model",
            collator=f"{names.collator_module}.VarlenCollator",
        )


def delete_target(settings: Settings, name: str) -> None:
    """Delete a stored target with all that was measured of it.

    Raises:
        NotFoundError: there is none of that name.
    """
    with open_database(settings.database_url, read_only=False) as engine:
        location = load_target(engine, name).location
        Writer(engine).delete_target(name)
        with suppress(OSError):
            Anchors(settings.database_url).forget(name)
        if location not in {one.location for one in load_targets(engine)}:
            forget_password(location)
