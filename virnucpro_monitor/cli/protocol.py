"""`virnucpro-monitor protocol list/show/calibrate`: the limits that runs are judged by."""

from pathlib import Path
from typing import Annotated, Any

import typer

from virnucpro_monitor.cli.options import JsonOption, print_json, progress_line, say, takes
from virnucpro_monitor.settings import Settings


def register(app: typer.Typer) -> None:
    group = typer.Typer(no_args_is_help=True, help="Protocols: list, show, calibrate.")
    group.command("list")(list_protocols)
    group.command("show")(show)
    group.command("calibrate")(calibrate)
    app.add_typer(group, name="protocol")


def list_protocols(as_json: JsonOption = False) -> None:
    """List the released protocols, the latest last."""
    from virnucpro_monitor.validation.protocol import LATEST, RELEASED_DIGESTS

    rows = [
        {"version": version, "digest": digest, "latest": version == LATEST}
        for version, digest in RELEASED_DIGESTS.items()
    ]
    if as_json:
        print_json(rows)
        return
    for row in rows:
        typer.echo(f"{row['version']:<4} {row['digest']}{'  latest' if row['latest'] else ''}")


def show(
    protocol: Annotated[
        str, typer.Argument(metavar="PROTOCOL", help="A version, or a .json file.")
    ] = "",
    as_json: JsonOption = False,
) -> None:
    """Show a protocol's thresholds and limits, and how many healthy runs stand behind them."""
    from virnucpro_monitor.validation.protocol import load_protocol

    found = load_protocol(protocol or None)
    if as_json:
        print_json(found.content)
        return
    print_limits(found.version, found.digest, found.content)
    if protocol.endswith(".json"):
        from virnucpro_monitor.validation.evidence import limits_beyond_evidence

        beyond = limits_beyond_evidence(found.content)
        if beyond:
            others = f" and {len(beyond) - 3} more" if len(beyond) > 3 else ""
            say(
                f"Wider than 3 x the worst of its healthy runs: {', '.join(beyond[:3])}{others}. "
                "`protocol calibrate` freezes limits with evidence."
            )


@takes("device", "model", "weights", "dtype", "backend", "protocol")
def calibrate(
    settings: Settings,
    output: Annotated[Path, typer.Argument(metavar="FILE", help="The protocol to write (.json).")],
    runs: Annotated[
        int, typer.Option("--runs", metavar="N", min=200, help="Healthy runs to measure.")
    ] = 200,
    as_json: JsonOption = False,
) -> None:
    """Freeze limits for these weights, this model and this machine, from healthy runs.

    The file is what `--protocol` takes. A calibration that was stopped goes on when it is started
    again with the same file.
    """
    from virnucpro_monitor.monitor.validating import calibrate_builtin
    from virnucpro_monitor.validation.calibration import RUNS_OF_A_PART

    try:
        with progress_line() as shown:
            protocol = calibrate_builtin(settings, output, num_runs=runs, on_progress=shown)
    except KeyboardInterrupt:
        say(
            "Interrupted: started again with the same file, it goes on after the last whole "
            f"{RUNS_OF_A_PART} runs."
        )
        raise
    say(f"Wrote {output}: give it to --protocol.")
    if as_json:
        print_json({"path": str(output), "version": protocol.version, "digest": protocol.digest})
    else:
        print_limits(protocol.version, protocol.digest, protocol.content)


def print_limits(version: str, digest: str, content: Any) -> None:
    """The seed's thresholds, and a line of limits for each dtype, and for a model's own."""
    thresholds = content["thresholds"]
    typer.echo(f"Protocol {version}  {digest}")
    typer.echo("  ".join(f"{name} {value:g}" for name, value in thresholds.items()))
    limits = content["limits"]
    names = list(dict.fromkeys(name for of_dtype in limits.values() for name in of_dtype))
    width = max(map(len, limits))
    typer.echo(f"{'limits for':<{width}}" + "".join(f"{name:>10}" for name in names))
    for dtype, of_dtype in sorted(limits.items()):
        values = [f"{of_dtype[name]:.1e}" if name in of_dtype else "" for name in names]
        typer.echo(f"{dtype:<{width}}" + "".join(f"{value:>10}" for value in values))
    runs = sum(record["num_runs"] for record in content.get("evidence", {}).get("runs", ()))
    typer.echo(f"From {runs:,} healthy runs.")
