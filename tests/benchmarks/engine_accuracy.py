"""Accuracy of half precision against an FP32 run of unmodified fair-esm, on one GPU.

    python -m tests.benchmarks.engine_accuracy --json accuracy.json

Weights: fair-esm's own initialisation, seed 0, with query and key weights x3; 30 sequences of 8 to
1022 aa. Printed, of the mean-pooled last layer: the worst over the sequences and the length of the
one that has it, the median, and how many sequences have the same bits on both sides. Two backends
that never differ in a bit are one backend under two names.
"""

import argparse
import copy
import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tests.benchmarks.engine_subjects import ALPHABET, make_packs
from virnucpro_monitor.data.pooling import cosine_similarity, mean_pool
from virnucpro_monitor.models.esm2_flash import ESM2WithFlashAttention
from virnucpro_monitor.models.synthetic import Calibration, calibration_for
from virnucpro_monitor.models.weights import MODEL_SHAPES, load_checkpoint, synthesize


def make_sequences() -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    lengths = torch.linspace(8, 1022, 30).int().tolist()
    ends = torch.tensor([ALPHABET.cls_idx]), torch.tensor([ALPHABET.eos_idx])
    return [
        torch.cat((ends[0], torch.randint(4, 24, (length,), generator=generator), ends[1]))
        for length in lengths
    ]


@torch.no_grad()
def embed_alone(model: Any, sequences: list[Tensor], layer: int, device: str) -> list[Tensor]:
    """Pooled embeddings, each sequence by itself."""
    return [
        mean_pool(
            model(tokens[None].to(device), repr_layers=[layer])["representations"][layer][0, 1:-1]
        ).cpu()
        for tokens in sequences
    ]


def embed_packed(
    model: ESM2WithFlashAttention, sequences: list[Tensor], layer: int, device: str
) -> list[Tensor]:
    """Pooled embeddings of one pack, in the order of `sequences`."""
    (pack,) = make_packs(sequences, 10**6, device)
    rows = model.forward_packed(
        pack.input_ids, pack.cu_seqlens, pack.max_seqlen, repr_layers=[layer]
    )["representations"][layer]
    bounds = pack.cu_seqlens.tolist()
    order = sorted(range(len(sequences)), key=lambda index: -sequences[index].numel())
    pooled: dict[int, Tensor] = {}
    for slot, index in enumerate(order):
        pooled[index] = mean_pool(rows[bounds[slot] + 1 : bounds[slot + 1] - 1]).cpu()
    return [pooled[index] for index in range(len(sequences))]


def compare(
    results: list[Tensor], reference: list[Tensor], sequences: list[Tensor]
) -> dict[str, float]:
    pairs = list(zip(results, reference, strict=True))
    errors = [float((a - b).norm() / b.norm()) for a, b in pairs]
    return {
        "worst_cosine": min(cosine_similarity(a, b) for a, b in pairs),
        "worst_relative_l2": max(errors),
        "worst_length": sequences[errors.index(max(errors))].numel() - 2,
        "median_relative_l2": statistics.median(errors),
        "same_bits": sum(torch.equal(a, b) for a, b in pairs),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="esm2_t33_650M_UR50D", choices=MODEL_SHAPES)
    parser.add_argument("--weights", default="gain3", choices=["gain3", "synthetic"])
    parser.add_argument("--backends", nargs="+", default=["triton", "flash-attn", "torch-varlen"])
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.backends.cuda.matmul.allow_tf32 = False
    layer = MODEL_SHAPES[options.model].num_layers
    calibration = calibration_for(layer) if options.weights == "synthetic" else Calibration(3.0, 0)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{options.model}.pt"
        synthesize(options.model, path, 0, calibration)
        base, _ = load_checkpoint(options.model, path)
        base = copy.deepcopy(base).to(options.device)
    sequences = make_sequences()
    reference = embed_alone(base, sequences, layer, options.device)
    rows = []
    for dtype in (torch.float16, torch.bfloat16):
        fair = copy.deepcopy(base).to(dtype)
        results = {"fair-esm, alone": embed_alone(fair, sequences, layer, options.device)}
        del fair
        first: list[Tensor] = []
        for backend in options.backends:
            model = ESM2WithFlashAttention(
                base, ALPHABET, backend=backend, device=options.device, dtype=dtype
            )
            alone = embed_alone(model, sequences, layer, options.device)
            results.setdefault("virnucpro-monitor, alone", alone)
            packed = embed_packed(model, sequences, layer, options.device)
            results[f"virnucpro-monitor, packed, {backend}"] = packed
            against = {"alone": alone, options.backends[0]: first} if first else {"alone": alone}
            first = first or packed
            for name, other in against.items():
                agreement = compare(packed, other, sequences)
                rows.append({"dtype": str(dtype), "path": f"{backend} against {name}", **agreement})
        for path_name, result in results.items():
            found = compare(result, reference, sequences)
            rows.append({"dtype": str(dtype), "path": path_name, **found})
    for row in rows:
        print(
            f"| {row['dtype']} | {row['path']} | {row['worst_cosine']:.7f} "
            f"| {row['worst_relative_l2']:.2e} ({row['worst_length']} aa) "
            f"| {row['median_relative_l2']:.2e} | {row['same_bits']} |"
        )
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
