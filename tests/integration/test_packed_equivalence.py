"""Packed against unpacked on a GPU, with each attention backend."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
import torch

from virnucpro_monitor.data.packing import validate_packed_equivalence
from virnucpro_monitor.models.esm2_flash import ESM2WithFlashAttention, load_esm2_model
from virnucpro_monitor.models.packed_attention import BACKENDS

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        not torch.cuda.is_available(), reason="CUDA required for packed equivalence tests"
    ),
]
DEVICE = torch.device("cuda:0")
Loaded = tuple[ESM2WithFlashAttention, Any]


@pytest.fixture(scope="module", params=BACKENDS)
def esm_model(request: pytest.FixtureRequest) -> Iterator[Loaded]:
    if request.param == "flash-attn":
        pytest.importorskip("flash_attn")
    yield load_esm2_model(
        "esm2_t33_650M_UR50D", "cuda:0", weights="synthetic", backend=request.param
    )
    torch.cuda.empty_cache()


def check(esm_model: Loaded, sequences: list[tuple[str, str]]) -> None:
    model, batch_converter = esm_model
    passed, details = validate_packed_equivalence(model, batch_converter, sequences, DEVICE)
    assert passed, f"Failed: {details}"
    assert details["min_similarity"] > 0.9999
    assert model.dtype == torch.float16


def test_short_sequences(esm_model: Loaded) -> None:
    check(esm_model, [("short1", "MKTAYIAK"), ("short2", "VLSPADKTNV"), ("short3", "MVHLT")])


def test_medium_sequences(esm_model: Loaded) -> None:
    check(esm_model, [("medium1", "MKTAYIAK" * 10), ("medium2", "VLSPADKTNV" * 15)])


def test_mixed_lengths(esm_model: Loaded) -> None:
    check(
        esm_model,
        [
            ("tiny", "MKT"),
            ("small", "MKTAYIAK"),
            ("medium", "MKTAYIAK" * 20),
            ("large", "MKTAYIAK" * 50),
        ],
    )


def test_long_sequences(esm_model: Loaded) -> None:
    check(esm_model, [("limit", ("MKTAYIAKQR" * 103)[:1022]), ("half", "VLSPADKTNV" * 51)])


def test_distinct_sequences_remain_distinct(esm_model: Loaded) -> None:
    check(esm_model, [("hydrophobic", "AILVFMWP" * 5), ("charged", "DERKH" * 8)])


def make_tokens(length: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    residues = torch.randint(4, 24, (length,), generator=generator)
    return torch.cat((torch.tensor([0]), residues, torch.tensor([2])))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_neighbours_residues_change_nothing_on_any_layer(
    esm_model: Loaded, dtype: torch.dtype
) -> None:
    model, _ = esm_model
    layers = list(range(model.num_layers + 1))
    lengths = (62, 126, 7, 255, 1, 400)
    bounds = torch.tensor([0, *(length + 2 for length in lengths)]).cumsum(0).int()

    def embed(seeds: list[int]) -> dict[int, torch.Tensor]:
        pairs = zip(lengths, seeds, strict=True)
        tokens = torch.cat([make_tokens(length, seed) for length, seed in pairs])
        return model.forward_packed(tokens.to(DEVICE), bounds.to(DEVICE), 402, repr_layers=layers)[
            "representations"
        ]

    model.to(dtype)
    try:
        seeds = list(range(len(lengths)))
        before, again = embed(seeds), embed(seeds)
        for changed in range(len(lengths)):
            after = embed([*seeds[:changed], 100, *seeds[changed + 1 :]])
            keep = torch.ones(int(bounds[-1]), dtype=torch.bool, device=DEVICE)
            keep[int(bounds[changed]) : int(bounds[changed + 1])] = False
            for layer in layers:
                assert torch.equal(before[layer], again[layer])
                assert torch.equal(before[layer][keep], after[layer][keep])
    finally:
        model.to(torch.float16)


def test_plain_layers_agree_with_the_kernels(esm_model: Loaded) -> None:
    model, _ = esm_model
    tokens = make_tokens(300, 0).to(DEVICE)
    bounds = torch.tensor([0, 302], dtype=torch.int32, device=DEVICE)
    fused = model.forward_packed(tokens, bounds, 302, repr_layers=[33])["representations"][33]
    model.use_kernels = False
    try:
        plain = model.forward_packed(tokens, bounds, 302, repr_layers=[33])["representations"][33]
    finally:
        model.use_kernels = True
    difference = (fused.double() - plain.double()).norm() / plain.double().norm()
    assert 0 < difference < 2e-2


@contextmanager
def synchronizing_raises() -> Iterator[None]:
    """Let CUDA raise wherever the host waits for the device, and never beyond this block."""
    with warnings.catch_warnings():
        # torch 2.11 warns that the mode is a prototype, each time that it is set.
        warnings.filterwarnings("ignore", "Synchronization debug mode", UserWarning)
        before = torch.cuda.get_sync_debug_mode()
        try:
            torch.cuda.set_sync_debug_mode("error")
            yield
        finally:
            torch.cuda.set_sync_debug_mode(before)


def test_a_pack_runs_without_waiting_for_the_device(esm_model: Loaded) -> None:
    model, _ = esm_model
    # sdpa has to read the bounds, which is why it is only the fallback.
    waits = pytest.raises(RuntimeError, match="synchronizing")
    expected = waits if model.backend == "sdpa" else nullcontext()
    tokens = make_tokens(300, 0).to(DEVICE)
    bounds = torch.tensor([0, 302], dtype=torch.int32, device=DEVICE)
    model.forward_packed(tokens, bounds, 302, repr_layers=[33])
    with synchronizing_raises(), expected:
        model.forward_packed(tokens, bounds, 302, repr_layers=[33], check=False)
