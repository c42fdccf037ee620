"""Options that several commands share, and the two ways to print a result."""

import json
from typing import Annotated, Any

import typer

from virnucpro_monitor.records import to_json
from virnucpro_monitor.secrecy import masked
from virnucpro_monitor.settings import Settings


def setting(name: str, text: str) -> str:
    """An option's help with the default that its setting has."""
    default = Settings.model_fields[name].default
    shown = ", ".join(default) if isinstance(default, list) else default
    return f"{text} [default: {shown}]"


DatabaseOption = Annotated[
    str | None,
    typer.Option(
        "--db",
        metavar="URL",
        help="Database URL, sqlite:///FILE or postgresql://… "
        "[env: VIRNUCPRO_MONITOR_DB; default: an SQLite file in the user's data folder]",
        show_default=False,
    ),
]
JsonOption = Annotated[
    bool, typer.Option("--json", help="Print JSON to standard output and nothing else there.")
]
TargetOption = Annotated[
    str | None,
    typer.Option("--target", metavar="NAME|PATH", help="A target's name, or a git repository."),
]
BenchmarkOption = Annotated[
    list[str] | None,
    typer.Option(
        "--benchmark",
        metavar="NAME",
        help=setting("benchmark", "Benchmark set; may be given several times."),
    ),
]
ModelOption = Annotated[
    str | None,
    typer.Option(
        "--model", metavar="NAME", help=setting("model", "Official name of an ESM-2 size.")
    ),
]
WeightsOption = Annotated[
    str | None,
    typer.Option(
        "--weights",
        metavar="SOURCE",
        help=setting("weights", "official, synthetic, or a .pt file."),
    ),
]
DeviceOption = Annotated[
    str | None, typer.Option("--device", metavar="DEVICE", help=setting("device", "cpu or cuda:N."))
]
DtypeOption = Annotated[
    str | None,
    typer.Option(
        "--dtype", metavar="DTYPE", help=setting("dtype", "float32, float16 or bfloat16.")
    ),
]
BackendOption = Annotated[
    str | None,
    typer.Option(
        "--backend",
        metavar="NAME",
        help=setting("backend", "auto, triton, flash-attn, torch-varlen or sdpa."),
    ),
]
TokenBudgetOption = Annotated[
    int | None,
    typer.Option(
        "--token-budget", metavar="N", help=setting("token_budget", "Tokens in one pack."), min=3
    ),
]
PackageOption = Annotated[
    str | None,
    typer.Option("--package", metavar="NAME", help="Import root of the target's package."),
]
TimeoutOption = Annotated[
    float | None,
    typer.Option(
        "--timeout", metavar="SECONDS", min=1, help=setting("timeout_s", "Time limit of one run.")
    ),
]


def print_json(value: Any) -> None:
    """Write records or plain values to standard output as JSON. NaN is refused."""
    typer.echo(json.dumps(to_json(value), indent=2, allow_nan=False))


def say(message: str) -> None:
    """Write a line for a person, to standard error; passwords are masked."""
    typer.echo(masked(message), err=True)
