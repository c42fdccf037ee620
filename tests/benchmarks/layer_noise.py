"""Freeze what healthy runs differ from FP32 by at each depth, for the layer trace.

    python -m tests.benchmarks.layer_noise --out noise-8M.json
    python -m tests.benchmarks.layer_noise --freeze noise-*.json

A healthy run is the package's own model with shuffled packs, under one of several token budgets;
four of five also take one harmless rewriting of the self-test, whose rounding is not ours. Each
packed layer and each unpacked one is compared with fair-esm in FP32, sequence by sequence.
"""

import argparse
import itertools
import json
import sys
from pathlib import Path
from typing import Any

import torch

from tests.benchmarks.yardstick import evidence_benchmark
from virnucpro_monitor.models.esm2_flash import load_esm2_model
from virnucpro_monitor.models.weights import load_checkpoint, resolve_weights
from virnucpro_monitor.settings import load_settings
from virnucpro_monitor.validation import layer_noise, measures
from virnucpro_monitor.validation.builtin import BuiltinSubject
from virnucpro_monitor.validation.evidence import MIN_RUNS, SAFETY_FACTOR, healthy_runs, round_up
from virnucpro_monitor.validation.faulty_subject import FaultySubject
from virnucpro_monitor.validation.oracle import full_float32
from virnucpro_monitor.validation.perturb import bounds_of
from virnucpro_monitor.validation.protocol import limits_key
from virnucpro_monitor.validation.selftest import RememberingSubject

FILE = (
    Path(__file__).resolve().parents[2] / "virnucpro_monitor/validation/protocols/layer_noise.json"
)


def collect(model: str, weights: str, device: str, dtype: str, runs: int, seed: int, count: int):
    """One record of evidence: the worst value of each depth over all runs and sequences."""
    resolved = resolve_weights(model, weights, cache_folder=load_settings().cache_folder)
    loaded, converter = load_esm2_model(model, device, weights=str(resolved.path), dtype=dtype)
    exact_model = load_checkpoint(model, resolved.path)[0].to(device)
    pairs = [(s.id, s.residues) for s in evidence_benchmark(count).sequences]
    healthy = RememberingSubject(BuiltinSubject(loaded, converter, model_name=model))
    layers = list(range(healthy.num_layers + 1))
    exact: dict[tuple[int, ...], dict[int, torch.Tensor]] = {}
    worst = [0.0] * (layer_noise.NUM_BINS + 2)

    def note(rows: Any, right: Any) -> None:
        for layer in layers:
            error = measures.relative_l2(rows[layer][1:-1], right[layer][1:-1])
            place = layer_noise.bin_of(layer, healthy.num_layers)
            worst[place] = max(worst[place], float("inf") if error is None else error)

    for number, variant in enumerate(healthy_runs(runs, seed)):
        subject = FaultySubject(healthy, variant)
        for batch in subject.pack(pairs):
            rows = subject.embed_packed_layers(batch, layers)
            bounds = bounds_of(batch)
            for start, end in itertools.pairwise(bounds):
                tokens = batch.input_ids[start:end]
                key = tuple(tokens.tolist())
                if key not in exact:
                    with full_float32(), torch.inference_mode():
                        output = exact_model(tokens[None].to(device), repr_layers=layers)
                    exact[key] = {n: x[0] for n, x in output["representations"].items()}
                    note(healthy.embed_unpacked_layers(tokens, layers), exact[key])
                note({n: x[start:end] for n, x in rows.items()}, exact[key])
        if (number + 1) % 50 == 0:
            print(f"{number + 1} of {runs}: {', '.join(f'{w:.1e}' for w in worst)}", flush=True)
    return {
        "model": model,
        "weights": "synthetic" if weights == "synthetic" else f"trained ({resolved.digest[:12]})",
        "dtype": dtype,
        "device": device.partition(":")[0],
        "gpu": torch.cuda.get_device_name(device) if device.startswith("cuda") else None,
        "torch": torch.__version__,
        "num_runs": runs,
        "num_sequences": len(pairs),
        "seed": seed,
        "worst": worst,
    }


def freeze(records: list[dict[str, Any]]) -> dict[str, Any]:
    """The file's content: limits by dtype and depth, and the evidence."""
    by_key: dict[str, list[dict[str, Any]]] = {}
    for record in records:
        by_key.setdefault(limits_key(record["dtype"], record["device"]), []).append(record)
    for key, found in by_key.items():
        count = sum(record["num_runs"] for record in found)
        if count < MIN_RUNS:
            raise SystemExit(f"{key} has {count} healthy runs; a limit needs {MIN_RUNS}")
    return {
        "rule": "3 x the worst relative L2 to FP32 over a sequence's residues, of all healthy runs "
        "of a dtype, rounded up to two digits, and never below four roundings; deeper is never "
        "stricter; the embedding, six depths, the output",
        "limits": {key: frozen(key, found) for key, found in sorted(by_key.items())},
        "evidence": records,
    }


def frozen(key: str, found: list[dict[str, Any]]) -> list[float]:
    """The limits of one dtype. A model of few layers has none at some of the depths."""
    dtype = getattr(torch, key.partition(" ")[0])
    values = [
        max(record["worst"][place] for record in found) for place in range(len(found[0]["worst"]))
    ]
    least = 4 * torch.finfo(dtype).eps
    rising = [values[0], *itertools.accumulate(values[1:-1], max), values[-1]]
    return [round_up(max(SAFETY_FACTOR * value, least)) for value in rising]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="esm2_t6_8M_UR50D")
    parser.add_argument("--weights", default="synthetic")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--runs", type=int, default=MIN_RUNS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sequences", type=int, default=8, help="besides the self-test's")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--freeze", type=Path, nargs="+", help="evidence files to freeze from")
    given = parser.parse_args()
    if given.freeze:
        records = [json.loads(path.read_text()) for path in given.freeze]
        FILE.write_text(json.dumps(freeze(records), indent=1) + "\n", encoding="utf-8")
        return 0
    found = collect(
        given.model,
        given.weights,
        given.device,
        given.dtype,
        given.runs,
        given.seed,
        given.sequences,
    )
    text = json.dumps(found, indent=1)
    if given.out:
        given.out.write_text(text, encoding="utf-8")
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
