"""`virnucpro-monitor targets`: the repositories that are watched."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import typer

from virnucpro_monitor.cli.options import DatabaseOption, JsonOption, print_json, say
from virnucpro_monitor.errors import ConfigurationError, MonitorError
from virnucpro_monitor.records import Target, short_hash
from virnucpro_monitor.secrecy import masked_url
from virnucpro_monitor.settings import Settings, load_settings


def register(app: typer.Typer) -> None:
    group = typer.Typer(help="The repositories that are watched.", no_args_is_help=True)
    group.command("list")(list_targets)
    group.command("add")(add)
    group.command("check")(check)
    group.command("remove")(remove)
    app.add_typer(group, name="targets")


def list_targets(db: DatabaseOption = None, as_json: JsonOption = False) -> None:
    """List stored targets and those of the settings file."""
    from virnucpro_monitor.monitor.running import stored_targets
    from virnucpro_monitor.runner.targets import read_targets

    in_file = read_targets(on_problem=lambda _, error: say(f"Left out: {error}"))
    known = {one.name: one for one in (*stored_targets(load_settings(db=db)), *in_file)}
    if as_json:
        shown = [replace(one, location=masked_url(one.location)) for one in known.values()]
        print_json(sorted(shown, key=lambda one: one.name))
        return
    if not known:
        say("No targets yet: virnucpro-monitor targets add NAME PATH|URL")
    for name in sorted(known):
        one = known[name]
        parts = [name, masked_url(one.location), one.adapter]
        parts += [f"package {one.package}"] if one.package else []
        parts += [f"paths {' '.join(one.paths)}"] if one.paths else []
        parts += [f"branch {one.branch}"] if one.branch else []
        typer.echo("  ".join(parts))


def add(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What the target is called.")],
    location: Annotated[str, typer.Argument(metavar="PATH|URL", help="Its git repository.")],
    adapter: Annotated[
        str,
        typer.Option("--adapter", metavar="NAME", help="seed-interface, or module:callable."),
    ] = "seed-interface",
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
    db: DatabaseOption = None,
) -> None:
    """Store a target, once its repository can be read. The same name again changes it.

    Says so where its last commit lacks the interface: it is stored all the same.
    """
    from virnucpro_monitor.monitor.sink import Sink
    from virnucpro_monitor.report.text import count
    from virnucpro_monitor.runner.builtin import BUILTIN
    from virnucpro_monitor.runner.checkout import Repository
    from virnucpro_monitor.runner.selection import branch_history
    from virnucpro_monitor.runner.targets import absolute_location, check_name

    if name == BUILTIN:
        raise ConfigurationError("The name 'builtin' stands for this package's own model.")
    settings = load_settings(db=db)
    target = Target(
        name=check_name(name),
        location=absolute_location(location),
        adapter=adapter,
        package=package,
        paths=tuple(paths or ()),
        branch=branch,
        requirements=requirements,
    )
    history = branch_history(Repository.open(target.location, settings.cache_folder), target)
    with Sink(settings.database_url, target, say=say) as sink:
        sink.writer.save_target(target)
    where = branch or "its main branch"
    say(f"Stored {name}: {count(len(history), 'commit')} on {where}.")
    try:
        describe_target(settings, target)
    except MonitorError as error:
        say(f"Warning: it is stored, but its last commit cannot be measured as it is: {error}")


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

    settings = load_settings(db=db)
    for line in describe_target(settings, find_run_target(settings, target, package), commit):
        typer.echo(line)


def describe_target(settings: Settings, target: Target, commit: str | None = None) -> list[str]:
    """What was found, one line each.

    Raises:
        MonitorError: what is missing, in one sentence.
    """
    from virnucpro_monitor.report.text import count
    from virnucpro_monitor.runner.checkout import Repository
    from virnucpro_monitor.runner.code_digest import covers
    from virnucpro_monitor.runner.interface import find_names
    from virnucpro_monitor.runner.selection import branch_history

    if target.adapter == "builtin":
        return [f"{target.name}: this package's own model, as it is installed."]
    repository = Repository.open(target.location, settings.cache_folder)
    history = branch_history(repository, target)
    full = repository.resolve(commit) if commit else history[-1]
    lines = [
        f"repository  {masked_url(target.location)}",
        f"branch      {target.branch or 'its main branch'}, {count(len(history), 'commit')}",
        f"commit      {short_hash(full)} {repository.commits([full])[0].subject}",
    ]
    files = repository.files(full)
    for pattern in target.paths:
        covered = sum(covers(pattern, path) for path in files)
        if not covered:
            raise ConfigurationError(f"The path {pattern!r} covers no file of {short_hash(full)}.")
        lines.append(f"path        {pattern}, {covered} files")
    if target.requirements and target.requirements not in files:
        raise ConfigurationError(
            f"The requirement file {target.requirements!r} is not in {short_hash(full)}."
        )
    with repository.checkout(full) as (folder, note):
        lines += [f"note        {note}"] if note else []
        if target.adapter == "seed-interface":
            names = find_names(folder, target.package)
            lines += [
                f"package     {names.package}",
                f"model       {names.loader_module}.load_esm2_model",
                f"collator    {names.collator_module}.VarlenCollator",
            ]
        else:
            lines.append(f"adapter     {target.adapter}")
    return lines


def remove(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The target to delete.")],
    yes: Annotated[
        bool, typer.Option("--yes", help="Delete without asking, with all its results.")
    ] = False,
    db: DatabaseOption = None,
) -> None:
    """Delete a target and everything that was measured of it."""
    from virnucpro_monitor.store.engine import open_engine
    from virnucpro_monitor.store.reader import load_target
    from virnucpro_monitor.store.writer import Writer

    engine = open_engine(load_settings(db=db).database_url)
    try:
        load_target(engine, name)
        if not yes:
            raise MonitorError(f"This deletes {name} with all its results: say so by --yes.")
        Writer(engine).delete_target(name)
    finally:
        engine.dispose()
    say(f"Deleted {name}.")
