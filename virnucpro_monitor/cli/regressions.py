"""`virnucpro-monitor regressions`: what broke between A and B."""

from collections.abc import Sequence
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
    from virnucpro_monitor.analysis.incidents import Incident
    from virnucpro_monitor.analysis.regressions import SeriesNote


def register(app: typer.Typer) -> None:
    app.command("regressions")(regressions)


def regressions(
    since: Annotated[
        str | None,
        typer.Option(
            "--since",
            metavar="COMMIT|DATE",
            help="Begin after this commit, date (2026-11-24) or age (30d, 8w, 1y).",
        ),
    ] = None,
    until: Annotated[
        str | None,
        typer.Option("--until", metavar="COMMIT|DATE", help="End with this commit or date."),
    ] = None,
    target: TargetOption = None,
    benchmark: Annotated[
        str | None,
        typer.Option("--benchmark", metavar="NAME", help="A set's name, or NAME@VERSION."),
    ] = None,
    fail: Annotated[
        bool, typer.Option("--exit-code", help="Exit with 2 where something broke and lasts.")
    ] = False,
    db: DatabaseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say what broke between two commits or dates, and what nobody could judge."""
    from virnucpro_monitor.monitor.opening import open_database
    from virnucpro_monitor.monitor.questions import load_regressions
    from virnucpro_monitor.report.sentences import (
        accuracy_move_sentence,
        incidents_by_fate,
        movement_sentence,
        regressions_sentence,
    )
    from virnucpro_monitor.report.values import regressions_values

    with open_database(db) as engine:
        found = load_regressions(
            engine, since=since, until=until, target=target, benchmark=benchmark
        )
    if as_json:
        print_json(regressions_values(found))
    else:
        typer.echo(regressions_sentence(found))
        for words, listed in incidents_by_fate(found):
            typer.echo(f"\n{words.capitalize()}:")
            print_incidents(listed)
        if found.moved or found.accuracy:
            typer.echo("\nMoved below the gates:")
            for one in found.moved:
                typer.echo(f"{one.key.target} {one.key.benchmark_label}: "
                           f"{movement_sentence(one.movement)}")  # fmt: skip
            for move in found.accuracy:
                typer.echo(f"{move.after.target} {move.after.benchmark_label}: "
                           f"{accuracy_move_sentence(move)}")  # fmt: skip
        _print_notes("Vanished: no run in the range", found.vanished)
        _print_notes("Not judged", found.unjudged)
        if found.appeared:
            say(f"{len(found.appeared)} series appeared in the range: how they were before is not "
                "known.")  # fmt: skip
    if fail and found.broken:
        raise typer.Exit(2)


def print_incidents(incidents: "Sequence[Incident]") -> None:
    from virnucpro_monitor.report.sentences import after_words, before_words, cause_words
    from virnucpro_monitor.report.text import UNKNOWN, format_error, one_line
    from virnucpro_monitor.report.words import STATE_WORDS, setup_words

    rows = []
    for incident in incidents:
        good, fixed = incident.last_good, incident.fixed_by
        rows.append(
            [
                incident.key,
                STATE_WORDS[incident.state],
                f"{incident.series.target} {incident.series.benchmark}",
                setup_words(incident.first_bad.configuration),
                cause_words(incident),
                incident.first_bad.commit.short,
                one_line(incident.first_bad.commit.subject, 40),
                one_line(incident.first_bad.commit.author, 24),
                UNKNOWN
                if good is None
                else good.commit.short
                + ("" if before_words(incident) == "last good" else ", without it"),
                UNKNOWN
                if fixed is None
                else fixed.commit.short + (", fails otherwise" if after_words(incident) else ""),
                str(incident.num_bad_runs),
                "no value" if incident.lacks_values else format_error(incident.worst_error),
            ]
        )
    print_table(
        [
            "Key",
            "State",
            "Series",
            "Set-up",
            "Cause",
            "First bad",
            "Subject",
            "Author",
            "Last good",
            "Fixed by",
            ">Bad runs",
            ">Worst 1 - cos",
        ],
        rows,
        styles=[{"open": "bold red", "acknowledged": "yellow"}.get(i.state, "") for i in incidents],
    )


def _print_notes(title: str, notes: "Sequence[SeriesNote]") -> None:
    if not notes:
        return
    from virnucpro_monitor.report.words import setup_words

    typer.echo(f"\n{title}:")
    print_table(
        ["Target", "Benchmark", "Set-up", "Note"],
        [
            [
                note.key.target,
                note.key.benchmark_label,
                f"{note.latest.configuration.model} {setup_words(note.latest.configuration)}",
                note.note,
            ]
            for note in notes
        ],
    )
