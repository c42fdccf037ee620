"""`virnucpro-monitor runs judge`: stored measures under another protocol, without a GPU."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from virnucpro_monitor.cli.options import (
    DatabaseOption,
    JsonOption,
    TargetOption,
    print_json,
    say,
)
from virnucpro_monitor.cli.tables import OUTCOME_STYLES, print_table
from virnucpro_monitor.errors import NotFoundError, ProtocolError
from virnucpro_monitor.records import Judgement, Outcome, Protocol, Run

if TYPE_CHECKING:
    from virnucpro_monitor.store.engine import Engine


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
    from virnucpro_monitor.cli.reading import open_database
    from virnucpro_monitor.store.writer import Writer
    from virnucpro_monitor.validation.protocol import load_protocol

    chosen = load_protocol(protocol)
    judged: list[tuple[Run, Judgement]] = []
    refused: list[tuple[Run, str]] = []
    with open_database(db, read_only=dry_run) as engine:
        for one in _select(engine, run, target, benchmark):
            try:
                judgement = judge_run(engine, one, chosen)
            except ProtocolError as error:
                if run != "all":
                    raise
                refused.append((one, str(error)))
                continue
            if not dry_run:
                Writer(engine).save_judgement(judgement, chosen)
            judged.append((one, judgement))
    if as_json:
        print_json([judgement for _, judgement in judged])
    else:
        _print_judgements(chosen, judged)
    for one, reason in refused:
        say(f"Run {one.id} was not judged: {reason}")
    if any(judgement.outcome is Outcome.FAILED for _, judgement in judged):
        raise typer.Exit(2)
    if refused:
        raise typer.Exit(3)


def _select(engine: "Engine", text: str, target: str | None, benchmark: str | None) -> list[Run]:
    from virnucpro_monitor.cli.reading import choose_target, find_run
    from virnucpro_monitor.store.reader import load_runs

    if text != "all":
        return [find_run(engine, text, target, benchmark)[0]]
    name = choose_target(engine, target).name if target else None
    measured = (Outcome.PASSED, Outcome.FAILED)
    runs = load_runs(engine, target=name, benchmark=benchmark, outcomes=measured)
    if not runs:
        raise NotFoundError("No measured run is stored that could be judged again.")
    return runs


def judge_run(engine: "Engine", run: Run, protocol: Protocol) -> Judgement:
    """Judge one stored run's measures under `protocol`.

    Raises:
        ProtocolError: the run holds no measures, the protocol has no limits for its dtype, or one
            that lies below the noise of healthy runs.
    """
    from virnucpro_monitor.store.reader import load_documents, load_sequences
    from virnucpro_monitor.validation.noise import judge_within_noise
    from virnucpro_monitor.validation.protocol import limits_key

    run_id = run.id or 0
    sequences = load_sequences(engine, run_id)
    if not sequences:
        if run.inherited_from is not None:
            raise ProtocolError(
                f"Run {run_id} inherits from {run.inherited_from[:12]}: judge that commit's run."
            )
        raise ProtocolError(f"Run {run_id} holds no measures ({run.outcome}).")
    verdict = judge_within_noise(
        sequences,
        load_documents(engine, run_id),
        protocol,
        dtype=limits_key(run.configuration.dtype, run.configuration.device),
    )
    return Judgement(
        run_id=run_id,
        protocol_version=protocol.version,
        protocol_digest=protocol.digest,
        outcome=verdict.outcome,
        culprit=verdict.culprit,
        reason=verdict.reason,
        figures=verdict.figures,
        gates=verdict.gates,
        judged_at=datetime.now(UTC),
    )


def _print_judgements(protocol: Protocol, judged: list[tuple[Run, Judgement]]) -> None:
    typer.echo(f"Under protocol {protocol.version} (digest {protocol.digest[:12]}):")
    print_table(
        [">Id", "Commit", "Benchmark", "Protocol then", "Then", "Now", "Reason"],
        [
            [
                str(run.id),
                run.commit.hash[:10],
                f"{run.benchmark}@{run.benchmark_version}",
                run.protocol_version,
                run.outcome.value,
                judgement.outcome.value,
                judgement.reason,
            ]
            for run, judgement in judged
        ],
        styles=[OUTCOME_STYLES[judgement.outcome] for _, judgement in judged],
    )
