"""Speed of packed ESM-2 on one GPU, with its peers in the same run.

    python -m tests.benchmarks.packed_engine --json results.json
    python -m tests.benchmarks.packed_engine --models esm2_t36_3B_UR50D --peers CHECKOUTS

The workload: sequences with lengths lognormal around 290 aa (8 to 1022), packs of 16,384 tokens,
float16, random weights. "ktok/s" counts real tokens only. MFU is model FLOPs (24 x D^2 x L per
token + 4 x L x D x len^2 per sequence) over the rate of an 8192^3 product of random matrices in the
same run, twice: "burst" is ten products on an idle GPU, "sustained" the rate under load, where the
GPU's power limit lowers its clock. The engine runs under the same load.
Peers that cannot be imported are left out; `--peers` names folders to look for them in.
`--device cpu --dtype float32 --count 4` tries it where there is no card.
"""

import argparse
import gc
import json
import logging
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tests.benchmarks.engine_subjects import (
    Run,
    Variant,
    make_packs,
    make_padded,
    random_sequences,
    variants,
)
from virnucpro_monitor.errors import MonitorError
from virnucpro_monitor.models.weights import MODEL_SHAPES, ModelShape

COUNTS = {"esm2_t36_3B_UR50D": 1000, "esm2_t48_15B_UR50D": 100}
EXPECTED = (ImportError, RuntimeError, TypeError, ValueError, AttributeError, MonitorError)
DEFAULT_MODELS = ["esm2_t33_650M_UR50D", "esm2_t36_3B_UR50D"]


def matmul_tflops(device: str, dtype: torch.dtype) -> dict[str, float]:
    """The ceilings: the rate of a square product of random matrices, TFLOP/s."""
    size = 8192 if on_card(device) else 512
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))

    def rate(warmup: int, repeats: int) -> float:
        for _ in range(warmup):
            a @ b
        wait_for(device)
        started = time.perf_counter()
        for _ in range(repeats):
            a @ b
        wait_for(device)
        return 2 * size**3 * repeats / (time.perf_counter() - started) / 1e12

    rate(1, 1)
    time.sleep(1)
    return {"burst": rate(3, 10), "sustained": rate(300, 600) if on_card(device) else rate(0, 10)}


def on_card(device: str) -> bool:
    return device.startswith("cuda")


def wait_for(device: str) -> None:
    if on_card(device):
        torch.cuda.synchronize()


def model_flops(shape: ModelShape, lengths: list[int]) -> float:
    dense = 24 * shape.embed_dim**2 * shape.num_layers * sum(lengths)
    return dense + 4 * shape.num_layers * shape.embed_dim * sum(n * n for n in lengths)


def measure(
    run: Run, warmup: list[Any], batches: list[Any], rounds: int, device: str
) -> tuple[float, float]:
    """Median seconds for all batches, and peak GiB on the card beyond what was allocated before."""
    before, peak = 0, 0
    with torch.no_grad():
        for batch in warmup:
            run(batch)
        wait_for(device)
        if on_card(device):
            before = torch.cuda.memory_allocated()
            torch.cuda.reset_peak_memory_stats()
        seconds = []
        for _ in range(rounds):
            started = time.perf_counter()
            for batch in batches:
                run(batch)
            wait_for(device)
            seconds.append(time.perf_counter() - started)
    if on_card(device):
        peak = torch.cuda.max_memory_allocated()
    return statistics.median(seconds), (peak - before) / 2**30


def lay_out(variant: Variant, sequences: list[Tensor], budget: int, device: str) -> list[Any]:
    if variant.layout == "packed":
        return make_packs(sequences, budget, device)
    if variant.layout == "padded":
        return make_padded(sequences, budget, device)
    return [tokens[None].to(device) for tokens in sequences]


