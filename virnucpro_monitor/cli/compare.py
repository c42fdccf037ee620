"""`virnucpro-monitor compare BASE HEAD`: two commits side by side."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from virnucpro_monitor.cli.options import (
    DatabaseOption,
    JsonOption,
    TargetOption,
    print_json,
    say,
)
from virnucpro_monitor.cli.tables import print_table

if TYPE_CHECKING:
    from virnucpro_monitor.analysis.comparison import Comparison

LISTED = 20


def register(app: typer.Typer) -> None:
    app.command("compare")(compare)


def compare(
    base: Annotated[
        str | None,
        typer.Argument(
            metavar="BASE", help="Hash, branch or tag before, or TARGET:REV.", show_default=False
        ),
    ] = None,
    head: Annotated[
        str | None,
        typer.Argument(
            metavar="HEAD", help="Hash, branch or tag after, or TARGET:REV.", show_default=False
        ),
    ] = None,
    target: TargetOption = None,
    benchmark: Annotated[
        str | None,
        typer.Option("--benchmark", metavar="NAME", help="A set's name, or NAME@VERSION."),
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="List every sequence, the unchanged ones too.")
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            metavar="FILE",
            help="Also write a report: FILE ends in .md, .csv or .html.",
        ),
    ] = None,
    fail: Annotated[
        bool, typer.Option("--exit-code", help="Exit with 2 where the promise broke.")
    ] = False,
    db: DatabaseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compare two commits: verdict, gates, and sequence by sequence.

    Without HEAD it is the newest measured commit of the followed branch; without both, that one
    against the last good one before it.

    Marks: ! newly bad, * mended, + worse, - better, ± closer to each other but further from FP32,
    ~ changed within noise, x missing or not judged on one side.
    """
    from virnucpro_monitor.monitor.comparing import compare_commits
    from virnucpro_monitor.monitor.opening import open_database
    from virnucpro_monitor.report.export import format_comparisons, write_report
    from virnucpro_monitor.report.values import comparison_values
    from virnucpro_monitor.report.words import setup_words

    with open_database(db) as engine:
        found = compare_commits(engine, base, head, target=target, benchmark=benchmark)
    if output is not None:
        write_report(output, format_comparisons(list(found.comparisons), output.suffix.lower()))
        say(f"Wrote {output}.")
    if as_json:
        print_json(
            {
                "target": found.target,
                "base": found.base.hash,
                "head": found.head.hash,
                "comparisons": [comparison_values(comparison) for comparison in found.comparisons],
                "runs_only_in_base": [run.id for run in found.only_base],
                "runs_only_in_head": [run.id for run in found.only_head],
            }
        )
    else:
        for number, comparison in enumerate(found.comparisons):
            if number:
                typer.echo("")
            print_comparison(comparison, everything=everything)
        for role, runs in (("base", found.only_base), ("head", found.only_head)):
            for run in runs:
                say(
                    f"Only the {role} was run on {run.benchmark_label} with "
                    f"{run.configuration.model}, {setup_words(run.configuration)} (run {run.id})."
                )
    if fail and any(comparison.verdict == "broke" for comparison in found.comparisons):
        raise typer.Exit(2)


def print_comparison(comparison: "Comparison", *, everything: bool = False) -> None:
    from virnucpro_monitor.analysis.comparison import MARK_MEANINGS, Mark
    from virnucpro_monitor.analysis.moved import moved_sentence
    from virnucpro_monitor.report.sentences import comparison_sentence, verdict_sentence
    from virnucpro_monitor.report.text import format_error, format_value, one_line
    from virnucpro_monitor.report.words import LEVEL_WORDS, level_legend, setup_words

    base, head = comparison.base, comparison.head
    run = head.run
    typer.echo(
        f"{run.benchmark_label}, {run.configuration.model}, {setup_words(run.configuration)}"
    )
    typer.echo(comparison_sentence(comparison))
    for reason in comparison.reasons:
        typer.echo(f"Not comparable: {one_line(reason)}")
    for difference in comparison.differences:
        typer.echo(f"Also differs: {one_line(str(difference))}")
    for role, side in (("base", base), ("head", head)):
        hash_and_subject = f"{side.run.commit.short} {one_line(side.run.commit.subject, 60)}"
        typer.echo(f"{role}  {hash_and_subject}: {verdict_sentence(side.run)}")
    for one in comparison.accuracy:
        if one.base is not None and one.head is not None:
            typer.echo(
                f"{one.side} to FP32: worst relative L2 {format_error(one.base)} -> "
                f"{format_error(one.head)}, {one.movement.value}; {one.num_further} sequences "
                f"further, {one.num_closer} closer"
            )
    for moved in comparison.moved:
        typer.echo(f"Embeddings, {moved_sentence(moved)}")
        if moved.beyond_noise is not False and moved.most:
            most = ", ".join(f"{one_line(name, 40)} {value:.1e}" for name, value in moved.most[:3])
            typer.echo(f"  most: {most}")
    changed_gates = [change for change in comparison.gates if change.mark is not Mark.EQUAL]
    if changed_gates:
        typer.echo("")
        print_table(
            ["", "Gate", ">Base", ">Head", "Unit"],
            [
                [
                    change.mark,
                    change.name,
                    format_value(change.base.value if change.base else None),
                    format_value(change.head.value if change.head else None),
                    next(gate.unit for gate in (change.head, change.base) if gate is not None),
                ]
                for change in changed_gates
            ],
        )
    quiet = () if everything else (Mark.EQUAL, Mark.WITHIN_NOISE)
    shown = [change for change in comparison.sequences if change.mark not in quiet]
    shown.sort(key=lambda change: -abs(change.decades if change.decades is not None else 99))
    listed = shown if everything else shown[:LISTED]
    if listed:
        typer.echo("")
        print_table(
            ["", "Sequence", ">Length", ">Base 1 - cos", ">Head 1 - cos", "Base", "Head"],
            [
                [
                    change.mark,
                    change.sequence_id,
                    str(change.head.length),
                    format_error(change.base_error),
                    format_error(change.head_error),
                    LEVEL_WORDS[change.base_level],
                    LEVEL_WORDS[change.head_level],
                ]
                for change in listed
            ],
        )
    marks = {change.mark for change in changed_gates} | {change.mark for change in listed}
    if marks:
        used = [mark for mark in Mark if mark in marks]
        say("; ".join(f"{mark.value} {MARK_MEANINGS[mark].split(':')[0]}" for mark in used))
    if listed:
        say(level_legend(comparison.thresholds))
    if len(listed) < len(shown):
        say(f"Only {len(listed)} of {len(shown)} changed sequences are listed: --all shows all.")
    for role, names in (("base", comparison.only_in_base), ("head", comparison.only_in_head)):
        if names:
            some = ", ".join(one_line(name, 60) for name in names[:5])
            typer.echo(f"Only in {role}: {len(names)} sequences ({some}{'…' * (len(names) > 5)})")
