"""`virnucpro-monitor compare BASE HEAD`: two commits side by side."""

from dataclasses import dataclass
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
from virnucpro_monitor.errors import NotFoundError
from virnucpro_monitor.records import Commit, Outcome, Run
from virnucpro_monitor.settings import load_settings

if TYPE_CHECKING:
    from virnucpro_monitor.analysis.comparison import Comparison
    from virnucpro_monitor.store.engine import Engine

LISTED = 20


def register(app: typer.Typer) -> None:
    app.command("compare")(compare)


def compare(
    base: Annotated[
        str,
        typer.Argument(metavar="BASE", help="Hash, branch or tag before.", show_default=False),
    ],
    head: Annotated[
        str, typer.Argument(metavar="HEAD", help="Hash, branch or tag after.", show_default=False)
    ],
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

    Marks: ! newly failing, * newly fixed, + worse, - better, ~ changed within noise, x without a
    counterpart.
    """
    from virnucpro_monitor.cli.reading import choose_target, find_commit, open_database
    from virnucpro_monitor.report.export import format_comparisons, write_report
    from virnucpro_monitor.report.values import comparison_values

    settings = load_settings(db=db)
    with open_database(db) as engine:
        stored = choose_target(engine, target, revision=base)
        base_commit = find_commit(engine, stored, base, settings)
        head_commit = find_commit(engine, stored, head, settings)
        pairing = pair_runs(engine, stored.name, base_commit, head_commit, benchmark)
        comparisons = [compare_pair(engine, one, other) for one, other in pairing.pairs]
    if output is not None:
        write_report(output, format_comparisons(comparisons, output.suffix.lower()))
        say(f"Wrote {output}.")
    if as_json:
        print_json(
            {
                "target": stored.name,
                "base": base_commit.hash,
                "head": head_commit.hash,
                "comparisons": [comparison_values(comparison) for comparison in comparisons],
                "runs_only_in_base": [run.id for run in pairing.only_base],
                "runs_only_in_head": [run.id for run in pairing.only_head],
            }
        )
    else:
        for number, comparison in enumerate(comparisons):
            if number:
                typer.echo("")
            print_comparison(comparison, everything=everything)
        for role, runs in (("base", pairing.only_base), ("head", pairing.only_head)):
            for run in runs:
                say(
                    f"Only the {role} was run on {run.benchmark}@{run.benchmark_version} with "
                    f"{run.configuration.model}, {run.configuration.dtype}, "
                    f"{run.configuration.device} (run {run.id})."
                )
    if fail and any(comparison.verdict == "broke" for comparison in comparisons):
        raise typer.Exit(2)


@dataclass(frozen=True, slots=True)
class Pairing:
    """Runs of two commits that belong together, and those that stand alone."""

    pairs: tuple[tuple[Run, Run], ...]
    only_base: tuple[Run, ...]
    only_head: tuple[Run, ...]


def pair_runs(
    engine: "Engine", target: str, base: Commit, head: Commit, benchmark: str | None
) -> Pairing:
    """Pair the runs of one series; what is left over is paired by benchmark name, if it can be.

    Such a pair differs in version or configuration: the comparison says so.

    Raises:
        NotFoundError: one of the commits has no run, or they have no benchmark set in common.
    """
    from virnucpro_monitor.analysis.series import series_key
    from virnucpro_monitor.store.reader import load_runs

    runs = load_runs(engine, target=target, commits={base.hash, head.hash}, benchmark=benchmark)
    bases = [run for run in runs if run.commit.hash == base.hash]
    heads = [run for run in runs if run.commit.hash == head.hash]
    for commit, found in ((base, bases), (head, heads)):
        if not found:
            wanted = f" on {benchmark}" if benchmark else ""
            raise NotFoundError(f"Commit {commit.hash[:12]} has no stored run{wanted}.")
    pairs = []
    for same in (series_key, lambda run: run.benchmark):
        for run in list(heads):
            partner = next((one for one in bases if same(one) == same(run)), None)
            if partner is not None:
                pairs.append((partner, run))
                heads.remove(run)
                if base.hash != head.hash:
                    bases.remove(partner)
    if base.hash == head.hash:
        bases = []
    if not pairs:
        raise NotFoundError(
            f"{base.hash[:12]} and {head.hash[:12]} were run on other benchmark sets "
            f"({', '.join(sorted({run.benchmark for run in bases}))} and "
            f"{', '.join(sorted({run.benchmark for run in heads}))}): there is nothing to compare."
        )
    return Pairing(tuple(pairs), tuple(bases), tuple(heads))


def compare_pair(engine: "Engine", base: Run, head: Run) -> "Comparison":
    """Load what belongs to two runs and compare them by the head's protocol."""
    from virnucpro_monitor.analysis.comparison import Noise, Thresholds, compare_runs
    from virnucpro_monitor.cli.reading import load_measured
    from virnucpro_monitor.store.reader import load_document, load_protocol

    base_measured, base_sequences = load_measured(engine, base)
    head_measured, head_sequences = load_measured(engine, head)
    protocol = load_protocol(engine, head.protocol_digest)
    noise = [
        load_document(engine, run.id or 0, "noise")
        for run in (base_measured, head_measured)
        if run.outcome is Outcome.PASSED
    ]
    return compare_runs(
        base,
        base_sequences,
        head,
        head_sequences,
        noise=Noise.of_documents(noise),
        thresholds=Thresholds.of_protocol(protocol.content),
        base_measured=base_measured,
        head_measured=head_measured,
    )


def print_comparison(comparison: "Comparison", *, everything: bool = False) -> None:
    from virnucpro_monitor.analysis.comparison import MARK_MEANINGS, Mark
    from virnucpro_monitor.report.sentences import comparison_sentence, verdict_sentence
    from virnucpro_monitor.report.text import format_error, format_value, one_line

    base, head = comparison.base, comparison.head
    run = head.run
    typer.echo(
        f"{run.benchmark}@{run.benchmark_version}, {run.configuration.model}, "
        f"{run.configuration.dtype} on {run.configuration.device}"
    )
    typer.echo(comparison_sentence(comparison))
    for reason in comparison.reasons:
        typer.echo(f"Not comparable: {one_line(reason)}")
    for difference in comparison.differences:
        typer.echo(f"Also differs: {one_line(str(difference))}")
    for role, side in (("base", base), ("head", head)):
        hash_and_subject = f"{side.run.commit.hash[:10]} {one_line(side.run.commit.subject, 60)}"
        typer.echo(f"{role}  {hash_and_subject}: {verdict_sentence(side.run)}")
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
                    change.base_level,
                    change.head_level,
                ]
                for change in listed
            ],
        )
        used = [mark for mark in Mark if any(change.mark is mark for change in listed)]
        say("; ".join(f"{mark.value} {MARK_MEANINGS[mark].split(':')[0]}" for mark in used))
    if len(listed) < len(shown):
        say(f"Only {len(listed)} of {len(shown)} changed sequences are listed: --all shows all.")
    for role, names in (("base", comparison.only_in_base), ("head", comparison.only_in_head)):
        if names:
            some = ", ".join(one_line(name, 60) for name in names[:5])
            typer.echo(f"Only in {role}: {len(names)} sequences ({some}{'…' * (len(names) > 5)})")
