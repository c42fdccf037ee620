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
    from virnucpro_monitor.models import kernels

    representations = {0: hidden} if 0 in wanted else {}
    normed = layers[0].attention_norm(hidden)
    for number, layer in enumerate(layers, start=1):
        update = layer.out(attend(layer.qkv(normed)))
        hidden, normed = kernels.add_norm(hidden, update, layer.mlp_norm)
        update = layer.fc2(kernels.gelu_(layer.fc1(normed)))
        if number < len(layers):
            hidden, normed = kernels.add_norm(hidden, update, layers[number].attention_norm)
            if number in wanted:
                representations[number] = hidden
    if len(layers) in wanted:
        representations[len(layers)] = final_norm(hidden + update)
    return representations


def can_fuse(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether the kernels run here: half precision on an NVIDIA GPU of Ampere's age or later."""
    return (
        device.type == "cuda"
        and dtype in (torch.float16, torch.bfloat16)
        and torch.cuda.get_device_capability(device) >= (8, 0)
        and has_triton()
    )
