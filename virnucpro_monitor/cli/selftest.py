"""`virnucpro-monitor selftest`: inject every known fault and print the kill matrix."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from virnucpro_monitor.cli.options import (
    BackendOption,
    DeviceOption,
    DtypeOption,
    JsonOption,
    ModelOption,
    WeightsOption,
    print_json,
    say,
)
from virnucpro_monitor.settings import is_terminal, load_settings

if TYPE_CHECKING:
    from virnucpro_monitor.validation.selftest import FaultResult, SelftestReport

# The smallest official size: the faults are of the arithmetic, not of the scale.
CPU_MODEL = "esm2_t6_8M_UR50D"
GPU_DTYPES = ("float16", "bfloat16")
_EXACT = "exact"


def register(app: typer.Typer) -> None:
    app.command("selftest")(selftest)


def selftest(
    device: DeviceOption = None,
    model: ModelOption = None,
    weights: WeightsOption = None,
    dtype: DtypeOption = None,
    backend: BackendOption = None,
    healthy_runs: Annotated[
        int,
        typer.Option("--healthy-runs", metavar="N", min=1, help="Runs of the healthy model."),
    ] = 5,
    as_json: JsonOption = False,
) -> None:
    """Inject every known fault and print which gates notice it.

    On the CPU in float32 with the smallest model; on a GPU in float16 and bfloat16 with the 650M
    model; both with synthetic weights. Exit code 2 where a fault survives, a harmless change fires,
    or a gate fires on the healthy model.
    """
    settings = load_settings(device=device or "cpu", backend=backend)
    on_cpu = settings.device.startswith("cpu")
    name = model or (CPU_MODEL if on_cpu else settings.model)
    dtypes = (dtype,) if dtype else ("float32",) if on_cpu else GPU_DTYPES
    reports = [
        _run_one(
            name,
            weights or "synthetic",
            settings.device,
            one,
            settings.backend,
            settings.cache_folder,
            healthy_runs,
        )
        for one in dtypes
    ]
    if as_json:
        values = [report_to_json(report) for report in reports]
        print_json(values[0] if len(values) == 1 else {"runs": values})
    else:
        for report in reports:
            print_report(report)
    if not all(report.passed for report in reports):
        raise typer.Exit(2)


def _run_one(
    model: str,
    weights: str,
    device: str,
    dtype: str,
    backend: str,
    cache_folder: Any,
    healthy_runs: int,
) -> SelftestReport:
    from virnucpro_monitor.models.esm2_flash import load_esm2_model
    from virnucpro_monitor.models.weights import resolve_weights
    from virnucpro_monitor.validation.builtin import BuiltinSubject
    from virnucpro_monitor.validation.oracle import prepare_oracle
    from virnucpro_monitor.validation.protocol import load_protocol
    from virnucpro_monitor.validation.selftest import (
        SELFTEST_TOKEN_BUDGET,
        run_selftest,
        selftest_benchmark,
    )

    resolved = resolve_weights(model, weights, cache_folder=cache_folder)
    loaded, converter = load_esm2_model(
        model, device, weights=str(resolved.path), dtype=dtype, backend=backend
    )
    benchmark = selftest_benchmark()
    oracle = prepare_oracle(model, resolved, benchmark, cache_folder=cache_folder, device=device)
    subject = BuiltinSubject(
        loaded, converter, model_name=model, token_budget=SELFTEST_TOKEN_BUDGET
    )
    drawn = is_terminal()

    def show(done: int, total: int, name: str) -> None:
        if drawn:
            typer.echo(f"\r\x1b[K{done}/{total}  {name}", nl=False, err=True)

    report = run_selftest(
        subject,
        benchmark,
        oracle,
        load_protocol(),
        num_healthy_runs=healthy_runs,
        on_progress=show,
    )
    if drawn:
        typer.echo("\r\x1b[K", nl=False, err=True)
    return report


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
    if result.idle:
        return f"NOT IN PLACE: {', '.join(result.idle)}"
    if result.kind == "control":
        return "passes" if result.as_expected else "FIRES"
    if result.killed_by:
        return f"killed, {result.culprit}"
    return "below noise" if result.below_noise else "SURVIVES"
