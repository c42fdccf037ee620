"""`virnucpro-monitor runs judge`: stored measures under another protocol, without a GPU."""

from collections.abc import Sequence
from typing import Annotated

import typer

from virnucpro_monitor.cli.options import (
    DatabaseOption,
    JsonOption,
    TargetOption,
    print_json,
    say,
)
from virnucpro_monitor.cli.tables import OUTCOME_STYLES, print_table
from virnucpro_monitor.records import Judgement, Outcome, Protocol, Run


def judge(
    run: Annotated[
        str,
        typer.Argument(metavar="ID|COMMIT|all", help="Which run; all means every measured one."),
    ] = "all",
    protocol: Annotated[
        str | None,
        typer.Option(
            "--protocol", metavar="VERSION|FILE", help="A released version or a .json file."
        ),
    ] = None,
    target: TargetOption = None,
    benchmark: Annotated[
        str | None,
        typer.Option("--benchmark", metavar="NAME", help="A set's name, or NAME@VERSION."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Store nothing.")] = False,
    db: DatabaseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Judge stored measures again under another protocol; the runs themselves stay as they are.

    Exit code: 0 all passed under it, 2 one failed, 3 one could not be judged.
    """
    from virnucpro_monitor.monitor.judging import judge_again
    from virnucpro_monitor.monitor.opening import open_database
    from virnucpro_monitor.validation.protocol import load_protocol

    chosen = load_protocol(protocol)
    with open_database(db, read_only=dry_run) as engine:
        found = judge_again(
            engine, run, chosen, target=target, benchmark=benchmark, store=not dry_run
        )
    if as_json:
        print_json([judgement for _, judgement in found.judged])
    else:
        _print_judgements(chosen, found.judged)
    for one, reason in found.refused:
        say(f"Run {one.id} was not judged: {reason}")
    if any(judgement.outcome is Outcome.FAILED for _, judgement in found.judged):
        raise typer.Exit(2)
    if found.refused:
        raise typer.Exit(3)


def _print_judgements(protocol: Protocol, judged: Sequence[tuple[Run, Judgement]]) -> None:
    typer.echo(f"Under protocol {protocol.version} (digest {protocol.digest[:12]}):")
    print_table(
        [">Id", "Commit", "Benchmark", "Protocol then", "Then", "Now", "Reason"],
        [
            [
                str(run.id),
                run.commit.short,
                run.benchmark_label,
                run.protocol_version,
                run.outcome.value,
                judgement.outcome.value,
                judgement.reason,
            ]
            for run, judgement in judged
        ],
        styles=[OUTCOME_STYLES[judgement.outcome] for _, judgement in judged],
    )
