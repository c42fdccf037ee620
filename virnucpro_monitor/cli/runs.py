"""`virnucpro-monitor runs list/show/judge`: what is stored."""

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
from virnucpro_monitor.cli.tables import OUTCOME_STYLES, print_table
from virnucpro_monitor.records import Environment, Outcome, Run

if TYPE_CHECKING:
    from collections.abc import Mapping

    from virnucpro_monitor.monitor.stored_runs import RunDetails
    from virnucpro_monitor.records import Finding, GateResult, SequenceResult, Thresholds

LISTED = 50
WORST = 5

BenchmarkFilter = Annotated[
    str | None, typer.Option("--benchmark", metavar="NAME", help="A set's name, or NAME@VERSION.")
]


def register(app: typer.Typer) -> None:
    from virnucpro_monitor.cli.judging import judge

    group = typer.Typer(no_args_is_help=True, help="Stored runs: list, show, judge again.")
    group.command("list")(list_runs)
    group.command("show")(show)
    group.command("judge")(judge)
    app.add_typer(group, name="runs")


def list_runs(
    target: TargetOption = None,
    benchmark: BenchmarkFilter = None,
    outcome: Annotated[
        list[str] | None,
        typer.Option("--outcome", metavar="OUTCOME", help=f"{', '.join(Outcome)}; repeatable."),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(
            "--limit",
            min=1,
            metavar="N",
            help=f"Only the newest commits' runs [default: {LISTED}; with --json all].",
        ),
    ] = None,
    all_attempts: Annotated[
        bool, typer.Option("--all-attempts", help="Also runs that later ones replaced.")
    ] = False,
    db: DatabaseOption = None,
    as_json: JsonOption = False,
) -> None:
    """List runs, oldest commit first."""
    from virnucpro_monitor.monitor.opening import open_database
    from virnucpro_monitor.monitor.questions import load_flips
    from virnucpro_monitor.monitor.reading import load_findings
    from virnucpro_monitor.monitor.stored_runs import list_runs as find_runs
    from virnucpro_monitor.report.values import run_values

    if limit is None and not as_json:
        limit = LISTED
    with open_database(db) as engine:
        runs = find_runs(
            engine,
            target=target,
            benchmark=benchmark,
            outcomes=outcome or None,
            all_attempts=all_attempts,
            limit=None if limit is None else limit + 1,
        )
        findings = {} if as_json else load_findings(engine)
        flips = load_flips(engine, runs)
    is_cut = limit is not None and len(runs) > limit
    runs = runs[-limit:] if limit is not None else runs
    if as_json:
        print_json([run_values(run) | {"flips": flips.get(run.row_id, 0)} for run in runs])
        return
    if not runs:
        say("No stored run fits: virnucpro-monitor run stores some.")
        return
    print_runs(runs, findings, flips)
    if is_cut:
        say(f"Only the newest {limit} are shown: --limit shows more.")


def print_runs(
    runs: list[Run], findings: "Mapping[int, Finding]", flips: "Mapping[int, int]"
) -> None:
    from virnucpro_monitor.report.text import one_line
    from virnucpro_monitor.report.words import agreement, deciding_words, failing_words, setup_words

    targets = {run.target for run in runs}
    rows = []
    for run in runs:
        rows.append(
            [
                str(run.id),
                *([run.target] if len(targets) > 1 else []),
                run.commit.short,
                one_line(run.commit.subject, 40),
                run.benchmark_label,
                setup_words(run.configuration),
                outcome_text(run) + _flips_text(flips.get(run.row_id, 0)),
                agreement(run.figures),
                deciding_words(run),
                failing_words(run, findings.get(run.inherited_run_id or run.row_id)),
            ]
        )
    print_table(
        [
            ">Id",
            *(["Target"] if len(targets) > 1 else []),
            "Commit",
            "Subject",
            "Benchmark",
            "Set-up",
            "Outcome",
            ">Agree",
            "Worst gate",
            "What is wrong",
        ],
        rows,
        styles=[OUTCOME_STYLES[run.effective_outcome] for run in runs],
    )


