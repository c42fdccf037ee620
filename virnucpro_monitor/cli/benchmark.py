"""`virnucpro-monitor benchmark list/show/add`: what is measured."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from virnucpro_monitor.cli.options import JsonOption, print_json, say

if TYPE_CHECKING:
    from virnucpro_monitor.records import BenchmarkSet

NameArgument = Annotated[
    str, typer.Argument(metavar="NAME", help="A set's name, or NAME@VERSION.", show_default=False)
]


def register(app: typer.Typer) -> None:
    group = typer.Typer(no_args_is_help=True, help="Benchmark sets: list, show, add.")
    group.command("list")(list_sets)
    group.command("show")(show)
    group.command("add")(add)
    app.add_typer(group, name="benchmark")


def list_sets(as_json: JsonOption = False) -> None:
    """List every benchmark set and version, released or your own."""
    from virnucpro_monitor.data.benchmarks import list_benchmarks

    sets = list_benchmarks()
    if as_json:
        print_json([summarise(item) for item in sets])
        return
    width = max((len(item.label) for item in sets), default=0)
    for item in sets:
        summary = summarise(item)
        typer.echo(f"{item.label:<{width}}  {_size_words(summary)}, SHA-256 {item.digest[:12]}")
        if item.description:
            typer.echo(f"{'':<{width}}  {item.description}")


def show(name: NameArgument, as_json: JsonOption = False) -> None:
    """Show one benchmark set: its digest and its sequences."""
    from virnucpro_monitor.data.benchmarks import load_benchmark
    from virnucpro_monitor.data.limits import MAX_RESIDUES

    found = load_benchmark(name)
    if as_json:
        print_json(summarise(found) | {"sequences": found.sequences})
        return
    summary = summarise(found)
    typer.echo(f"{found.label}  {found.description}".rstrip())
    typer.echo(f"SHA-256    {found.digest}")
    typer.echo(f"size       {_size_words(summary)}")
    if summary["num_truncated"]:
        typer.echo(
            f"truncated  {summary['num_truncated']} to their first {MAX_RESIDUES:,} residues, the "
            "limit of ESM-2"
        )
    width = max(len(sequence.id) for sequence in found.sequences)
    for sequence in found.sequences:
        residues = sequence.residues
        shown = residues if len(residues) <= 48 else f"{residues[:45]}..."
        typer.echo(f"{sequence.id:<{width}}  {len(residues):>5}  {shown}")


def add(
    fasta: Annotated[
        Path, typer.Argument(metavar="FILE", help="Protein FASTA, plain, gzip, bzip2 or xz.")
    ],
    name: Annotated[str, typer.Option("--name", metavar="NAME", help="What to call the set.")],
    description: Annotated[
        str, typer.Option("--description", metavar="TEXT", help="A line about it.")
    ] = "",
    as_json: JsonOption = False,
) -> None:
    """Freeze a FASTA file as a benchmark set; changed content becomes a new version."""
    from virnucpro_monitor.data.benchmarks import add_benchmark, list_benchmarks
    from virnucpro_monitor.report.text import count

    known = {(item.name, item.version) for item in list_benchmarks()}
    added = add_benchmark(fasta, name, description=description, say=say)
    if (added.name, added.version) in known:
        say(f"{added.label} holds exactly these sequences already.")
    else:
        say(f"Froze {count(len(added.sequences), 'sequence')} as {added.label}.")
    if as_json:
        print_json(summarise(added))


def _size_words(summary: dict[str, Any]) -> str:
    from virnucpro_monitor.report.text import count

    return (
        f"{count(summary['num_sequences'], 'sequence')} of {summary['min_length']:,} to "
        f"{summary['max_length']:,} residues, {summary['num_residues']:,} in all"
    )


def summarise(item: "BenchmarkSet") -> dict[str, Any]:
    """A set without its sequences, as JSON values; lengths in residues."""
    from virnucpro_monitor.data.limits import MAX_RESIDUES

    lengths = [len(sequence.residues) for sequence in item.sequences]
    return {
        "name": item.name,
        "version": item.version,
        "digest": item.digest,
        "description": item.description,
        "num_sequences": len(lengths),
        "num_residues": sum(lengths),
        "min_length": min(lengths),
        "max_length": max(lengths),
        "num_truncated": sum(length > MAX_RESIDUES for length in lengths),
    }
