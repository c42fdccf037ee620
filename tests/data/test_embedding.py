from typing import Any

import pytest
import torch
from torch import Tensor

from virnucpro_monitor.data.embedding import Overflow, calculate_token_budget, embed_sequences
from virnucpro_monitor.data.pooling import cosine_similarity, mean_pool
from virnucpro_monitor.errors import DeviceError
from virnucpro_monitor.models.esm2_flash import load_esm2_model

SEQUENCES = [("a", "MKTAYIAKQR" * 4), ("b", "VLSPADKTNV"), ("c", "M"), ("d", "DERKH" * 9)]


@pytest.fixture
def loaded() -> tuple[Any, Any]:
    return load_esm2_model("esm2_t6_8M_UR50D", "cpu", weights="synthetic")


def limit_memory(monkeypatch: pytest.MonkeyPatch, model: Any, largest: int) -> list[int]:
    """Let packs above `largest` tokens run out of memory; returns the sizes tried."""
    honest = model.forward_packed
    tried: list[int] = []

    def limited(input_ids: Tensor, *rest: Any, **options: Any) -> Any:
        tried.append(input_ids.numel())
        if input_ids.numel() > largest:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return honest(input_ids, *rest, **options)

    monkeypatch.setattr(model, "forward_packed", limited)
    return tried


def test_embeddings_are_those_of_each_sequence_alone(loaded: tuple[Any, Any]) -> None:
    model, converter = loaded
    result = embed_sequences(model, converter, SEQUENCES, token_budget=80)
    assert list(result.pooled) == ["a", "b", "c", "d"]
    assert (result.token_budget, result.reduced_from, result.overflows) == (80, (), ())
    for name, residues in SEQUENCES:
        tokens = converter([(name, residues)])[2]
        expected = mean_pool(model(tokens, repr_layers=[6])["representations"][6][0, 1:-1])
        assert cosine_similarity(result.pooled[name], expected) > 1 - 1e-9
        assert result.pooled[name].norm() == pytest.approx(float(expected.norm()), rel=1e-5)


def test_out_of_memory_halves_the_budget_and_says_so(
    loaded: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, converter = loaded
    expected = embed_sequences(model, converter, SEQUENCES, token_budget=1000).pooled
    tried = limit_memory(monkeypatch, model, 50)
    result = embed_sequences(model, converter, SEQUENCES, token_budget=1000)
    assert tried[:2] == [104, 50]
    assert result.reduced_from == (1000,)
    assert result.token_budget == 52
    assert result.pooled.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.allclose(result.pooled[name], value, rtol=1e-4, atol=1e-5)


def test_a_sequence_too_large_for_the_memory_is_named(
    loaded: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, converter = loaded
    limit_memory(monkeypatch, model, 45)
    with pytest.raises(DeviceError, match="Sequence 'd' of 47 tokens"):
        embed_sequences(model, converter, SEQUENCES, token_budget=1000)


def test_an_overflow_is_named_with_its_layer(loaded: tuple[Any, Any]) -> None:
    model, converter = loaded
    letter = model.alphabet.get_idx("W")
    model.embed_tokens.weight[letter] = 1e38  # finite; the first layer's LayerNorm is not
    sequences = [*SEQUENCES, ("tryptophan", "MKWK")]
    result = embed_sequences(model, converter, sequences, token_budget=1000)
    assert result.overflows == (Overflow("tryptophan", 1),)
    assert not result.pooled["tryptophan"].isfinite().all()
    assert all(result.pooled[name].isfinite().all() for name, _ in SEQUENCES)


def test_the_budget_follows_the_free_memory() -> None:
    gibibyte = 2**30
    small = calculate_token_budget(1280, torch.float16, gibibyte)
    assert small == int(0.8 * gibibyte / (16 * 1280 * 2))
    assert calculate_token_budget(1280, torch.float16, 100 * gibibyte) == 65536
    assert calculate_token_budget(2560, torch.float32, gibibyte) < small / 3
    with pytest.raises(DeviceError, match="MiB of free memory hold a pack of"):
        calculate_token_budget(5120, torch.float16, 10**7)
