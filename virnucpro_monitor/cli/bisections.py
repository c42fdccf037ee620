"""`virnucpro-monitor bisections list/show`: past searches for the commit that broke something."""

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
    from virnucpro_monitor.records import Bisection

STYLES = {"found": "green", "not finished": "yellow", "not found": "magenta"}


def register(app: typer.Typer) -> None:
    group = typer.Typer(no_args_is_help=True, help="Past bisections: list, show.")
    group.command("list")(list_bisections)
    group.command("show")(show)
    app.add_typer(group, name="bisections")


def list_bisections(
    target: TargetOption = None, db: DatabaseOption = None, as_json: JsonOption = False
) -> None:
    """List past bisections, the latest started last."""
    from virnucpro_monitor.monitor.naming import choose_target
    from virnucpro_monitor.monitor.opening import open_database
    from virnucpro_monitor.monitor.questions import load_bisections
    from virnucpro_monitor.records import short_hash
    from virnucpro_monitor.report.text import UNKNOWN

    with open_database(db) as engine:
        name = choose_target(engine, target).name if target else None
        found = load_bisections(engine, name)
    if as_json:
        print_json([bisection_values(one) for one in found])
        return
    if not found:
        say("No bisection is stored: virnucpro-monitor bisect GOOD BAD makes one.")
        return
    print_table(
        [
            ">Id",
            "Target",
            "Good",
            "Bad",
            "Benchmark",
            "By",
            "State",
            "Found",
            ">Steps",
            "Started",
        ],
        [
            [
                str(one.id),
                one.target,
                short_hash(one.good),
                short_hash(one.bad),
                one.benchmark,
                f"gate {one.gate}" if one.gate else "verdict",
                one.state,
                f"{short_hash(one.first_bad)}, first {one.brought}" if one.first_bad else UNKNOWN,
                str(len(one.steps)),
                f"{one.started_at:%Y-%m-%d %H:%M}",
            ]
            for one in found
        ],
        styles=[STYLES[one.state] for one in found],
    )


def show(
    number: Annotated[
        int, typer.Argument(metavar="ID", help="A bisection's number.", show_default=False)
    ],
    db: DatabaseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show one bisection: its ends, each commit that was tried, and what it came to."""
    from virnucpro_monitor.monitor.opening import open_database
    from virnucpro_monitor.monitor.questions import find_bisection
    from virnucpro_monitor.records import short_hash
    from virnucpro_monitor.report.text import block

    with open_database(db) as engine:
        one = find_bisection(engine, number)
    if as_json:
        print_json(bisection_values(one))
        return
    by = f"by the gate {one.gate}" if one.gate else "by the whole verdict"
    typer.echo(f"Bisection {one.id} of {one.target} on {one.benchmark}, {by}: {one.state}.")
    typer.echo(f"good  {one.good}\nbad   {one.bad}\n")
    print_table(
        [">Step", "Commit", "Verdict", "From", ">Run", "At"],
        [
            [
                str(step.step),
                short_hash(step.commit),
                step.verdict,
                "stored" if step.reused else "measured",
                "" if step.run_id is None else str(step.run_id),
                f"{step.at:%Y-%m-%d %H:%M:%S}",
            ]
            for step in one.steps
        ],
    )
    if one.conclusion:
        typer.echo(f"\n{block(one.conclusion)}")


def bisection_values(one: "Bisection") -> dict[str, object]:
    """One bisection as JSON values, its state and what it found said."""
    from virnucpro_monitor.records import to_json

    return {**to_json(one), "state": one.state, "brought": one.brought}
