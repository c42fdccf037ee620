"""How far each limit lies above what a model's weights need: limit / need for each gate and dtype.

    python -m tests.benchmarks.limits --weights FILE --dtypes float32 bfloat16
    python -m tests.benchmarks.limits --weights FILE --device cuda:0 --dtypes float16 bfloat16

Need is the worst value of the healthy runs of `evidence`: shuffled packs, several token budgets,
every third run with a harmless rewriting. Each run's value is held against the limit that this run
was judged by, so that limits by a run's own noise count as they are; the table has the run that
comes nearest. In float32 a second table has fair-esm itself as the unpacked side. Exit code 2 where
a limit is above 10 times the need without a reason that the table gives.
"""

import argparse
import sys
from functools import partial
from pathlib import Path

from virnucpro_monitor.cli.selftest import CPU_MODEL
from virnucpro_monitor.models.esm2_flash import load_esm2_model
from virnucpro_monitor.models.weights import load_checkpoint, resolve_weights
from virnucpro_monitor.records import GATES
from virnucpro_monitor.settings import load_settings
from virnucpro_monitor.validation.builtin import BuiltinSubject
from virnucpro_monitor.validation.evidence import ReferenceSubject, collect_evidence
from virnucpro_monitor.validation.oracle import prepare_oracle
from virnucpro_monitor.validation.protocol import load_protocol
from virnucpro_monitor.validation.selftest_material import selftest_benchmark

MOST = 10.0
_EXACT = "fair-esm is FP32 itself: no noise of these weights is seen, the protocol's limits stand"
_NOISE = "the noise that the others are derived from: nothing else in a run tells it"
_UNMOVED = "no healthy run moves it here; other kernels do"
_POSITIONS = "positions that run on cost 8 times the noise with other weights, and are harmless"


def reason_for(gate: str, dtype: str, ratio: float | None, *, exact: bool) -> str:
    """Why a limit may lie further above the need; "no reason" where it may not."""
    if ratio is None:
        return _UNMOVED
    if ratio <= MOST:
        return ""
    if exact:
        return _EXACT
    if gate == "baseline":
        return _NOISE
    if dtype == "float32" and gate in ("ceiling", "oracle", "probes"):
        return _POSITIONS
    return "no reason"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default=CPU_MODEL)
    parser.add_argument("--weights", default="synthetic", help="or a checkpoint")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtypes", nargs="+", default=["float32"])
    parser.add_argument(
        "--runs", type=int, default=39, help="healthy runs; 39 take every rewriting"
    )
    parser.add_argument("--cache", type=Path, default=load_settings().cache_folder)
    options = parser.parse_args()
    protocol = load_protocol()
    weights = resolve_weights(options.model, options.weights, cache_folder=options.cache)
    benchmark = selftest_benchmark()
    oracle = prepare_oracle(
        options.model, weights, benchmark, cache_folder=options.cache, device=options.device
    )
    good = True
    print(f"{options.model}, weights {weights.digest[:12]}, {options.device}, {options.runs} runs")
    print("| dtype | unpacked side | gate | limit / need | |\n|---|---|---|--:|---|", flush=True)
    for dtype in options.dtypes:
        model, converter = load_esm2_model(
            options.model, options.device, weights=str(weights.path), dtype=dtype
        )
        own = BuiltinSubject(model, converter, model_name=options.model)
        sides: dict[str, BuiltinSubject] = {"ours": own}
        if dtype == "float32":
            reference = load_checkpoint(options.model, weights.path)[0].to(options.device)
            sides["fair-esm"] = ReferenceSubject(own, reference)
        for side, subject in sides.items():
            found = collect_evidence(
                subject,
                benchmark,
                oracle,
                protocol,
                num_runs=options.runs,
                exact_probes=False,
                on_progress=partial(tell, f"{dtype}, {side}"),
            )
            for gate in GATES:
                if gate.limit is None or gate.name not in found["margins"]:
                    continue
                ratio = found["margins"][gate.name]
                reason = reason_for(gate.name, dtype, ratio, exact=side == "fair-esm")
                good = good and reason != "no reason"
                shown = "-" if ratio is None else f"{ratio:.1f}"
                print(f"| {dtype} | {side} | {gate.name} | {shown} | {reason} |", flush=True)
    return 0 if good else 2


def tell(what: str, done: int, total: int) -> None:
    if done % 13 == 0:
        print(f"{what}: {done} of {total} runs", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
