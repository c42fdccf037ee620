"""The layers of a pack through the Triton kernels: the plain layers' twin in half precision."""

import importlib.util
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn


@cache
def has_triton() -> bool:
    """Whether Triton is installed; PyTorch for CUDA brings it along."""
    return importlib.util.find_spec("triton") is not None


def run_layers(
    layers: Sequence[Any],
    final_norm: nn.Module,
    hidden: Tensor,
    attend: Callable[[Tensor], Tensor],
    wanted: set[int],
) -> dict[int, Tensor]:
    """Hidden states of a pack.

    A residual add and the LayerNorm that follows it are one kernel, so a layer's last add runs
    with the next layer's norm.

    Args:
        layers: `esm2_flash.Layer`s.
        hidden: [tokens, embed_dim], the embeddings.
        attend: attention, [tokens, 3 * embed_dim] -> [tokens, embed_dim]; may overwrite its input.
        wanted: which hidden states to return.

    Returns:
        {layer: [tokens, embed_dim]}
    """
    from virnucpro_monitor.models.kernels import add_norm
    from virnucpro_monitor.models.linear_gelu import linear_gelu

    dtype = hidden.dtype
    representations = {0: hidden} if 0 in wanted else {}
    normed = layers[0].attention_norm(hidden)
    if dtype == torch.bfloat16:
        # Rounding the residual stream to 8 bits at each add would be the largest error of all. In
        # float16 it isn't, and an FP32 stream would cost 3 % of the speed.
        hidden = hidden.float()
    for number, layer in enumerate(layers, start=1):
        update = layer.out(attend(layer.qkv(normed)))
        hidden, normed = add_norm(hidden, update, layer.mlp_norm)
        update = layer.fc2(linear_gelu(normed, layer.fc1))
        if number < len(layers):
            hidden, normed = add_norm(hidden, update, layers[number].attention_norm)
            if number in wanted:
                representations[number] = hidden.to(dtype)
    if len(layers) in wanted:
        representations[len(layers)] = final_norm((hidden + update).to(dtype))
    return representations


def can_fuse(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether the kernels run here: half precision on an NVIDIA GPU of Ampere's age or later."""
    return (
        device.type == "cuda"
        and dtype in (torch.float16, torch.bfloat16)
        and torch.cuda.get_device_capability(device) >= (8, 0)
        and has_triton()
    )
