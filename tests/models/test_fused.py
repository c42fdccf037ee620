"""Whole layers through the Triton kernels against the plain ones, both against FP32."""

import pytest
import torch
from torch import Tensor

from tests.models.errors import relative_l2
from tests.models.triton_device import DEVICE, HALF_DTYPES, MARKS
from virnucpro_monitor.models import esm2_flash
from virnucpro_monitor.models.esm2_flash import ESM2WithFlashAttention, load_esm2_model

pytestmark = MARKS
MODEL, NUM_LAYERS = "esm2_t6_8M_UR50D", 6
# The interpreter takes seconds for each: there one longer than a block of queries, and a short one.
LENGTHS = (40, 7, 70, 3) if DEVICE == "cuda" else (7, 70)
SHARES = {torch.float16: 1.2, torch.bfloat16: 1.0}
"""The kernels' error over the plain layers' at most; in bfloat16 their stream is FP32."""


def embed(model: ESM2WithFlashAttention) -> dict[int, Tensor]:
    """Every layer of one pack, {layer: [tokens, embed_dim]} FP64."""
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(4, 24, (sum(LENGTHS),), generator=generator)
    bounds = torch.tensor([0, *LENGTHS]).cumsum(0).int()
    tokens[bounds[:-1]], tokens[bounds[1:] - 1] = 0, 2
    layers = list(range(NUM_LAYERS + 1))
    result = model.forward_packed(tokens.to(DEVICE), bounds.to(DEVICE), max(LENGTHS), layers)
    return {layer: hidden.double() for layer, hidden in result["representations"].items()}


@pytest.mark.parametrize("dtype", HALF_DTYPES)
def test_no_layer_is_further_from_fp32_than_the_plain_one(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    exact, _ = load_esm2_model(MODEL, DEVICE, weights="synthetic", dtype=torch.float32)
    reference = embed(exact)
    if DEVICE == "cpu":
        monkeypatch.setattr(esm2_flash, "can_fuse", lambda *_: True)
        monkeypatch.setattr(esm2_flash, "choose_backend", lambda *_: "triton")
    model, _ = load_esm2_model(MODEL, DEVICE, weights="synthetic", dtype=dtype, backend="triton")
    fused = embed(model)
    model.use_kernels = False
    plain = embed(model)
    assert torch.equal(fused[0], plain[0])
    for layer in range(1, NUM_LAYERS + 1):
        errors = [relative_l2(run[layer], reference[layer]) for run in (fused, plain)]
        assert 0 < errors[0] < SHARES[dtype] * errors[1], f"layer {layer}"
