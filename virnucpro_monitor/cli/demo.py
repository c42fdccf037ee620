"""`virnucpro-monitor demo`: a small repository with known faults, validated for real on the CPU."""

import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated

import typer

from virnucpro_monitor.cli.options import DatabaseOption, say
from virnucpro_monitor.records import Outcome, Run, Target
from virnucpro_monitor.settings import Settings, load_settings

TARGET_NAME = "tinypack"
MODEL = "esm2_t6_demo"  # nobody else's: `models.weights.DEMO_MODEL`
RELEASES_MODEL = "esm2_t6_8M_UR50D"  # the smallest that a package's own users load
BENCHMARK = "seed"
TOKEN_BUDGET = 512  # more than one pack, long sequences in one and short ones in the other


def register(app: typer.Typer) -> None:
    app.command("demo")(demo)


def demo(
    no_open: Annotated[
        bool, typer.Option("--no-open", help="Only validate: do not serve the dashboard.")
    ] = False,
    releases: Annotated[
        bool,
        typer.Option(
            "--releases", help="Releases of transformers instead, each in its own environment."
        ),
    ] = False,
    db: DatabaseOption = None,
) -> None:
    """Validate a sample repository with known faults on the CPU, and open the dashboard.

    The sample is a small packed ESM-2 whose history breaks and mends it several times. Every commit
    is checked out, loaded and measured like any other target's, by the same protocol. Only the
    model is the demo's own: esm2_t6_demo, ESM-2's architecture of six layers, 64 wide, with
    synthetic weights. Run again, it measures only what the database does not hold yet. Exit code:
    0 when it ran to its end, whatever the commits' outcomes.

    With --releases it is a public history instead: Hugging Face's EsmModel from transformers 4.53
    on, 8M, of which one release broke <mask> in padded batches and another mended it. Wheels are
    fetched once into demo/wheels of the cache folder; afterwards no network is needed.
    """
    from virnucpro_monitor.monitor.databases import database_name
    from virnucpro_monitor.report.text import count

    settings = demo_settings(db, RELEASES_MODEL if releases else MODEL)
    began = time.monotonic()
    runs = validate_releases(settings) if releases else validate_sample(settings)
    for name in dict.fromkeys(run.target for run in runs):
        if releases:
            typer.echo(f"\n{name}")
        print_verdicts([run for run in runs if run.target == name])
    if releases:
        say_incidents(settings)
    counts = ", ".join(
        f"{sum(run.effective_outcome is outcome for run in runs)} {outcome.replace('_', ' ')}"
        for outcome in Outcome
        if any(run.effective_outcome is outcome for run in runs)
    )
    database = database_name(settings.database_url)
    number = count(len(runs), "release" if releases else "commit")
    say(f"{number}: {counts}; {time.monotonic() - began:.0f} s. Stored in {database}.")
    if no_open:
        return
    from virnucpro_monitor.cli.dashboard import serve

    serve(settings.database_url)


def demo_settings(db: str | None, model: str = MODEL) -> Settings:
    """The user's settings, with everything that decides the demo's results fixed."""
    return load_settings(
        db=db,
        model=model,
        weights="synthetic",
        device="cpu",
        dtype="float32",
        backend="auto",
        token_budget=TOKEN_BUDGET,
        benchmark=[f"{BENCHMARK}@1"],
    )


def validate_sample(settings: Settings) -> list[Run]:
    """Build the sample repository in the cache, run its history, store it; oldest commit first.

    Raises:
        MonitorError: the repository cannot be built, or the runner cannot be set up.
    """
    from virnucpro_monitor.cli.run import stopping_on_terminate
    from virnucpro_monitor.monitor.starting import workers_ahead

    with workers_ahead(settings) as pool:
        from virnucpro_monitor.cli.run_display import listening, open_display
        from virnucpro_monitor.cli.sample.repository import build_repository
        from virnucpro_monitor.monitor.running import RunOptions, run_and_store

        folder = sample_folder(settings)
        hashes = build_repository(folder)
        say(
            f"Validating the {len(hashes)} commits of {folder} on the CPU, with {MODEL}: "
            "the demo's own small ESM-2, of synthetic weights."
        )
        target = Target(name=TARGET_NAME, location=str(folder), package=TARGET_NAME, branch="main")
        options = RunOptions(revisions=hashes)
        with stopping_on_terminate(), open_display() as display:
            outcome = run_and_store(settings, target, options, listening(display), pool)
            display.message(outcome.summary)
    return in_history_order([*outcome.settled, *outcome.runs], hashes)


def validate_releases(settings: Settings) -> list[Run]:
    """Run a public package's releases and store them; by target, oldest release first.

    Raises:
        MonitorError: wheels cannot be had, or the runner cannot be set up.
    """
    from virnucpro_monitor.cli.run import stopping_on_terminate
    from virnucpro_monitor.cli.run_display import listening, open_display
    from virnucpro_monitor.monitor import release_demo

    demo = release_demo.TRANSFORMERS
    with stopping_on_terminate(), open_display() as display:
        found = release_demo.run_releases(settings, demo, listening(display))
    return [
        run
        for name, (_, releases) in demo.targets.items()
        for run in in_history_order([*found[name].settled, *found[name].runs], releases)
    ]


def say_incidents(settings: Settings) -> None:
    """Say which release broke something, and which mended it."""
    from virnucpro_monitor.monitor.opening import open_database
    from virnucpro_monitor.monitor.questions import load_incidents
    from virnucpro_monitor.monitor.release_demo import TRANSFORMERS
    from virnucpro_monitor.report.sentences import incident_sentence

    with open_database(settings.database_url) as engine:
        for name in TRANSFORMERS.targets:
            for incident in load_incidents(engine, target=name):
                say(f"{name}: {incident_sentence(incident)}")


def sample_folder(settings: Settings) -> Path:
    return settings.cache_folder / "demo" / TARGET_NAME


def in_history_order(runs: Iterable[Run], hashes: Sequence[str]) -> list[Run]:
    """The latest run of each commit, in the order of `hashes`."""
    latest = {run.commit.hash: run for run in runs}
    return [latest[commit] for commit in hashes if commit in latest]


def print_verdicts(runs: Sequence[Run]) -> None:
    """Print one line a commit: outcome, how many sequences agree, worst error, side, reason."""
    from virnucpro_monitor.analysis.series import worst_error
    from virnucpro_monitor.cli.tables import OUTCOME_STYLES, print_table
    from virnucpro_monitor.report.text import UNKNOWN, format_error

    rows = []
    for run in runs:
        figures = run.figures
        passed = run.effective_outcome is Outcome.PASSED
        rows.append(
            (
                run.commit.short,
                run.commit.subject,
                str(run.effective_outcome),
                f"{figures.num_strict} of {figures.num_sequences}" if figures else UNKNOWN,
                format_error(worst_error(run)),
                UNKNOWN if passed or run.culprit is None else str(run.culprit),
                "" if passed else short_reason(run.reason),
            )
        )
    print_table(
        ("Commit", "Subject", "Outcome", ">Agree", ">1 - cos", "Wrong side", "Reason"),
        rows,
        styles=[OUTCOME_STYLES[run.effective_outcome] for run in runs],
    )


def short_reason(reason: str) -> str:
    """The clauses of a verdict's reason that say which side is wrong, and where it departs.

    The clauses after them repeat what the table's other columns say.
    """
    return "; ".join(reason.split("; ")[:2]).rstrip(".")