def outcome_text(run: Run) -> str:
    if run.inherited_outcome is not None:
        return f"{run.outcome} ({run.inherited_outcome})"
    culprit = f", {run.culprit}" if run.outcome is Outcome.FAILED and run.culprit else ""
    return f"{run.outcome}{culprit}"


def _flips_text(flips: int) -> str:
    """After an outcome: that the same code had another one before."""
    from virnucpro_monitor.report.words import flips_words

    return f", {flips_words(flips)}" if flips else ""


def show(
    run: Annotated[
        str,
        typer.Argument(
            metavar="ID|COMMIT",
            help="A run's number, or a commit: hash, branch or tag.",
            show_default=False,
        ),
    ],
    target: TargetOption = None,
    benchmark: BenchmarkFilter = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", metavar="FILE", help="Also write a report: Markdown (.md) or JUnit (.xml)."
        ),
    ] = None,
    db: DatabaseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show one run: verdict, gates, culprit, how and where it ran, the worst sequences."""
    from virnucpro_monitor.monitor.opening import open_database
    from virnucpro_monitor.monitor.stored_runs import load_details
    from virnucpro_monitor.report.export import format_run, write_report
    from virnucpro_monitor.report.sentences import reproduce_command
    from virnucpro_monitor.report.values import run_detail_values

    with open_database(db) as engine:
        found = load_details(engine, run, target=target, benchmark=benchmark)
    if output is not None:
        text = format_run(
            found.run,
            list(found.sequences),
            output.suffix.lower(),
            failure=found.failure,
            target=found.target,
            thresholds=found.thresholds,
        )
        write_report(output, text)
        say(f"Wrote {output}.")
    worst = sorted(found.sequences, key=_goodness)[:WORST]
    if found.others:
        listed = ", ".join(f"{other.id} ({other.benchmark})" for other in found.others)
        say(f"Other runs of this commit: {listed}; --benchmark or a number chooses.")
    if as_json:
        print_json(
            run_detail_values(found.run)
            | {
                "measured_run": found.measured.id,
                "oracle": found.oracle,
                "attempts": list(found.attempts),
                "flips": found.flips,
                "worst_sequences": worst,
                "failure": found.failure,
                "judgements": list(found.judgements),
                "reproduce": reproduce_command(found.run, found.target),
            }
        )
        return
    _print_run(found, worst)
    for judgement in found.judgements:
        typer.echo(
            f"\nUnder protocol {judgement.protocol_version}: {judgement.outcome}. "
            f"{judgement.reason}"
        )


def _goodness(result: "SequenceResult") -> float:
    return -2.0 if result.similarity is None else result.similarity


def _print_run(found: "RunDetails", worst: "list[SequenceResult]") -> None:
    from virnucpro_monitor.report.sentences import reproduce_command, verdict_sentence
    from virnucpro_monitor.report.text import block, format_value, one_line
    from virnucpro_monitor.report.tracebacks import fold_traceback

    run, failure = found.run, found.failure
    typer.echo(verdict_sentence(run))
    typer.echo("")
    facts = _facts(run, found.measured, found.oracle)
    if found.flips:
        given = ", ".join(found.attempts)
        facts.append(("flips", f"{found.flips}: the same code in this set-up gave {given}"))
    for name, value in facts:
        typer.echo(f"{name:<14}{one_line(value)}")
    if run.gates:
        typer.echo("")
        print_table(
            ["Gate", "Result", ">Value", ">Limit", "Unit", "Wrong side", "Detail"],
            [
                [
                    gate.name,
                    gate_word(gate),
                    format_value(gate.value),
                    format_value(gate.limit),
                    gate.unit,
                    gate.culprit or "",
                    gate.detail,
                ]
                for gate in run.gates
            ],
        )
    if worst:
        typer.echo("")
        _print_sequences(worst, found.thresholds)
    if failure is not None:
        typer.echo(f"\n{one_line(failure.kind)}: {one_line(failure.message)}")
        for part in (fold_traceback(failure.traceback).text, failure.log):
            if part.strip():
                typer.echo(f"\n{block(part.rstrip())}")
    typer.echo(f"\nRepeat it:\n  {reproduce_command(run, found.target)}")


def _facts(run: Run, measured: Run, oracle: str | None) -> list[tuple[str, str]]:
    from virnucpro_monitor.report.words import policy_words

    used, commit = run.configuration, run.commit
    facts = [
        ("run", f"{run.id}, started {run.started_at:%Y-%m-%d %H:%M:%S %Z}, {run.duration_s:.1f} s"),
        ("target", run.target),
        ("commit", f"{commit.hash}  {commit.subject}  ({commit.author or 'unknown author'})"),
        ("benchmark", f"{run.benchmark_label}  SHA-256 {run.benchmark_digest}"),
        ("model", f"{used.model}, {used.dtype} on {used.device}, attention by {used.backend}"),
        ("weights", f"{used.weights}  SHA-256 {used.weights_digest}"),
        ("token budget", str(used.token_budget)),
        ("protocol", f"{run.protocol_version}  digest {run.protocol_digest}"),
        ("oracle", oracle or "not known"),
        ("policy", policy_words(run)),
        ("wrong side", run.culprit.value if run.culprit else "not known"),
    ]
    if run.figures is not None:
        facts.append(("figures", _figures_text(run)))
    if run.environment is not None:
        facts.append(("environment", _environment_text(run.environment)))
    if measured is not run:
        facts.append(("inherited", f"from run {measured.id} of {measured.commit.hash}"))
    if run.bridge:
        facts.append(("bridge", "measured again because the environment had changed"))
    return facts


def _figures_text(run: Run) -> str:
    from virnucpro_monitor.report.sentences import figures_sentence

    figures = run.figures
    times: list[str] = []
    if figures is not None and figures.packed_s is not None:
        times.append(f"packed {figures.packed_s:.2f} s")
    if figures is not None and figures.unpacked_s is not None:
        times.append(f"unpacked {figures.unpacked_s:.2f} s")
    return " ".join([figures_sentence(run), *([f"({', '.join(times)})"] if times else [])])


def _environment_text(environment: Environment) -> str:
    return "; ".join(f"{name} {value}" for name, value in environment.facts)


def gate_word(gate: "GateResult") -> str:
    """What became of a gate; one that only informs says so."""
    if gate.passed is False and gate.informs:
        return "informs"
    return {True: "passed", False: "FAILED", None: "not judged"}[gate.passed]


def _print_sequences(results: "list[SequenceResult]", thresholds: "Thresholds") -> None:
    from virnucpro_monitor.analysis.series import error_of
    from virnucpro_monitor.report.text import UNKNOWN, format_error
    from virnucpro_monitor.report.words import LEVEL_WORDS, level_legend

    print_table(
        [
            "Worst sequences",
            ">Length",
            "Status",
            ">1 - cos",
            ">Packed vs FP32",
            ">Unpacked vs FP32",
            ">Gain - 1",
            ">Worst residue",
            "Pack, place",
        ],
        [
            [
                result.sequence_id,
                str(result.length),
                LEVEL_WORDS[thresholds.level(result)]
                if result.status == "ok"
                else result.status.value.replace("_", " "),
                format_error(error_of(result.similarity)),
                format_error(result.packed_relative_l2),
                format_error(result.unpacked_relative_l2),
                UNKNOWN if result.gain is None else f"{result.gain - 1.0:+.1e}",
                format_error(error_of(result.worst_residue_similarity)),
                UNKNOWN if result.pack is None else f"{result.pack + 1}, {(result.slot or 0) + 1}",
            ]
            for result in results
        ],
    )
    typer.echo(f"({level_legend(thresholds)})")
