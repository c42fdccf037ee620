"""The smallest official size with synthetic weights, a short benchmark set, and its oracle.

The demo's model beside it, a fifth as wide: for tests of hundreds of verdicts.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest
import torch

from tests.protocols import quick_protocol
from virnucpro_monitor.data.benchmarks import benchmark_digest
from virnucpro_monitor.models.esm2_flash import load_esm2_model
from virnucpro_monitor.models.weights import DEMO_MODEL, Weights, resolve_weights
from virnucpro_monitor.records import BenchmarkSet, ProteinSequence, Protocol
from virnucpro_monitor.validation.builtin import BuiltinSubject
from virnucpro_monitor.validation.oracle import Oracle, prepare_oracle
from virnucpro_monitor.validation.selftest import RememberingSubject
from virnucpro_monitor.validation.subject import Layers, PackedBatch
from virnucpro_monitor.validation.tokens import encode

MODEL = "esm2_t6_8M_UR50D"
SEQUENCES = {
    "tiny": "MKT",
    "short": "MKTAYIAKQRQISFVKSHFSRQ",
    "middle": "MVLSPADKTNVKAAWGKVGAHAGEYGAEALERMFLSFPTTKTYFPHFDLSH",
    "charged": "DERKHDERKHDERKHGGSDERKH",
    "long": "MGLSDGEWQLVLNVWGKVEADIPGHGQEVLIRLFKGHPETLEKFDKFKHLKSEDEMKASEDLKKHGATVLTALGGILKK",
    "other": "AILVFMWPAILVFMWPAILVFMWPGG",
}


def make_benchmark(sequences: dict[str, str]) -> BenchmarkSet:
    records = tuple(ProteinSequence(id=name, residues=text) for name, text in sequences.items())
    return BenchmarkSet(name="test", version=1, digest=benchmark_digest(records), sequences=records)


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Weights:
    return resolve_weights(MODEL, "synthetic", cache_folder=tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="session")
def subject(weights: Weights) -> BuiltinSubject:
    """The healthy model in float32, with packs of 120 tokens: two for the test's sequences."""
    model, converter = load_esm2_model(MODEL, "cpu", weights=str(weights.path), dtype="float32")
    return RememberingSubject(BuiltinSubject(model, converter, model_name=MODEL, token_budget=120))


@pytest.fixture(scope="session")
def benchmark_set() -> BenchmarkSet:
    return make_benchmark(SEQUENCES)


@pytest.fixture(scope="session")
def oracle_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("oracles")


@pytest.fixture(scope="session")
def oracle(weights: Weights, benchmark_set: BenchmarkSet, oracle_cache: Path) -> Oracle:
    return prepare_oracle(MODEL, weights, benchmark_set, cache_folder=oracle_cache)


@pytest.fixture(scope="session")
def demo_weights(tmp_path_factory: pytest.TempPathFactory) -> Weights:
    folder = tmp_path_factory.mktemp("weights")
    return resolve_weights(DEMO_MODEL, "synthetic", cache_folder=folder)


@pytest.fixture(scope="session")
def demo_subject(demo_weights: Weights) -> BuiltinSubject:
    path = str(demo_weights.path)
    model, converter = load_esm2_model(DEMO_MODEL, "cpu", weights=path, dtype="float32")
    subject = BuiltinSubject(model, converter, model_name=DEMO_MODEL, token_budget=120)
    return RememberingSubject(subject)


@pytest.fixture(scope="session")
def protocol() -> Protocol:
    return quick_protocol()


class FakeSubject:
    """A model without weights: each row is a fixed random vector of its token.

    Tests change one thing of it by the hooks.

    Attributes:
        on_pack: the list of packs -> the list that is handed on.
        on_packed: (rows, pack, layer) -> rows of the packed side.
        on_alone: (rows, tokens, layer) -> rows of the unpacked side.
    """

    model_name = "fake"
    num_layers = 2
    dtype = torch.float32
    device = torch.device("cpu")
    backend = "fake"
    token_budget = 4096

    def __init__(self, width: int = 16, slots: int = 4) -> None:
        generator = torch.Generator().manual_seed(7)
        self.table = torch.randn(33, width, generator=generator)
        self.slots = slots
        self.on_pack: Callable[[list[PackedBatch]], list[PackedBatch]] = lambda packs: packs
        self.on_packed: Callable[[torch.Tensor, PackedBatch, int], torch.Tensor] = (
            lambda rows, pack, layer: rows
        )
        self.on_alone: Callable[[torch.Tensor, torch.Tensor, int], torch.Tensor] = (
            lambda rows, tokens, layer: rows
        )

    def tensors(self) -> Mapping[str, torch.Tensor]:
        return {"table": self.table}

    def embed_unpacked_layers(self, tokens: torch.Tensor, layers: Sequence[int]) -> Layers:
        return {
            layer: self.on_alone(self.table[tokens] * (layer + 1), tokens, layer)
            for layer in layers
        }

    def pack(
        self, sequences: Sequence[tuple[str, str]], *, per_call: int | None = None
    ) -> Iterator[PackedBatch]:
        packs = []
        for first in range(0, len(sequences), self.slots):
            part = sequences[first : first + self.slots]
            tokens = [encode(text) for _, text in part]
            bounds = torch.tensor([0, *(len(one) for one in tokens)]).cumsum(0)
            packs.append(
                PackedBatch(
                    input_ids=torch.cat(tokens),
                    cu_seqlens=bounds.to(torch.int32),
                    max_seqlen=max(map(len, tokens)),
                    sequence_ids=tuple(name for name, _ in part),
                )
            )
        yield from self.on_pack(packs)

    def embed_packed_layers(self, batch: PackedBatch, layers: Sequence[int]) -> Layers:
        return {
            layer: self.on_packed(self.table[batch.input_ids] * (layer + 1), batch, layer)
            for layer in layers
        }


@pytest.fixture
def fake() -> FakeSubject:
    return FakeSubject()
