"""How far each limit lies above what a model's weights need: limit / need for each gate and dtype.

    python -m tests.benchmarks.limits --weights FILE --dtypes float32 bfloat16
    python -m tests.benchmarks.limits --weights FILE --device cuda:0 --dtypes float16 bfloat16

Need is the worst value of the healthy runs of `evidence`: shuffled packs, several token budgets,
every third run with a harmless rewriting, in float32 every other one beside fair-esm itself. Limit
is the one that a run with these weights is judged by. Exit code 2 where a limit is above 10 times
the need without a reason that the table gives.
"""

import argparse
import sys
from pathlib import Path

import torch

from virnucpro_monitor.cli.selftest import CPU_MODEL
from virnucpro_monitor.models.esm2_flash import load_esm2_model
from virnucpro_monitor.models.weights import load_checkpoint, resolve_weights
from virnucpro_monitor.settings import load_settings
from virnucpro_monitor.validation.builtin import BuiltinSubject
from virnucpro_monitor.validation.evidence import collect_evidence
from virnucpro_monitor.validation.oracle import prepare_oracle
from virnucpro_monitor.validation.protocol import limits_for, limits_key, load_protocol
from virnucpro_monitor.validation.selftest_material import selftest_benchmark

MOST = 10.0
REASONS: dict[str, str] = {}


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
    print(
        "| dtype | limit of | limit | need | limit / need | |\n|---|---|--:|--:|--:|---|",
        flush=True,
    )
    for dtype in options.dtypes:
        model, converter = load_esm2_model(
            options.model, options.device, weights=str(weights.path), dtype=dtype
        )
        reference = None
        if dtype == "float32":
            reference = load_checkpoint(options.model, weights.path)[0].to(options.device)
        subject = BuiltinSubject(model, converter, model_name=options.model)
        with torch.inference_mode():
            found = collect_evidence(
                subject,
                benchmark,
                oracle,
                protocol,
                num_runs=options.runs,
                reference=reference,
                exact_probes=False,
                on_progress=lambda done, all, dtype=dtype: print(
                    f"{dtype}: {done} of {all} runs", file=sys.stderr, flush=True
                ),
            )
        limits = limits_for(protocol, limits_key(dtype, options.device, options.model))
        for name, need in sorted(found["worst"].items()):
            ratio = limits[name] / need if need else float("inf")
            reason = REASONS.get(name, "" if ratio <= MOST else "no reason")
            good = good and reason != "no reason"
            print(
                f"| {dtype} | {name} | {limits[name]:.1e} | {need:.1e} | {ratio:.1f} | {reason} |",
                flush=True,
            )
    return 0 if good else 2


if __name__ == "__main__":
    sys.exit(main())
