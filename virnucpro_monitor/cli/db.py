"""`virnucpro-monitor db`: create, upgrade, check, back up, copy, prune the database, make roles.

Nothing else changes a schema.
"""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer

from virnucpro_monitor.cli.options import DatabaseOption, JsonOption, print_json, say
from virnucpro_monitor.settings import load_settings

group = typer.Typer(
    help="The database: create, upgrade, check, backup, copy, roles, prune.", no_args_is_help=True
)


def register(app: typer.Typer) -> None:
    app.add_typer(group, name="db")


@group.command("create")
def create(db: DatabaseOption = None) -> None:
    """Create an SQLite file, or the tables in an existing PostgreSQL database.

    An example: virnucpro-monitor db create --db postgresql://monitor@host/monitor
    """
    from virnucpro_monitor.monitor.databases import create_database, database_name

    url = load_settings(db=db).database_url
    create_database(url)
    say(f"Created the database {database_name(url)}.")


@group.command("upgrade")
def upgrade(db: DatabaseOption = None) -> None:
    """Bring an older database up to this program's schema; an SQLite file is copied first."""
    from virnucpro_monitor.monitor.databases import database_name, upgrade_database

    url = load_settings(db=db).database_url
    done = upgrade_database(url)
    name = database_name(url)
    if done.from_revision == done.to_revision:
        say(f"The database {name} is up to date: schema {done.to_revision}.")
        return
    say(f"Upgraded the database {name} from schema {done.from_revision} to {done.to_revision}.")
    if done.backup is not None:
        say(f"As it was before: {done.backup}")


@group.command("check")
def check(
    db: DatabaseOption = None,
    as_json: JsonOption = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print problems only.")] = False,
) -> None:
    """Compare schema, foreign keys, integrity and row counts with what they should be.

    Takes the digest of every run again and follows the chain of each series, so that a result that
    was changed, inserted or removed is found, and judges each again from its measures. "history" is
    one digest of all of it: note it elsewhere, and you see later whether what came before is still
    the same. A host that runs commits notes each run that it sees ("anchored"): who can write the
    database alone cannot rewrite those unseen.

    Reads every row and writes none. Exit code 1 where something is wrong.
    """
    from virnucpro_monitor.monitor.verifying import check_everything

    found = check_everything(load_settings(db=db).database_url)
    if as_json:
        print_json(found)
    elif not quiet:
        typer.echo(f"database  {found.database}")
        typer.echo(f"schema    {found.schema_revision}")
        typer.echo(f"history   {found.fingerprint or 'no runs'}")
        typer.echo(f"anchored  {found.num_anchored:,} runs, as this host saw them stored")
        typer.echo(f"size      {found.database_bytes / 2**20:.1f} MiB")
        for table, number in found.row_counts.items():
            typer.echo(f"{number:>12,}  {table}")
    for problem in found.problems:
        say(problem)
    if found.problems:
        raise typer.Exit(1)
    if not as_json and not quiet:
        typer.echo("Nothing is wrong.")


@group.command("backup")
def backup(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A new SQLite file.")],
    db: DatabaseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Copy the database into a new file, while others go on reading and writing.

    A plain copy of a file that is in use can be empty. To restore, name the backup by --db or put
    it where the database was; a backup of PostgreSQL is an SQLite file, which `db copy` brings
    back.
    """
    from virnucpro_monitor.monitor.databases import back_up_database

    copied = back_up_database(load_settings(db=db).database_url, file)
    if as_json:
        print_json(copied)
    else:
        say(f"Backed up {copied.num_runs:,} runs ({copied.num_rows:,} rows) to {copied.database}.")


@group.command("copy")
def copy(
    to: Annotated[str, typer.Argument(metavar="URL", help="The new database's URL.")],
    db: DatabaseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Copy everything into another, empty database, from SQLite to PostgreSQL or back.

    Every run of the copy is compared with its source by its digest before the copy counts.

    An example: virnucpro-monitor db copy postgresql://monitor@host/monitor
    """
    from virnucpro_monitor.monitor.databases import copy_database

    copied = copy_database(load_settings(db=db).database_url, to)
    if as_json:
        print_json(copied)
    else:
        say(
            f"Copied {copied.num_runs:,} runs ({copied.num_rows:,} rows) to {copied.database}, "
            "each with the digest of its source."
        )


@group.command("roles")
def roles(
    prefix: Annotated[
        str, typer.Option("--prefix", metavar="NAME", help="What the roles' names begin with.")
    ] = "virnucpro_monitor",
    apply: Annotated[
        bool, typer.Option("--apply", help="Make them; without it, only print the SQL.")
    ] = False,
    db: DatabaseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make PostgreSQL's roles: reader (dashboard), acknowledger (its notes too), writer (runs).

    They have no login: grant them to users, as in GRANT virnucpro_monitor_reader TO alice. Run it
    as the tables' owner, and again after `db upgrade`: each role gets exactly its rights. No role
    can change the schema.
    """
    from virnucpro_monitor.monitor.databases import make_roles

    made = make_roles(load_settings(db=db).database_url, prefix=prefix, apply=apply)
    if as_json:
        print_json(made)
        return
    if not apply:
        for statement in made.statements:
            typer.echo(f"{statement};")
        say("Nothing was changed: add --apply.")
        return
    say(f"The roles {', '.join(made.names)} have their rights: grant them to users.")


@group.command("prune")
def prune(
    older_than_days: Annotated[
        float, typer.Option("--older-than", metavar="DAYS", min=0, help="Age of what may go.")
    ] = 90,
    embeddings: Annotated[
        bool,
        typer.Option("--embeddings", help="Of every run of that age, its kept embeddings too."),
    ] = False,
    apply: Annotated[
        bool, typer.Option("--apply", help="Delete; without it, only say what would be.")
    ] = False,
    db: DatabaseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Delete old attempts that a later one has replaced and that nothing points to.

    Current runs stay, and with them all lists, incidents and comparisons; so do attempts that a
    skipped run inherits from, that a bisection tried, that were judged again, or whose verdict
    another attempt of the same code contradicts.
    """
    from virnucpro_monitor.monitor.databases import prune_database

    before = datetime.now(UTC) - timedelta(days=older_than_days)
    url = load_settings(db=db).database_url
    found = prune_database(url, before, apply=apply, embeddings=embeddings)
    if as_json:
        print_json(found)
        return
    verb = "Deleted" if apply else "Would delete"
    say(
        f"{verb} {len(found.run_ids):,} superseded attempts with {found.num_results:,} sequence "
        f"results; {found.num_kept:,} others of that age are kept, since something points to them."
    )
    if embeddings:
        say(f"{verb} the embeddings of {found.num_embeddings:,} runs; all else of them stays.")
    if (found.run_ids or found.num_embeddings) and not apply:
        say("Nothing was deleted: add --apply.")
