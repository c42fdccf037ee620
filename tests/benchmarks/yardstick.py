"""Healthy runs and the kill matrix on one machine: evidence for a protocol's limits, and a check.

    python -m tests.benchmarks.yardstick --out evidence.json
    python -m tests.benchmarks.yardstick --device cpu --seed 1 --no-selftest --out check.json

For each dtype: the model with synthetic weights, its FP32 oracle, healthy runs with shuffled packs,
several token budgets and harmless rewritings, then every injected fault. The unpacked side and the
oracle are computed once. On the CPU the smallest model is taken, in float32 unless told otherwise.
Exit code 2 where a healthy run fails the present limits or the kill matrix does not pass.
`freeze_protocol` turns the written file into limits; other seeds then check them.
"""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import torch

from virnucpro_monitor.cli.selftest import CPU_MODEL, GPU_DTYPES, report_to_json
from virnucpro_monitor.data.benchmarks import benchmark_digest, load_benchmark
from virnucpro_monitor.models.esm2_flash import load_esm2_model
from virnucpro_monitor.models.weights import load_checkpoint, resolve_weights
from virnucpro_monitor.records import BenchmarkSet
from virnucpro_monitor.settings import load_settings
from virnucpro_monitor.validation.builtin import BuiltinSubject
from virnucpro_monitor.validation.evidence import collect_evidence
from virnucpro_monitor.validation.oracle import prepare_oracle
from virnucpro_monitor.validation.protocol import limits_for, limits_key, load_protocol
from virnucpro_monitor.validation.selftest import (
    run_selftest,
)
from virnucpro_monitor.validation.selftest_material import SELFTEST_TOKEN_BUDGET, selftest_benchmark


def evidence_benchmark(count: int) -> BenchmarkSet:
    """The self-test's sequences and others of `proteome`, spread over all its lengths."""
    ordered = sorted(load_benchmark("proteome").sequences, key=lambda s: (len(s.residues), s.id))
    step = max(1, len(ordered) // max(1, count))
    spread = {s.id: s for s in (*selftest_benchmark().sequences, *ordered[::-step][:count])}
    chosen = list(spread.values())
    return BenchmarkSet(
        name="evidence", version=1, digest=benchmark_digest(chosen), sequences=tuple(chosen)
    )


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", help="default: 650M on a GPU, the smallest on the CPU")
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--dtypes", nargs="+")
    parser.add_argument("--runs", type=int, default=200, help="healthy runs")
    parser.add_argument("--weights", default="synthetic", help="or a checkpoint")
    parser.add_argument(
        "--seed", type=int, nargs="+", default=[0], help="of the shuffles; `--runs` runs for each"
    )
    parser.add_argument("--benchmark", help="a shipped set instead of a part of `proteome`")
    parser.add_argument("--sequences", type=int, default=24, help="besides the self-test's seven")
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--threads", type=int, help="of the CPU")
    parser.add_argument("--no-selftest", action="store_true")
    parser.add_argument("--no-exact", action="store_true", help="leave leak and repeat out")
    parser.add_argument("--cache", type=Path, default=load_settings().cache_folder)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    on_cpu = options.device.startswith("cpu")
    options.model = options.model or (CPU_MODEL if on_cpu else "esm2_t33_650M_UR50D")
    options.dtypes = options.dtypes or (["float32"] if on_cpu else list(GPU_DTYPES))
    return options


def main() -> int:
    options = parse()
    started = time.perf_counter()

    def note(text: str) -> None:
        print(f"[{time.perf_counter() - started:6.1f} s] {text}", flush=True)

    if options.threads:
        torch.set_num_threads(options.threads)
    protocol = load_protocol()
    weights = resolve_weights(options.model, options.weights, cache_folder=options.cache)
    benchmark = (
        load_benchmark(options.benchmark)
        if options.benchmark
        else evidence_benchmark(options.sequences)
    )
    oracles = {
        item.name: prepare_oracle(
            options.model, weights, item, cache_folder=options.cache, device=options.device
        )
        for item in (benchmark, selftest_benchmark())
    }
    note(f"weights {weights.digest[:12]}, oracle of {len(benchmark.sequences)} sequences")
    document: dict[str, Any] = {"protocol": protocol.digest, "evidence": [], "selftests": []}
    good = True
    for dtype in options.dtypes:
        model, converter = load_esm2_model(
            options.model,
            options.device,
            weights=str(weights.path),
            dtype=dtype,
            backend=options.backend,
        )
        reference = None
        if dtype == "float32":
            reference = load_checkpoint(options.model, weights.path)[0].to(options.device)
        subject = BuiltinSubject(model, converter, model_name=options.model)
        for seed in options.seed:
            found = collect_evidence(
                subject,
                benchmark,
                oracles[benchmark.name],
                protocol,
                num_runs=options.runs,
                seed=seed,
                reference=reference,
                exact_probes=not options.no_exact,
                on_progress=lambda done, all: note(f"{done} of {all}") if done % 50 == 0 else None,
            )
            document["evidence"].append(found)
            options.out.write_text(json.dumps(document, indent=1), encoding="utf-8")
            good = good and not found["failed"]
            note(
                f"{dtype}, {model.backend}, seed {seed}: {len(found['failed'])} of {options.runs} "
                "healthy runs fail"
            )
            name = limits_key(dtype, options.device, options.model)
            print_evidence(found, limits_for(protocol, name))
        if options.no_selftest:
            continue
        subject.token_budget = SELFTEST_TOKEN_BUDGET
        report = run_selftest(
            subject, selftest_benchmark(), oracles["selftest"], protocol, num_healthy_runs=5
        )
        good = good and report.passed
        note(
            f"{dtype}: {report.num_killed} of {len(report.faults)} faults killed, "
            f"{report.num_killed_by_seed} by the seed's rule alone; passed: {report.passed}"
        )
        for row in (*report.faults, *report.controls):
            print(
                f"           {'' if row.as_expected else 'UNEXPECTED '}{row.name}: "
                f"{','.join(row.killed_by) or '-'}; effect {row.effect or 0:.3g} x limit; "
                f"{row.culprit}, {row.signature}"
            )
        document["selftests"].append(report_to_json(report))
        options.out.write_text(json.dumps(document, indent=1), encoding="utf-8")
    return 0 if good else 2


def print_evidence(found: dict[str, Any], limits: Any) -> None:
    for name, value in found["worst"].items():
        print(f"           {name:10} worst {value:.2e}, limit {limits[name]:.1e}")
    for gate, margin in found["margins"].items():
        distance = "0" if margin is None else f"{margin:.1f} x below its limit"
        print(f"           gate {gate:10} worst healthy value {distance}")
    for reason in found["failed"][:3]:
        print(f"           failed: {reason}")


if __name__ == "__main__":
    sys.exit(main())
