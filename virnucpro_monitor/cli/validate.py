"""`virnucpro-monitor validate FASTA`: one verdict for one file, no database."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from virnucpro_monitor.cli.options import JsonOption, print_json, progress_line, say, takes
from virnucpro_monitor.settings import Settings

if TYPE_CHECKING:
    from virnucpro_monitor.records import BenchmarkSet, SequenceResult, Verdict

_SHOWN_SEQUENCES = 10


def register(app: typer.Typer) -> None:
    app.command("validate")(validate)


@takes("model", "weights", "device", "dtype", "backend", "token_budget", "protocol")
def validate(
    fasta: Annotated[Path, typer.Argument(metavar="FASTA", help="Protein sequences.")],
    settings: Settings,
    adapter: Annotated[
        str | None,
        typer.Option(
            "--adapter",
            metavar="NAME",
            help="Load another model: a name of adapter list, module:callable, file.py:callable.",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Validate packed ESM-2 on the sequences of one file; nothing is stored.

    Without --adapter: this package's own.

    Exit code: 0 passed, 2 failed, 1 the file or the environment does not allow it.
    """
    # The file first: a mistake in it should not wait for a model to load.
    benchmark = read_benchmark(fasta)
    with progress_line() as show:
        verdict = _judge(settings, adapter, benchmark, show)
    if as_json:
        print_json(verdict)
    else:
        print_verdict(verdict)
    if verdict.outcome != "passed":
        raise typer.Exit(2)


def _judge(
    settings: Settings,
    adapter: str | None,
    benchmark: BenchmarkSet,
    show: Callable[[str, int, int], None],
) -> Verdict:
    if adapter is not None:
        from virnucpro_monitor.monitor.trying import validate_adapter, with_weights_to_spare

        spared = with_weights_to_spare(settings, adapter)
        if spared is not settings:
            say("No weights are named: an adapter that asks for ESM-2's gets synthetic ones.")
            settings = spared
        return validate_adapter(settings, adapter, benchmark, show)
    from virnucpro_monitor.monitor.validating import validate_builtin

    return validate_builtin(settings, benchmark, show)


def read_benchmark(fasta: Path) -> BenchmarkSet:
    """The file's sequences as an unnamed benchmark set.

    Raises:
        BenchmarkError: the file cannot be read or holds something else than proteins.
    """
    from virnucpro_monitor.data.benchmarks import benchmark_digest
    from virnucpro_monitor.data.fasta import read_fasta
    from virnucpro_monitor.records import BenchmarkSet

    sequences = read_fasta(fasta, say)
    return BenchmarkSet(
        name=fasta.name, version=1, digest=benchmark_digest(sequences), sequences=sequences
    )


def print_verdict(verdict: Verdict) -> None:
    """Print the outcome, the gates, and the worst sequences."""
    from rich.console import Console
    from rich.table import Table

    console = Console(width=max(100, Console().width), soft_wrap=True)
    figures = verdict.figures
    # One clause a line: which side, where it departs, what was measured, which gates.
    lines = verdict.reason.replace("; ", ";\n  ")
    console.print(f"{verdict.outcome.upper()}: {lines}", highlight=False, markup=False)
    console.print(
        f"\n{figures.num_strict} of {figures.num_sequences} sequences agree; "
        f"lowest similarity {similarity_text(figures.min_similarity)}; "
        f"wrong side: {verdict.culprit}.",
        highlight=False,
    )
    gates = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("gate", "result", "wrong side", "what was found"):
        gates.add_column(heading, overflow="fold")
    words = {True: "passed", False: "FAILED", None: "not judged"}
    # What failed stands first.
    for gate in sorted(verdict.gates, key=lambda gate: gate.passed is not False):
        gates.add_row(gate.name, words[gate.passed], gate.culprit or "", gate.detail)
    console.print()
    console.print(gates, highlight=False, markup=False)
    worst = sorted(verdict.sequences, key=_badness, reverse=True)[:_SHOWN_SEQUENCES]
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("sequence", overflow="fold")
    for heading in ("residues", "status", "1 - cos", "gain - 1", "packed-FP32", "unpacked-FP32"):
        table.add_column(heading, justify="right")
    for result in worst:
        table.add_row(
            result.sequence_id,
            str(result.length),
            result.status.value,
            _error_text(None if result.similarity is None else max(0.0, 1 - result.similarity)),
            "-" if result.gain is None else f"{result.gain - 1:+.1e}",
            _error_text(result.packed_relative_l2),
            _error_text(result.unpacked_relative_l2),
        )
    if len(verdict.sequences) > _SHOWN_SEQUENCES:
        console.print(f"\nThe {_SHOWN_SEQUENCES} worst of {len(verdict.sequences)} sequences:")
    else:
        console.print()
    console.print(table, highlight=False, markup=False)
    say(
        "1 - cos and gain - 1: how far packed is from unpacked in direction and norm, of the mean "
        "over\nresidues. packed-FP32 and unpacked-FP32: relative L2 distance to what both are held "
        "against.\nAll measures, residue by residue and layer by layer: --json."
    )


def similarity_text(similarity: float | None) -> str:
    """As many digits as it takes to tell a similarity from 1."""
    if similarity is None:
        return "none"
    error = max(0.0, 1.0 - similarity)
    if error == 0.0:
        return "exactly 1"
    return f"{similarity:.5f}" if error >= 1e-5 else f"1 - {error:.1e}"


def _badness(result: SequenceResult) -> tuple[bool, float]:
    return (
        result.similarity is None,
        result.relative_l2 if result.relative_l2 is not None else 0.0,
    )


def _error_text(error: float | None) -> str:
    return "-" if error is None else "0" if error == 0 else f"{error:.1e}"
