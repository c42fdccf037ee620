"""Healthy runs and the kill matrix on one machine, as evidence for a protocol's limits.

    python tests/benchmarks/yardstick_gpu.py --out evidence.json
    python tests/benchmarks/yardstick_gpu.py --device cpu --model esm2_t6_8M_UR50D \
        --dtypes float32 --runs 200 --no-selftest --out evidence.json

For each dtype: the model with synthetic weights, its FP32 oracle, healthy runs with shuffled packs,
other token budgets and harmless rewritings, then every injected fault. Needs torch, numpy, fair-esm
and, for that backend, flash-attn; nothing else of the package's dependencies has to be there.
`freeze_protocol.py` turns the written file into limits.
"""

# ruff: noqa: E402 (the stand-in must come before the package)
import argparse
import importlib.util
import json
import sys
import time
import types
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))


def stand_in_for_settings() -> None:
    """Let the package import without pydantic-settings: no setting is read here."""
    for name, attributes in (
        ("pydantic", ("ValidationError",)),
        (
            "pydantic_settings",
            ("BaseSettings", "PydanticBaseSettingsSource", "TomlConfigSettingsSource"),
        ),
    ):
        if importlib.util.find_spec(name) is None:
            module = types.ModuleType(name)
            for attribute in attributes:
                setattr(module, attribute, type(attribute, (), {}))
            module.SettingsConfigDict = dict  # type: ignore[attr-defined]
            sys.modules[name] = module


stand_in_for_settings()


from virnucpro_monitor.data.benchmarks import benchmark_digest, load_benchmark
from virnucpro_monitor.models.esm2_flash import load_esm2_model
from virnucpro_monitor.models.weights import load_checkpoint, resolve_weights
from virnucpro_monitor.records import BenchmarkSet, to_json
from virnucpro_monitor.validation.builtin import BuiltinSubject
from virnucpro_monitor.validation.evidence import collect_evidence
from virnucpro_monitor.validation.oracle import prepare_oracle
from virnucpro_monitor.validation.protocol import load_protocol
from virnucpro_monitor.validation.selftest import (
    SELFTEST_TOKEN_BUDGET,
    run_selftest,
    selftest_benchmark,
)


def evidence_benchmark(count: int) -> BenchmarkSet:
    """The self-test's sequences and others of `proteome`, spread over all its lengths."""
    ordered = sorted(load_benchmark("proteome").sequences, key=lambda s: (len(s.residues), s.id))
    step = max(1, len(ordered) // max(1, count))
    spread = {s.id: s for s in (*selftest_benchmark().sequences, *ordered[::-step][:count])}
    chosen = list(spread.values())
    return BenchmarkSet(
        name="evidence", version=1, digest=benchmark_digest(chosen), sequences=tuple(chosen)
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="esm2_t33_650M_UR50D")
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--dtypes", nargs="+", default=["float16", "bfloat16"])
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--sequences", type=int, default=24)
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--no-selftest", action="store_true")
    parser.add_argument("--cache", type=Path, default=Path("yardstick-cache"))
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()

    started = time.perf_counter()

    def note(text: str) -> None:
        print(f"[{time.perf_counter() - started:6.1f} s] {text}", flush=True)

    protocol = load_protocol()
    weights = resolve_weights(options.model, "synthetic", cache_folder=options.cache)
    note(f"weights {weights.digest[:12]}")
    benchmark = evidence_benchmark(options.sequences)
    oracles = {
        item.name: prepare_oracle(
            options.model, weights, item, cache_folder=options.cache, device=options.device
        )
        for item in (benchmark, selftest_benchmark())
    }
    note(f"oracles of {len(benchmark.sequences)} and {len(selftest_benchmark().sequences)}")
    document: dict[str, Any] = {"evidence": [], "selftests": [], "protocol": protocol.digest}
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

        def subject(budget: int, model: Any = model, converter: Any = converter) -> BuiltinSubject:
            return BuiltinSubject(model, converter, model_name=options.model, token_budget=budget)

        note(f"{dtype}: {model.backend}, {options.runs} healthy runs")
        found = collect_evidence(
            subject(4096),
            benchmark,
            oracles[benchmark.name],
            protocol,
            num_runs=options.runs,
            reference=reference,
        )
        document["evidence"].append(found)
        note(f"{dtype}: {len(found['failed'])} of {options.runs} failed the present limits")
        for name, value in found["worst"].items():
            print(f"           {name:10} {value:.2e}  (limit {limit(protocol, dtype, name):.1e})")
        for reason in found["failed"][:3]:
            print(f"           failed: {reason}")
        options.out.write_text(json.dumps(document, indent=1), encoding="utf-8")
        if options.no_selftest:
            continue
        report = run_selftest(
            subject(SELFTEST_TOKEN_BUDGET),
            selftest_benchmark(),
            oracles["selftest"],
            protocol,
            num_healthy_runs=5,
        )
        note(
            f"{dtype}: {report.num_killed} of {len(report.faults)} faults killed, "
            f"{report.num_killed_by_seed} by the seed's rule alone; passed: {report.passed}"
        )
        for row in (*report.faults, *report.controls):
            if row.kind == "arithmetic" or not row.as_expected:
                killed = ",".join(row.killed_by) or "-"
                print(
                    f"           {'' if row.as_expected else 'UNEXPECTED '}{row.name}: {killed} "
                    f"effect {row.effect or 0:.3g} x limit, {row.signature}"
                )
        for row in report.faults:
            print(f"           {row.name}: {row.culprit} {row.signature} {row.margin or 0:.3g}")
        document["selftests"].append(to_json(report))
        options.out.write_text(json.dumps(document, indent=1), encoding="utf-8")
    note("done")
    return 0


def limit(protocol: Any, dtype: str, name: str) -> float:
    return float(protocol.content["limits"].get(dtype, {}).get(name, float("nan")))


if __name__ == "__main__":
    sys.exit(main())
