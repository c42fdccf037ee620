"""Memory that a validation of 3B-wide embeddings needs, beyond Python and the model.

    python -m tests.benchmarks.validation_memory --folder FOLDER

A model without weights, whose rows of 2,560 channels are looked up by token and position, is
validated on 1,000 sequences of proteome-like lengths (20 to 1,022 residues) against an oracle on
disk, made by the package's own code; first as it is, then broken. Printed as JSON: what the oracle
takes on disk, and the largest resident memory of this process before and after each. It never
falls, so the second holds for both. What is freed goes back at once here: left to itself, glibc
keeps some of it, and the figure was between 0.58 and 1.0 GB for the same code. That costs twice the
processor's time, so `--plain-heap` leaves glibc to itself: for who asks of a bound alone.
"""

import argparse
import ctypes
import json
import resource
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch

from virnucpro_monitor.data.benchmarks import benchmark_digest, load_benchmark
from virnucpro_monitor.models.weights import Weights
from virnucpro_monitor.records import BenchmarkSet, ProteinSequence
from virnucpro_monitor.validation import oracle as oracles
from virnucpro_monitor.validation.builtin import BuiltinSubject
from virnucpro_monitor.validation.perturb import expected_embedding
from virnucpro_monitor.validation.protocol import load_protocol
from virnucpro_monitor.validation.tokens import alphabet
from virnucpro_monitor.validation.validate import validate_subject

# Of glibc's mallopt: from how many bytes on a block is mapped and unmapped by itself, and how many
# free bytes at the heap's end go back to the kernel.
HEAP = {-3: 4 * 1024**2, -1: 16 * 1024**2}
MODEL, WIDTH, NUM_LAYERS = "esm2_t36_3B_UR50D", 2560, 36


class WideModel:
    """Stands for both fair-esm and the packed model; the same row for the same token, always.

    Attributes:
        broken: whether the packed path scales one sequence in 50 by 1.1.
    """

    num_layers, embed_dim = NUM_LAYERS, WIDTH
    dtype, device, backend = torch.float32, torch.device("cpu"), "lookup"

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self.table = torch.randn(33, WIDTH, generator=generator)
        self.tables = {layer: self.table * layer for layer in range(1, NUM_LAYERS + 1)}
        self.embed_tokens = SimpleNamespace(weight=self.table)
        self.broken = False

    def named_parameters(self) -> list[tuple[str, torch.Tensor]]:
        return [("embed_tokens.weight", self.table)]

    def named_buffers(self) -> list[tuple[str, torch.Tensor]]:
        return []

    def to(self, device: str) -> "WideModel":
        return self

    def rows(self, tokens: torch.Tensor, layer: int) -> torch.Tensor:
        """[T] int64 -> [T, 2560] float32."""
        if layer == 0:
            return expected_embedding(self.table, tokens).float()
        return self.tables[layer][tokens]

    def __call__(self, tokens: torch.Tensor, repr_layers: Sequence[int]) -> dict[str, Any]:
        return {"representations": {k: self.rows(tokens[0], k)[None] for k in repr_layers}}

    def forward_packed(
        self,
        input_ids: torch.Tensor,
        cu_seqlens: torch.Tensor,
        max_seqlen: int,
        repr_layers: Sequence[int],
    ) -> dict[str, Any]:
        lengths = cu_seqlens.diff().tolist()
        found: dict[int, torch.Tensor] = {}
        for layer in repr_layers:
            rows = torch.empty(len(input_ids), WIDTH)
            for start, length in zip(cu_seqlens.tolist(), lengths, strict=False):
                here = slice(start, start + length)
                if layer:
                    torch.index_select(self.tables[layer], 0, input_ids[here], out=rows[here])
                else:
                    rows[here] = self.rows(input_ids[here], layer)
                if self.broken and layer and int(input_ids[here].sum()) % 50 == 0:
                    rows[here] *= 1.1
            found[layer] = rows
        return {"representations": found}


def make_benchmark(count: int) -> BenchmarkSet:
    """`count` sequences: those of `proteome`, each again with its residues turned round."""
    base = load_benchmark("proteome").sequences
    chosen = []
    for number in range(count):
        text = base[number % len(base)].residues
        turn = number // len(base) * 7 % len(text)
        chosen.append(ProteinSequence(id=f"s{number}", residues=text[turn:] + text[:turn]))
    return BenchmarkSet(
        name="wide", version=1, digest=benchmark_digest(chosen), sequences=tuple(chosen)
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True, help="for the oracle, some 4 GB")
    parser.add_argument("--sequences", type=int, default=1000)
    parser.add_argument("--token-budget", type=int, default=4096)
    parser.add_argument("--plain-heap", action="store_true", help="leave glibc to itself")
    options = parser.parse_args()
    started = time.perf_counter()
    if not options.plain_heap and sys.platform == "linux" and hasattr(ctypes.CDLL(None), "mallopt"):
        for setting, size in HEAP.items():
            ctypes.CDLL(None).mallopt(setting, size)
    benchmark = make_benchmark(options.sequences)
    model = WideModel()
    # No checkpoint of that name: a trace then takes the unpacked side for the reference.
    missing = options.folder / "none.pt"
    weights = Weights(path=missing, regression_path=missing, source="lookup", digest="0" * 64)
    subject = BuiltinSubject(
        model,  # type: ignore[arg-type]
        alphabet().get_batch_converter(),
        model_name=MODEL,
        token_budget=options.token_budget,
    )
    before = peak_bytes()
    with mock.patch.object(oracles, "load_checkpoint", return_value=(model, None)):
        oracle = oracles.prepare_oracle(MODEL, weights, benchmark, cache_folder=options.folder)
    with_oracle = peak_bytes()
    runs = []
    for model.broken in (False, True):
        verdict = validate_subject(subject, benchmark, oracle=oracle, protocol=load_protocol())
        runs.append(
            {
                "outcome": verdict.outcome.value,
                "culprit": verdict.culprit.value,
                "traced": len(verdict.documents.get("trace", {}).get("sequences", [])),
                "peak_bytes": peak_bytes(),
            }
        )
    json.dump(
        {
            "sequences": len(benchmark.sequences),
            "width": WIDTH,
            "oracle_bytes": oracle.residues_path.stat().st_size,
            "peak_before_bytes": before,
            "peak_with_oracle_bytes": with_oracle,
            "runs": runs,
            "duration_s": round(time.perf_counter() - started, 1),
        },
        sys.stdout,
        indent=1,
    )
    print()
    return 0


def peak_bytes() -> int:
    """The largest resident memory of this process so far.

    Linux counts what the parent held at the fork into `ru_maxrss`, but not into `VmHWM`.
    """
    status = Path("/proc/self/status")
    if status.exists():
        (line,) = [one for one in status.read_text().splitlines() if one.startswith("VmHWM:")]
        return int(line.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


if __name__ == "__main__":
    sys.exit(main())
