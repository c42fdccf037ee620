"""Whole layers through the Triton kernels against the plain ones, both against FP32."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.models.errors import relative_l2
from tests.models.triton_device import DEVICE, HALF_DTYPES, MARKS
from virnucpro_monitor.models import esm2_flash, fused
from virnucpro_monitor.models.esm2_flash import ESM2WithFlashAttention, load_esm2_model
from virnucpro_monitor.models.rotary import RotaryTables, rotate
from virnucpro_monitor.models.tiles import can_overlap

pytestmark = MARKS
MODEL, NUM_LAYERS = "esm2_t6_8M_UR50D", 6
# The interpreter takes seconds for each: there one longer than a block of queries, and a short one.
LENGTHS = (40, 7, 70, 3) if DEVICE == "cuda" else (7, 70)
ROUNDING = {torch.float16: 3e-4, torch.bfloat16: 2.5e-3}
OVERLAPS = can_overlap(torch.device(DEVICE))
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


@pytest.mark.parametrize(
    ("width", "dtype"),
    [(256, torch.bfloat16), *((1280, dtype) for dtype in HALF_DTYPES if OVERLAPS)],
)
def test_wide_heads_are_projected_and_turned_by_one_kernel(
    width: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    from virnucpro_monitor.models import linear_rotate

    kernel = linear_rotate.linear_rotate
    if DEVICE == "cpu":  # the interpreter takes bfloat16 for integers

        def in_float16(x: Tensor, linear: torch.nn.Linear, *others: Any) -> Tensor:
            return kernel(x.half(), copy.deepcopy(linear).half(), *others).bfloat16()

        monkeypatch.setattr(linear_rotate, "linear_rotate", in_float16)
    # `overlapped` takes whole packs
    heads, head_dim, tokens = width // 64, 64, 70 if width == 256 else 8200
    generator = torch.Generator().manual_seed(0)
    normed = torch.randn(tokens, width, generator=generator).to(DEVICE, dtype)
    with torch.device(DEVICE):
        linear = torch.nn.Linear(width, 3 * width, dtype=dtype).requires_grad_(False)
        positions = torch.arange(tokens) % 40  # the second sequence begins anew
    inv_freq = 1.0 / (10000 ** (torch.arange(0, head_dim, 2).float() / head_dim))
    cos, sin = RotaryTables(inv_freq).get(40, torch.device(DEVICE))
    given: list[Tensor] = []

    def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        given.extend((q, k, v))
        return v

    fused.FusedAttention(attention, cos, sin, positions, heads)(normed, linear)
    wide = torch.nn.functional.linear(
        normed.double(), linear.weight.double(), linear.bias.double()
    ).float()
    q, k, v = wide.view(tokens, 3, heads, head_dim).unbind(1)
    cos, sin = cos[positions, None], sin[positions, None]
    expected = (rotate(q * head_dim**-0.5, cos, sin), rotate(k, cos, sin), v)
    for found, wanted in zip(given, expected, strict=True):
        assert 0 < relative_l2(found, wanted) < ROUNDING[dtype]  # rounded once
