"""`virnucpro-monitor targets`: the repositories that are watched."""

from __future__ import annotations

import getpass
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from virnucpro_monitor.cli.adapter import TRIAL_DEFAULTS, describe_trial
from virnucpro_monitor.cli.incidents import WhoOption
from virnucpro_monitor.cli.options import DatabaseOption, JsonOption, print_json, say
from virnucpro_monitor.errors import ConfigurationError, MonitorError, TargetError
from virnucpro_monitor.records import Target
from virnucpro_monitor.report.text import visible
from virnucpro_monitor.secrecy import masked_url
from virnucpro_monitor.settings import Settings, load_settings

if TYPE_CHECKING:
    from virnucpro_monitor.monitor.targets import TargetFindings
    from virnucpro_monitor.monitor.trying import Trial


def register(app: typer.Typer) -> None:
    group = typer.Typer(help="The repositories that are watched.", no_args_is_help=True)
    group.command("list")(list_targets)
    group.command("add")(add)
    group.command("check")(check)
    group.command("policy")(policy)
    group.command("remove")(remove)
    app.add_typer(group, name="targets")


def list_targets(db: DatabaseOption = None, as_json: JsonOption = False) -> None:
    """List stored targets and those of the settings file."""
    from virnucpro_monitor.monitor.targets import known_targets

    found = known_targets(load_settings(db=db), lambda problem: say(f"Left out: {problem}"))
    known = [replace(one, location=masked_url(one.location)) for one in found]
    if as_json:
        print_json(known)
        return
    if not known:
        say("No targets yet: virnucpro-monitor targets add NAME PATH|URL")
    for one in known:
        parts = [one.name, one.location, one.adapter]
        parts += [f"package {one.package}"] if one.package else []
        parts += [f"paths {' '.join(one.paths)}"] if one.paths else []
        of_package = one.location.startswith("pypi:")
        parts += [f"{'releases' if of_package else 'branch'} {one.branch}"] if one.branch else []
        if one.requirements:
            parts.append(f"with {' '.join(one.requirements.splitlines())}")
        typer.echo("  ".join(parts))


def add(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What the target is called.")],
    location: Annotated[
        str,
        typer.Argument(
            metavar="PATH|URL|pypi:NAME|folder:PATH",
            help="Its git repository, a package of an index, or a folder's content as it is.",
        ),
    ],
    adapter: Annotated[
        str | None,
        typer.Option(
            "--adapter",
            metavar="NAME",
            help="A name of adapter list, module:callable, or file.py:callable of the repository; "
            "by default what its pyproject.toml names.",
        ),
    ] = None,
    package: Annotated[
        str | None, typer.Option("--package", metavar="NAME", help="Import root of its package.")
    ] = None,
    paths: Annotated[
        list[str] | None,
        typer.Option("--paths", metavar="PATH", help="What decides a result; several times."),
    ] = None,
    branch: Annotated[
        str | None, typer.Option("--branch", metavar="NAME", help="The branch to follow.")
    ] = None,
    requirements: Annotated[
        str | None,
        typer.Option("--requirements", metavar="FILE", help="Requirement file in the repository."),
    ] = None,
    releases: Annotated[
        str | None,
        typer.Option("--releases", metavar="RANGE", help="Of a package, as in '>=4.53'."),
    ] = None,
    extra: Annotated[
        list[str] | None,
        typer.Option(
            "--with",
            metavar="REQUIREMENT",
            help="Installed with each commit or release; several times.",
        ),
    ] = None,
    matrix: Annotated[
        list[str] | None,
        typer.Option(
            "--matrix",
            metavar="NAME=VERSIONS",
            help="One series for each environment, as in torch=2.10.0,2.14.1; several times.",
        ),
    ] = None,
    oracle: Annotated[
        str | None,
        typer.Option(
            "--oracle",
            metavar="NAME",
            help="What both sides are held against: fair-esm, self-fp64, hf:MODEL@VERSION, "
            "file:PATH or none; by default what the adapter is for.",
        ),
    ] = None,
    tried: Annotated[
        bool,
        typer.Option("--check/--no-check", help="Try the adapter on the last commit first."),
    ] = True,
    db: DatabaseOption = None,
) -> None:
    """Store a target, once its repository can be read. The same name again changes it.

    Another adapter than seed-interface is tried first, as adapter check does, and nothing is stored
    where it cannot be loaded. Says so where the last commit lacks VirNucPro's interface: that is
    stored all the same.
    """
    from virnucpro_monitor.monitor.targets import in_environments

    settings = load_settings(defaults=TRIAL_DEFAULTS, db=db)
    if location.startswith("pypi:"):
        if branch or requirements or paths:
            raise ConfigurationError(
                "A package has releases instead of branches, paths and requirement files: name "
                "them by --releases, and what is installed with each by --with."
            )
        branch = releases
    elif releases:
        raise ConfigurationError("--releases belongs to a package: name it pypi:NAME.")
    target = Target(
        name=name,
        location=location,
        adapter=adapter or "seed-interface",
        package=package,
        paths=tuple(paths or ()),
        branch=branch,
        requirements=requirements,
    )
    for one in in_environments(target, extra or (), matrix or ()):
        _store(settings, one, own_adapter=adapter is None, oracle=oracle, tried=tried)


