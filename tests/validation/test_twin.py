"""`validate_packed_equivalence` is written apart from the gates on purpose: they must agree."""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from esm import Alphabet
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from virnucpro_monitor.data.benchmarks import benchmark_digest
from virnucpro_monitor.data.collators import VarlenCollator
from virnucpro_monitor.data.packing import validate_packed_equivalence
from virnucpro_monitor.records import BenchmarkSet, ProteinSequence, Thresholds
from virnucpro_monitor.validation.gates import seed_gate
from virnucpro_monitor.validation.measure import measure
from virnucpro_monitor.validation.subject import Layers, PackedBatch

CONVERTER = Alphabet.from_architecture("ESM-1b").get_batch_converter()
LETTERS = "ACDEFGHIKLMNPQRSTVWY"
RULE = Thresholds()


class Planned(nn.Module):
    """Embeds each sequence as a planned pair of vectors, one packed and one alone.

    A sequence is known by its first two residues.
    """

    num_layers = 2
    model_name = "planned"
    dtype = torch.float64
    device = torch.device("cpu")
    backend = "planned"
    token_budget = 4096

    def __init__(self, plan: Sequence[tuple[float, float]]) -> None:
        super().__init__()
        self.plan = {
            tuple(CONVERTER([("", residues_of(number))])[2][0][1:3].tolist()): pair
            for number, pair in enumerate(plan)
        }

    def forward(self, tokens: Tensor, repr_layers: list[int]) -> dict[str, Any]:
        _, scale = self.plan[tuple(tokens[0, 1:3].tolist())]
        row = torch.tensor([scale, 0.0], dtype=torch.float64)
        return {"representations": {repr_layers[0]: row.expand(*tokens.shape, 2)}}

    def forward_packed(
        self, input_ids: Tensor, cu_seqlens: Tensor, max_seqlen: int, repr_layers: list[int]
    ) -> dict[str, Any]:
        rows = torch.zeros(input_ids.numel(), 2, dtype=torch.float64)
        for start, end in itertools.pairwise(cu_seqlens.tolist()):
            cosine, scale = self.plan[tuple(input_ids[start + 1 : start + 3].tolist())]
            sine = math.sqrt(max(0.0, 1 - cosine**2))
            rows[start:end] = torch.tensor([cosine * scale, sine * scale], dtype=torch.float64)
        return {"representations": {repr_layers[0]: rows}}

    def tensors(self) -> Mapping[str, Tensor]:
        return {}

    def embed_unpacked_layers(self, tokens: Tensor, layers: Sequence[int]) -> Layers:
        return {
            layer: rows[0] for layer, rows in self(tokens[None], layers)["representations"].items()
        }

    def pack(
        self, sequences: Sequence[tuple[str, str]], *, per_call: int | None = None
    ) -> Iterator[PackedBatch]:
        records = ({"id": name, "sequence": text} for name, text in sequences)
        for pack in VarlenCollator(CONVERTER, self.token_budget).stream(records):
            yield PackedBatch(
                input_ids=pack["input_ids"],
                cu_seqlens=pack["cu_seqlens"],
                max_seqlen=pack["max_seqlen"],
                sequence_ids=tuple(pack["sequence_ids"]),
            )

    def embed_packed_layers(self, batch: PackedBatch, layers: Sequence[int]) -> Layers:
        output = self.forward_packed(batch.input_ids, batch.cu_seqlens, 0, list(layers))
        representations: Layers = output["representations"]
        return representations


def residues_of(number: int) -> str:
    return LETTERS[number // 20] + LETTERS[number % 20] + "A" * (number % 3)


ORDINARY = st.sampled_from([1.0, 0.9995])
COSINES = st.one_of(
    st.sampled_from([0.999, 0.995, math.nextafter(0.999, 1), math.nextafter(0.995, 0), math.nan]),
    st.floats(0.99, 1.0),
    st.floats(-1.0, 1.0),
)
SCALES = st.sampled_from([1.0, 1e200, 1e-200, -1.0, 0.0, math.inf, math.nan])


@st.composite
def plans(draw: st.DrawFn) -> list[tuple[float, float]]:
    """Up to 200 sequences, most of them right, so that either verdict is reached."""
    size = draw(st.one_of(st.integers(1, 12), st.integers(1, 200)))
    plan = [(draw(ORDINARY), 1.0)] * size
    for place in draw(st.lists(st.integers(0, size - 1), max_size=4)):
        ordinary = draw(st.booleans())
        plan[place] = (draw(COSINES), 1.0 if ordinary else draw(SCALES))
    return plan


@settings(max_examples=150, deadline=None)
@given(plans())
def test_the_twin_and_the_seed_gate_give_one_verdict(plan: list[tuple[float, float]]) -> None:
    model = Planned(plan)
    pairs = [(f"s{number}", residues_of(number)) for number in range(len(plan))]
    passed, details = validate_packed_equivalence(model, CONVERTER, pairs, "cpu")
    sequences = tuple(ProteinSequence(id=name, residues=text) for name, text in pairs)
    benchmark = BenchmarkSet(
        name="plan", version=1, digest=benchmark_digest(sequences), sequences=sequences
    )
    found = measure(model, benchmark, None).sequences
    gate = seed_gate(found, RULE)
    assert gate.passed is passed
    seen = {s.sequence_id: math.nan if s.similarity is None else s.similarity for s in found}
    assert [(k, repr(v)) for k, v in seen.items()] == [
        (k, repr(v)) for k, v in details["per_sequence"].items()
    ]
    levels = {s.sequence_id: RULE.level(s).value for s in found}
    assert [name for name, level in levels.items() if level == "failed"] == [
        name for name, _ in pairs if name in details["failed_sequences"]
    ]


def test_the_seeds_own_thresholds_are_the_records() -> None:
    parameters = validate_packed_equivalence.__defaults__
    assert parameters == (RULE.strict, RULE.lenient, RULE.fraction)
