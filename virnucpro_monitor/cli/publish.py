"""`virnucpro-monitor badge` and `metrics`: the newest verdicts, for other programs to show."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from virnucpro_monitor.cli.options import DatabaseOption, TargetOption, say

if TYPE_CHECKING:
    from virnucpro_monitor.monitor.histories import SeriesCard

FileArgument = Annotated[
    Path | None,
    typer.Argument(help="File to write; standard output without it.", show_default=False),
]


def register(app: typer.Typer) -> None:
    app.command("badge")(badge)
    app.command("metrics")(metrics)


def badge(
    file: FileArgument = None,
    target: TargetOption = None,
    label: Annotated[str, typer.Option("--label", help="Left half of the badge.")] = (
        "packed = unpacked"
    ),
    db: DatabaseOption = None,
) -> None:
    """Draw an SVG badge of the newest verdicts."""
    from virnucpro_monitor.report.badge import badge_svg

    _publish(file, badge_svg(_load_cards(target, db), label))


def metrics(
    file: FileArgument = None, target: TargetOption = None, db: DatabaseOption = None
) -> None:
    """Write the newest figures in Prometheus' text format, for its node exporter."""
    from virnucpro_monitor.report.prometheus import prometheus_text

    _publish(file, prometheus_text(_load_cards(target, db)))


def _load_cards(target: str | None, db: str | None) -> list[SeriesCard]:
    from virnucpro_monitor.monitor.histories import list_series
    from virnucpro_monitor.monitor.naming import choose_target
    from virnucpro_monitor.monitor.opening import open_database

    with open_database(db) as engine:
        name = choose_target(engine, target).name if target else None
        return [card for card in list_series(engine) if name in (None, card.key.target)]


def _publish(file: Path | None, text: str) -> None:
    from virnucpro_monitor.report.export import replace_file

    if file is None:
        typer.echo(text, nl=False)
        return
    replace_file(file, text)
    say(f"Wrote {file}.")
