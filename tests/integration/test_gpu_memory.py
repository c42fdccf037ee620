"""Real shortage of memory and real overflow on a GPU."""

import pytest
import torch

from virnucpro_monitor.data.embedding import calculate_token_budget, embed_sequences
from virnucpro_monitor.models.esm2_flash import ESM2WithFlashAttention, load_esm2_model

pytestmark = pytest.mark.gpu
MODEL = "esm2_t30_150M_UR50D"
SEQUENCES = [(f"s{index}", "MKTAYIAKQR" * 60) for index in range(200)]


def peak_bytes(model: ESM2WithFlashAttention, tokens: int) -> int:
    """Peak bytes beyond the weights for one pack of `tokens`."""
    ids = torch.randint(4, 24, (tokens,), device=model.device)
    bounds = torch.arange(0, tokens + 1, 512, device=model.device, dtype=torch.int32)
    model.forward_packed(ids, bounds, 512, repr_layers=[30])
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    model.forward_packed(ids, bounds, 512, repr_layers=[30])
    return torch.cuda.max_memory_allocated() - before


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_pack_takes_no_more_than_the_budget_allows(dtype: torch.dtype) -> None:
    model, _ = load_esm2_model(MODEL, "cuda:0", weights="synthetic", dtype=dtype)
    peak = peak_bytes(model, 32768)
    # One byte less would not be granted that many tokens.
    assert calculate_token_budget(640, dtype, peak, share=1.0) < 32768


def test_a_real_shortage_of_memory_halves_the_budget() -> None:
    model, converter = load_esm2_model(MODEL, "cuda:0", weights="synthetic")
    expected = embed_sequences(model, converter, SEQUENCES, token_budget=16384)
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    limit = torch.cuda.memory_reserved() + 400 * 2**20
    torch.cuda.set_per_process_memory_fraction(limit / total)
    try:
        result = embed_sequences(model, converter, SEQUENCES, token_budget=131072)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert result.reduced_from[0] == 131072
    assert result.token_budget < 131072
    assert result.pooled.keys() == expected.pooled.keys()
    worst = max((result.pooled[name] - expected.pooled[name]).norm() for name, _ in SEQUENCES)
    assert worst < 2e-2 * expected.pooled["s0"].norm()


def test_float16_overflow_is_named_with_layer_and_sequence() -> None:
    model, converter = load_esm2_model(MODEL, "cuda:0", weights="synthetic")
    model.embed_tokens.weight[model.alphabet.get_idx("W")] = 6e4
    # 2e4 for every channel and token from the product itself: a bias alone no longer overflows,
    # because the kernels keep biases out of the float16 stream.
    layer = model.layers[2]
    layer.fc1.weight.zero_()
    layer.fc1.bias.fill_(10)
    layer.fc2.weight.fill_(2e4 / 10 / layer.fc2.in_features)
    sequences = [("fine", "MKTAYIAKQR"), ("tryptophan", "MKWK")]
    result = embed_sequences(model, converter, sequences, token_budget=1000)
    assert [(found.sequence_id, found.layer) for found in result.overflows] == [("tryptophan", 3)]