def _store(
    settings: Settings, target: Target, *, own_adapter: bool, oracle: str | None, tried: bool
) -> None:
    from virnucpro_monitor.monitor.targets import look_at, store_target
    from virnucpro_monitor.report.text import count

    name, branch = target.name, target.branch
    try:
        number = store_target(
            settings,
            target,
            say,
            on_trial=_say_trial if tried else None,
            own_adapter=own_adapter,
            oracle=oracle,
        )
    except TargetError as error:
        raise TargetError(
            f"{name} is not stored: {error} (--no-check stores it as it is.)"
        ) from error
    if target.location.startswith("pypi:"):
        say(f"Stored {name}: {count(number, 'release')}{f' {branch}' if branch else ''}.")
    elif target.location.startswith("folder:"):
        say(f"Stored {name}: {count(number, 'content')} seen.")
    else:
        say(f"Stored {name}: {count(number, 'commit')} on {branch or 'its main branch'}.")
    try:
        look_at(settings, target)
    except MonitorError as error:
        say(f"Warning: it is stored, but its last commit cannot be measured as it is: {error}")


def _say_trial(trial: Trial) -> None:
    for line in describe_trial(trial):
        say(line)


def check(
    target: Annotated[str, typer.Argument(metavar="NAME|PATH", help="The target to look at.")],
    commit: Annotated[
        str | None, typer.Option("--commit", metavar="REV", help="Look at this commit.")
    ] = None,
    package: Annotated[
        str | None, typer.Option("--package", metavar="NAME", help="Import root of its package.")
    ] = None,
    db: DatabaseOption = None,
) -> None:
    """Look whether a target can be read and has the interface, without running its code."""
    from virnucpro_monitor.monitor.running import find_run_target
    from virnucpro_monitor.monitor.targets import look_at

    settings = load_settings(db=db)
    chosen = find_run_target(settings, target, package)
    found = look_at(settings, chosen, commit)
    if found is None:
        typer.echo(f"{chosen.name}: this package's own model, as it is installed.")
        return
    for line in describe_findings(chosen, found):
        typer.echo(line)


def describe_findings(target: Target, found: TargetFindings) -> list[str]:
    """What a look at a target found, one line each."""
    from virnucpro_monitor.report.text import count

    branch = target.branch or "its main branch"
    lines = [
        f"repository  {masked_url(target.location)}",
        f"branch      {branch}, {count(found.num_commits, 'commit')}",
        f"commit      {found.commit.short} {found.commit.subject}",
        *(f"path        {path}, {count(number, 'file')}" for path, number in found.num_files),
        *([f"note        {found.note}"] if found.note else []),
    ]
    if found.adapter is not None:
        return [*lines, f"adapter     {found.adapter}"]
    return [
        *lines,
        f"package     {found.package}",
        f"model       {found.loader}",
        f"collator    {found.collator}",
    ]


def policy(
    target: Annotated[str, typer.Argument(metavar="NAME", help="A stored target.")],
    inform: Annotated[
        list[str] | None,
        typer.Option(
            "--inform",
            metavar="GATE",
            help="Let this gate inform: runs do not fail; may be given several times.",
        ),
    ] = None,
    fail: Annotated[
        list[str] | None,
        typer.Option(
            "--fail", metavar="GATE", help="Let it fail runs again; may be given several times."
        ),
    ] = None,
    why: Annotated[str, typer.Option("--why", metavar="TEXT", help="The reason.")] = "",
    who: WhoOption = None,
    db: DatabaseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show which gates inform for a target and do not fail it, or change that.

    A change holds from the next run on. It is part of the protocol's digest: runs on either side of
    it are not compared without saying so, and each verdict names the gate, who said so and why.
    """
    from virnucpro_monitor.monitor import policies
    from virnucpro_monitor.monitor.opening import open_database
    from virnucpro_monitor.validation.policy import check_rule

    if inform and fail:
        raise ConfigurationError("--inform and --fail are opposites: give one of them.")
    changes = bool(inform or fail)
    with open_database(load_settings(db=db).database_url, read_only=not changes) as engine:
        name = getpass.getuser() if who is None else who
        for gate in inform or ():  # all or none
            check_rule(gate, name, why)
        for gate in inform or ():
            rule = policies.let_inform(engine, target, gate, who=name, why=why)
            say(f"From its next run on, the gate {gate} informs for {rule.target}.")
        for gate in fail or ():
            policies.let_fail(engine, target, gate, who=name)
            say(f"From its next run on, the gate {gate} fails {target} again.")
        rules = policies.list_policy(engine, target, withdrawn=True)
    if as_json:
        print_json(rules)
        return
    if all(rule.withdrawn_at for rule in rules):
        say("Every gate fails this target.")
    for rule in rules:
        taken = rule.withdrawn_at
        until = f", taken back {taken:%Y-%m-%d} by {rule.withdrawn_by}" if taken else ""
        typer.echo(
            f"{rule.gate} {'informed' if taken else 'informs'}, says {visible(rule.who)} since "
            f"{rule.created_at:%Y-%m-%d}{until}: {visible(rule.why)}"
        )


def remove(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The target to delete.")],
    yes: Annotated[
        bool, typer.Option("--yes", help="Delete without asking, with all its results.")
    ] = False,
    db: DatabaseOption = None,
) -> None:
    """Delete a target and everything that was measured of it."""
    from virnucpro_monitor.monitor.opening import open_database
    from virnucpro_monitor.monitor.reading import load_target
    from virnucpro_monitor.monitor.targets import delete_target

    settings = load_settings(db=db)
    if not yes:
        with open_database(settings.database_url) as engine:
            load_target(engine, name)
        raise MonitorError(f"This deletes {name} with all its results: say so by --yes.")
    delete_target(settings, name)
    say(f"Deleted {name}.")
