"""`virnucpro-monitor db`: create, upgrade and check the database; nothing else changes a schema."""

from typing import Annotated

import typer

from virnucpro_monitor.cli.options import DatabaseOption, JsonOption, print_json, say
from virnucpro_monitor.settings import load_settings

group = typer.Typer(help="Create, upgrade and check the database.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    app.add_typer(group, name="db")


@group.command("create")
def create(db: DatabaseOption = None) -> None:
    """Create an SQLite file, or the tables in an existing PostgreSQL database.

    An example: virnucpro-monitor db create --db postgresql://monitor@host/monitor
    """
    from virnucpro_monitor.store.connection import describe, parse_url
    from virnucpro_monitor.store.engine import create_database

    url = load_settings(db=db).database_url
    create_database(url)
    say(f"Created the database {describe(parse_url(url))}.")


@group.command("upgrade")
def upgrade(db: DatabaseOption = None) -> None:
    """Bring an older database up to this program's schema; an SQLite file is copied first."""
    from virnucpro_monitor.store.connection import describe, parse_url
    from virnucpro_monitor.store.engine import upgrade_database

    url = load_settings(db=db).database_url
    done = upgrade_database(url)
    name = describe(parse_url(url))
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

    Reads every row and writes none. Exit code 1 where something is wrong.
    """
    from virnucpro_monitor.store.maintenance import check_database

    found = check_database(load_settings(db=db).database_url)
    if as_json:
        print_json(found)
    elif not quiet:
        typer.echo(f"database  {found.database}")
        typer.echo(f"schema    {found.schema_revision}")
        typer.echo(f"size      {found.database_bytes / 2**20:.1f} MiB")
        for table, number in found.row_counts.items():
            typer.echo(f"{number:>12,}  {table}")
    for problem in found.problems:
        say(problem)
    if found.problems:
        raise typer.Exit(1)
    if not as_json and not quiet:
        typer.echo("Nothing is wrong.")
