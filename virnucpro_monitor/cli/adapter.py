"""`virnucpro-monitor adapter list/check`: what can be watched, and whether it can be loaded."""

from __future__ import annotations

from collections.abc import Container
from typing import TYPE_CHECKING, Annotated

import typer

from virnucpro_monitor.cli.options import JsonOption, print_json, progress_line, takes
from virnucpro_monitor.records import GATES, NO_ORACLE
from virnucpro_monitor.settings import Settings

if TYPE_CHECKING:
    from virnucpro_monitor.monitor.trying import Trial

TRIAL_SETTINGS = ("model", "weights", "device", "dtype", "token_budget")
# The smallest model, with weights that need no download: what is tried is the adapter.
TRIAL_DEFAULTS = {
    "model": "esm2_t6_8M_UR50D",
    "weights": "synthetic",
    "device": "cpu",
    "dtype": "float32",
}


def register(app: typer.Typer) -> None:
    group = typer.Typer(help="How models are loaded: list, check.", no_args_is_help=True)
    group.command("list")(list_adapters)
    group.command("check")(check)
    app.add_typer(group, name="adapter")


def list_adapters(as_json: JsonOption = False) -> None:
    """List the adapters that come with the monitor and those of installed packages."""
    from virnucpro_monitor.monitor.trying import known_adapters

    found = known_adapters()
    if as_json:
        print_json(found)
        return
    for one in found:
        typer.echo(f"{one.name:<16}  {one.about}")
        for key, values in one.options.items():
            typer.echo(f"{'':<16}  {key}={'|'.join(values)}")
        if one.missing:
            typer.echo(f"{'':<16}  not installed: pip install {one.missing}")
    typer.echo("or module:callable, or file.py:callable of the watched repository")


@takes(*TRIAL_SETTINGS, defaults=TRIAL_DEFAULTS)
def check(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help="As in hf-esm, hf-esm:way=kwargs, module:callable, file.py:callable.",
        ),
    ],
    settings: Settings,
    as_json: JsonOption = False,
) -> None:
    """Load a model with an adapter and embed three sequences alone and packed.

    Exit code: 0 they agree, 2 they do not, 1 it cannot be loaded.
    """
    from virnucpro_monitor.monitor.trying import check_adapter

    with progress_line() as show:
        trial = check_adapter(settings, name, show)
    if as_json:
        print_json(trial)
    else:
        for line in describe_trial(trial):
            typer.echo(line)
    if trial.verdict.outcome != "passed":
        raise typer.Exit(2)


def describe_trial(trial: Trial) -> list[str]:
    """What came of a trial, one line each."""
    from virnucpro_monitor.monitor.trying import largest

    results, gates = trial.verdict.sequences, trial.verdict.gates
    width = "?" if trial.width is None else trial.width
    alone = " ".join(f"[{length}, {width}]" for length in trial.lengths)

    def shown(value: float | None) -> str:
        return "not judged" if value is None else f"{value:.1e}"

    packed = largest([one.packed_relative_l2 for one in results])
    unpacked = largest([one.unpacked_relative_l2 for one in results])

    def named(passed: Container[bool | None]) -> str:
        return ", ".join(gate.name for gate in gates if gate.passed in passed) or "none"

    unasked = [one.name for one in GATES if one.name not in {gate.name for gate in gates}]
    return [
        f"adapter     {trial.adapter}",
        f"model       {_model_of(trial)}, {trial.num_layers} layers, attention {trial.backend}",
        f"alone       {alone}",
        f"together    [{sum(trial.lengths)}, {width}] in {trial.num_packs} "
        f"{'pack' if trial.num_packs == 1 else 'packs'}",
        f"difference  {shown(largest([one.relative_l2 for one in results]))} packed against alone "
        f"(relative L2, pooled)",
        f"to oracle   {shown(packed)} packed, {shown(unpacked)} alone; it is {trial.oracle}"
        if trial.oracle != NO_ORACLE
        else "to oracle   not judged: there is no oracle for this model",
        f"seconds     {trial.duration_s:.1f}",
        f"looked at   {len(results)} sequences of {min(trial.lengths)} to {max(trial.lengths)} "
        f"tokens; judged: {named((True, False))}; not judged: {named((None,))}",
        f"not asked   {', '.join(unasked)}: `virnucpro-monitor validate FASTA --adapter` asks",
        f"verdict     {trial.verdict.outcome}: {trial.verdict.reason}",
    ]


def _model_of(trial: Trial) -> str:
    """What was loaded, as far as its adapter's name tells: another model than ESM-2 has no size."""
    if trial.family != "esm2":
        return f"of the family {trial.family} (asked for in the size of {trial.model})"
    if trial.oracle == NO_ORACLE:
        return f"the adapter's own (asked for as {trial.model})"
    return trial.model