def benchmark_model(
    name: str, options: argparse.Namespace, ceilings: dict[str, float]
) -> list[dict[str, Any]]:
    shape = MODEL_SHAPES[name]
    sequences = random_sequences(options.count or COUNTS.get(name, 2000))
    rows = []
    for variant in variants(options.backends):
        if options.only and not any(word in variant.name for word in options.only):
            continue
        used = sequences[:48] if variant.layout == "alone" else sequences
        lengths = [tokens.numel() for tokens in used]
        row: dict[str, Any] = {"model": name, "variant": variant.name, "tokens": sum(lengths)}
        try:
            run = variant.build(shape, options.device, options.dtype)
            batches = lay_out(variant, used, options.budget, options.device)
            rounds = options.rounds if variant.layout == "packed" else 1
            # Padded batches each have their own shape, for which libraries may prepare.
            warmup = batches if variant.layout == "padded" else [batches[0], batches[-1]]
            measured = measure(run, warmup, batches, rounds, options.device)
            seconds, row["activations_gib"] = measured
            row["ktok_per_s"] = sum(lengths) / seconds / 1000
            tflops = model_flops(shape, lengths) / seconds / 1e12
            row["mfu_percent"] = {key: 100 * tflops / value for key, value in ceilings.items()}
            if options.profile and variant.layout == "packed":
                row["profile_us"] = profile(run, batches[len(batches) // 2], shape.num_layers)
        except EXPECTED as error:
            row["error"] = f"{type(error).__name__}: {error}"[:300]
        rows.append(row)
        print(format_row(row), flush=True)
        run = batches = None
        gc.collect()
        if on_card(options.device):
            torch.cuda.empty_cache()
    return rows


def format_row(row: dict[str, Any]) -> str:
    if "error" in row:
        return f"| {row['variant']} | not measured: {row['error']} | | | |"
    burst, sustained = row["mfu_percent"]["burst"], row["mfu_percent"]["sustained"]
    return (
        f"| {row['variant']} | {row['ktok_per_s']:.1f} | {burst:.1f} % | {sustained:.1f} % "
        f"| {row['activations_gib']:.2f} |"
    )


def profile(run: Run, batch: Any, num_layers: int) -> dict[str, float]:
    """Microseconds per layer of each kernel, largest first."""
    with torch.no_grad(), torch.profiler.profile() as profiler:
        run(batch)
        torch.cuda.synchronize()
    kernels = [event for event in profiler.key_averages() if event.self_device_time_total > 0]
    kernels.sort(key=lambda event: -event.self_device_time_total)
    return {event.key: event.self_device_time_total / num_layers for event in kernels[:12]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=DEFAULT_MODELS, choices=MODEL_SHAPES)
    parser.add_argument("--backends", nargs="+", default=["triton", "flash-attn", "torch-varlen"])
    parser.add_argument("--only", nargs="+", help="variants whose name contains one of these words")
    parser.add_argument("--count", type=int, help="sequences; by default 2000, fewer from 3B on")
    parser.add_argument("--budget", type=int, default=16384, help="tokens of a batch")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dtype", default="float16", choices=["float16", "bfloat16", "float32"])
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--peers", nargs="+", default=[], help="folders with peers' packages")
    parser.add_argument("--profile", action="store_true", help="kernels' times into the JSON")
    parser.add_argument("--json", type=Path, help="where to write all figures")
    options = parser.parse_args()
    if on_card(options.device) and not torch.cuda.is_available():
        sys.exit(f"There is no {options.device} here.")
    sys.path += options.peers
    logging.disable(logging.WARNING)  # a peer warns at every pack
    options.dtype = getattr(torch, options.dtype)
    ceilings = matmul_tflops(options.device, options.dtype)
    gpu = torch.cuda.get_device_name(options.device) if on_card(options.device) else "CPU"
    rates = ", ".join(f"{key} {value:.0f}" for key, value in ceilings.items())
    print(f"{gpu}, torch {torch.__version__}, matrix products {rates} TFLOP/s")
    rows: list[dict[str, Any]] = []
    environment = {"gpu": gpu, "torch": torch.__version__, "ceiling_tflops": ceilings}
    for name in options.models:
        print(f"\n| {name} | ktok/s | MFU (burst) | MFU (sustained) | activations, GiB |")
        print("|---|---|---|---|---|")
        rows += benchmark_model(name, options, ceilings)
        if options.json:
            told = {"environment": environment, "rows": rows}
            options.json.write_text(json.dumps(told, indent=1))


if __name__ == "__main__":
    main()
