"""`virnucpro-monitor selftest`: inject every known fault and print the kill matrix."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from virnucpro_monitor.cli.options import JsonOption, print_json, progress_line, say, takes
from virnucpro_monitor.settings import DEFAULT_MODEL, Settings

if TYPE_CHECKING:
    from virnucpro_monitor.validation.kill_matrix import FaultResult, SelftestReport

# The smallest official size: the faults are of the arithmetic, not of the scale.
CPU_MODEL = "esm2_t6_8M_UR50D"
GPU_DTYPES = ("float16", "bfloat16")
MOST_WORKERS = 8
_EXACT = "exact"


def register(app: typer.Typer) -> None:
    app.command("selftest")(selftest)


@takes(
    "device",
    "model",
    "weights",
    "dtype",
    "backend",
    "protocol",
    defaults={
        "device": "cpu",
        "model": CPU_MODEL,
        "weights": "synthetic",
        "dtype": "float32",
    },
    shown={
        "model": f"{CPU_MODEL}; on a GPU {DEFAULT_MODEL}",
        "dtype": f"float32; on a GPU {' and '.join(GPU_DTYPES)}",
    },
)
def selftest(
    settings: Settings,
    healthy_runs: Annotated[
        int,
        typer.Option("--healthy-runs", metavar="N", min=1, help="Runs of the healthy model."),
    ] = 5,
    workers: Annotated[
        int | None,
        typer.Option(
            "--workers",
            metavar="N",
            min=1,
            help="Processes at once.",
            show_default=f"one on a GPU; on the CPU one a core, {MOST_WORKERS} at most",
        ),
    ] = None,
    each: Annotated[
        bool, typer.Option("--each", help="Say of each change what became of it, at once.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Inject every known fault and print which gates notice it.

    On the CPU in float32 with the smallest model; on a GPU in float16 and bfloat16 with the 650M
    model; both with synthetic weights. A change that brings the device down counts as noticed, and
    a new process goes on after it. Exit code 2 where a fault survives, a harmless change fires, or
    a gate fires on the healthy model.
    """
    from virnucpro_monitor.monitor.validating import selftest_builtin

    with progress_line() as show:
        reports = [
            selftest_builtin(
                one,
                num_healthy_runs=healthy_runs,
                workers=workers or default_workers(one.device),
                on_progress=show,
                on_row=say_row if each else None,
            )
            for one in setups(settings)
        ]
    if as_json:
        values = [report_to_json(report) for report in reports]
        print_json(values[0] if len(values) == 1 else {"runs": values})
    else:
        for report in reports:
            print_report(report)
    if not all(report.passed for report in reports):
        raise typer.Exit(2)


def setups(settings: Settings) -> list[Settings]:
    """The set-ups to try: on a GPU both half precisions with the larger model, unless chosen."""
    if settings.device.startswith("cpu"):
        return [settings]
    chosen = settings.model_fields_set
    model = settings.model if "model" in chosen else DEFAULT_MODEL
    dtypes = (settings.dtype,) if "dtype" in chosen else GPU_DTYPES
    return [settings.model_copy(update={"model": model, "dtype": dtype}) for dtype in dtypes]


def default_workers(device: str) -> int:
    """A process for each core that may be used, where there is no card."""
    return min(MOST_WORKERS, len(os.sched_getaffinity(0))) if device.startswith("cpu") else 1


def say_row(done: int, total: int, row: FaultResult) -> None:
    """A line of the matrix as soon as it is there."""
    gates = ", ".join(row.killed_by) or "no gate"
    margin = margin_text(row)
    say(
        f"{done}/{total} {row.name}: {verdict_text(row)}; {gates}"
        + (f"; {margin} x the limit" if margin else "")
        + (f"; {row.signature}" if row.signature else "")
    )


def report_to_json(report: SelftestReport) -> dict[str, Any]:
    """The kill matrix as JSON values."""
    from virnucpro_monitor.records import to_json

    def rows(results: Sequence[FaultResult]) -> list[dict[str, Any]]:
        return [{**to_json(result), "as_expected": result.as_expected} for result in results]

    return {
        "model": report.model,
        "dtype": report.dtype,
        "device": report.device,
        "backend": report.backend,
        "protocol": report.protocol,
        "passed": report.passed,
        "num_killed": report.num_killed,
        "num_killed_by_seed": report.num_killed_by_seed,
        "faults": rows(report.faults),
        "controls": rows(report.controls),
        "healthy": report.healthy,
        "healthy_failures": list(report.healthy_failures),
        "num_healthy_runs": report.num_healthy_runs,
    }


def print_report(report: SelftestReport) -> None:
    """Print the matrix as a table: one row per fault, one column per gate."""
    from rich.console import Console
    from rich.table import Table

    say(
        f"\n{report.model}, {report.dtype}, {report.device}, {report.backend}, "
        f"protocol {report.protocol}"
    )
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("injected", no_wrap=True)
    for gate in report.gates:
        # One letter a line: the names of 15 gates have to fit beside each other.
        table.add_column("\n".join(gate), justify="center", vertical="bottom")
    table.add_column("margin", justify="right", vertical="bottom")
    table.add_column("verdict", vertical="bottom", no_wrap=True)
    for result in (*report.faults, *report.controls):
        marks = ["x" if gate in result.killed_by else "·" for gate in report.gates]
        table.add_row(result.name, *marks, margin_text(result), verdict_text(result))
    Console(width=max(120, Console().width)).print(table)
    for result in report.faults:
        if result.below_noise:
            say(
                f"Below noise: {result.name} moves the {result.effect_gate} gate to "
                f"{result.effect or 0:.2g} x its limit; healthy models move it to "
                f"{result.floor or 0:.2g} x."
            )
    say(
        f"{report.num_killed} of {len(report.faults)} faults killed; the seed's rule alone kills "
        f"{report.num_killed_by_seed}. "
        f"{sum(not c.killed_by for c in report.controls)} of {len(report.controls)} harmless "
        f"changes pass. {report.num_healthy_runs - len(report.healthy_failures)} of "
        f"{report.num_healthy_runs} healthy runs pass."
    )
    for failure in report.healthy_failures:
        say(f"A gate fires on the healthy model: {failure}")
    tight = {name: value for name, value in report.healthy.items() if value is not None}
    if tight:
        nearest = min(tight, key=lambda name: tight[name])
        say(f"Nearest healthy gate: {nearest}, {tight[nearest]:.1f} x below its limit.")


def margin_text(result: FaultResult) -> str:
    """How many times the limit the clearest failing gate shows."""
    if not result.killed_by:
        return "" if result.effect is None else f"{result.effect:.2g}"
    if result.margin is None:
        return _EXACT
    return f"{result.margin:,.1f}" if result.margin < 100 else f"{result.margin:.1e}"


def verdict_text(result: FaultResult) -> str:
    """What became of one injected change, in a word or two."""
    from virnucpro_monitor.validation.kill_matrix import DEVICE

    if result.idle and result.kind == "range":
        return "not reached"
    if result.idle:
        return f"NOT IN PLACE: {', '.join(result.idle)}"
    if result.kind in ("control", "healthy"):
        return "passes" if result.as_expected else "FIRES"
    if result.killed_by == (DEVICE,):
        return "killed: the device failed"
    if result.killed_by:
        return f"killed, {result.culprit}"
    return "below noise" if result.below_noise else "SURVIVES"
