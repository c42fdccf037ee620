"""`virnucpro-monitor export`: stored runs and results as one table, for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from virnucpro_monitor.cli.options import (
    DatabaseOption,
    JsonOption,
    TargetOption,
    print_json,
    say,
)
from virnucpro_monitor.errors import ConfigurationError


def register(app: typer.Typer) -> None:
    app.command("export")(export)


def export(
    file: Annotated[
        Path, typer.Argument(help="File to write: .parquet, .csv or .jsonl.", show_default=False)
    ],
    table: Annotated[
        str, typer.Option("--table", metavar="NAME", help="runs, or sequences with each result.")
    ] = "runs",
    target: TargetOption = None,
    benchmark: Annotated[
        str | None,
        typer.Option("--benchmark", metavar="NAME[@VERSION]", help="Of this benchmark set only."),
    ] = None,
    columns: Annotated[
        bool, typer.Option("--columns", help="Describe the table's columns and write nothing.")
    ] = False,
    db: DatabaseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write stored runs, or every sequence's results, as a table of a documented schema."""
    from virnucpro_monitor.report.tables import TABLES, TABLES_VERSION

    if table not in TABLES:
        raise ConfigurationError(f"{table!r} is no table: use {' or '.join(TABLES)}.")
    if columns:
        described = [{"name": c.name, "kind": c.kind, "about": c.about} for c in TABLES[table]]
        if as_json:
            print_json({"table": table, "version": TABLES_VERSION, "columns": described})
        else:
            for column in TABLES[table]:
                typer.echo(f"{column.name:26} {column.kind:6} {column.about}")
        return
    rows = _write(file, table, target, benchmark, db)
    if as_json:
        print_json({"file": str(file), "table": table, "version": TABLES_VERSION, "rows": rows})
    else:
        say(f"Wrote {rows:,} rows of {table}, version {TABLES_VERSION}, to {file}.")


def _write(
    file: Path, table: str, target: str | None, benchmark: str | None, db: str | None
) -> int:
    from virnucpro_monitor.monitor.databases import export_runs, export_sequences
    from virnucpro_monitor.report.table_files import write_table
    from virnucpro_monitor.report.tables import run_batches, sequence_batches

    if table == "runs":
        batches = run_batches(export_runs(db, target=target, benchmark=benchmark))
    else:
        batches = sequence_batches(export_sequences(db, target=target, benchmark=benchmark))
    return write_table(file, table, batches)
