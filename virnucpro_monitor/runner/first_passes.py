"""The first passes of a process, by nobody's model, before a commit's own come.

CUDA loads a kernel when it is first launched, cuBLAS starts at the first product and flash-attn's
library at its first call, which no commit has a part in. So one layer as wide as the model, with
weights that nobody set, is run at a few lengths, alone and as packed paths do it. What it computes
is thrown away, its memory and cuBLAS's are given back, and no random number is drawn.
"""

import sys
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from esm.model.esm2 import ESM2
from torch.nn.functional import gelu, linear

from virnucpro_monitor.models.unfilled import undrawn
from virnucpro_monitor.models.weights import ModelShape, model_shape
from virnucpro_monitor.validation.fingerprints import fingerprints

# Tokens: cuBLAS chooses its kernels by them.
_ALONE = (8, 64, 200, 450, 1024)
_PACKED = (16, 128, 512, 2048, 4096, 16384)


def run_first_passes(
    model_name: str, device: torch.device, dtype: torch.dtype, enough: Callable[[], bool]
) -> None:
    """Have what passes of such a model need loaded in this process.

    Args:
        enough: asked before each pass; where it says so, the commit's own passes load the rest.

    Raises:
        WeightsError: there is no such model.
    """
    try:
        _run(model_name, device, dtype, enough)
    finally:  # by here nothing holds on to the model, whose memory is given back with the rest
        if device.type == "cuda":
            torch.cuda.synchronize(device)
            torch._C._cuda_clearCublasWorkspaces()
            torch.cuda.empty_cache()


def _run(
    model_name: str, device: torch.device, dtype: torch.dtype, enough: Callable[[], bool]
) -> None:
    for one in _passes(model_name, device, dtype):
        if enough():
            return
        one()


def _passes(
    model_name: str, device: torch.device, dtype: torch.dtype
) -> Iterator[Callable[[], None]]:
    shape = model_shape(model_name)
    # Not on the meta device, whose tensors are made real by what imports sympy first.
    with device, undrawn():
        model = ESM2(num_layers=1, embed_dim=shape.embed_dim, attention_heads=shape.num_heads)
    model = model.to(device, dtype).eval()
    for length in _ALONE:
        yield partial(_alone, model, length, device)
    for length in _PACKED:
        yield partial(_as_packed, model.layers[0], shape, length, device, dtype)
    yield partial(_take_fingerprints, model)


@torch.no_grad()
def _alone(model: Any, length: int, device: torch.device) -> None:
    tokens = torch.full((1, length), 5, device=device)
    rows = model(tokens, repr_layers=[0, 1])["representations"][1][0]
    rows.isfinite().all().cpu()


@torch.no_grad()
def _as_packed(
    layer: Any, shape: ModelShape, length: int, device: torch.device, dtype: torch.dtype
) -> None:
    """One layer of a pack of two sequences, as packed paths in plain PyTorch have it."""
    bounds = torch.tensor([0, length // 2, length], dtype=torch.int32, device=device)
    places = torch.zeros(length, dtype=torch.int64, device=device)
    places[length // 2 :] = torch.arange(length - length // 2, device=device)
    rows = layer.self_attn_layer_norm(
        torch.empty(length, shape.embed_dim, dtype=dtype, device=device)
    )
    projections = layer.self_attn.q_proj, layer.self_attn.k_proj, layer.self_attn.v_proj
    q, k, v = (one(rows).reshape(length, shape.num_heads, shape.head_dim) for one in projections)
    steps = torch.arange(0, shape.head_dim, 2, device=device).float()
    angles = torch.einsum("i,j->ij", places.float(), steps)
    angles = torch.cat([angles, angles], dim=-1)[:, None]
    q, k = (_turned(one.float(), angles).to(dtype) for one in (q, k))
    _attend(q, k, v, bounds, length - length // 2)
    rows = rows + layer.self_attn.out_proj(v.reshape(length, -1))
    rows = rows + layer.fc2(gelu(linear(rows, layer.fc1.weight, layer.fc1.bias)))
    rows[1:].clone().double().norm().item()


@torch.no_grad()
def _take_fingerprints(model: Any) -> None:
    fingerprints(dict(model.named_parameters()))


def _turned(one: torch.Tensor, angles: torch.Tensor) -> torch.Tensor:
    first, second = one.chunk(2, dim=-1)
    return one * angles.cos() + torch.cat([-second, first], dim=-1) * angles.sin()


def _attend(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, bounds: torch.Tensor, longest: int
) -> None:
    """By flash-attn, where it is loaded already and takes such a model."""
    flash = sys.modules.get("flash_attn")
    if flash is not None and q.is_cuda and q.dtype is not torch.float32:
        flash.flash_attn_varlen_func(q, k, v, bounds, bounds, longest, longest)
