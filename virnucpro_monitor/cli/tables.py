"""Tables for people, on standard output."""

import io
import sys
from collections.abc import Iterable, Sequence

import typer

from virnucpro_monitor.records import Outcome

OUTCOME_STYLES = {
    Outcome.PASSED: "green",
    Outcome.FAILED: "bold red",
    Outcome.ERROR: "magenta",
    Outcome.SKIPPED: "dim",
    Outcome.NOT_RUN: "yellow",
}
PIPE_WIDTH = 2000


def print_table(
    columns: Sequence[str], rows: Iterable[Sequence[str]], *, styles: Sequence[str] = ()
) -> None:
    """Print a table.

    Args:
        columns: headings; one that begins with ">" is aligned to the right.
        rows: plain text, shown as it is: no markup in it is obeyed.
        styles: one rich style for each row, on a terminal only.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from virnucpro_monitor.report.text import one_line

    is_terminal = sys.stdout.isatty()
    table = Table(box=None, pad_edge=False)
    for column in columns:
        table.add_column(
            Text(column.removeprefix(">")),
            justify="right" if column.startswith(">") else "left",
            no_wrap=not is_terminal,
        )
    for number, row in enumerate(rows):
        style = styles[number] if styles else None
        table.add_row(*(Text(one_line(cell)) for cell in row), style=style)
    if is_terminal:
        Console().print(table)
        return
    # Nothing is cut or wrapped in a pipe: the lines are there to be searched.
    text = io.StringIO()
    Console(file=text, width=PIPE_WIDTH, force_terminal=False).print(table)
    typer.echo("\n".join(line.rstrip() for line in text.getvalue().splitlines()))
