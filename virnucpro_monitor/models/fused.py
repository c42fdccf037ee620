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


class FusedAttention:
    """Projection to q, k and v, their rotation, and attention, for one pack.

    Args:
        attention: q, k, v [tokens, heads, head_dim], turned and q scaled -> the same shape.
        cos, sin: rotary tables, [positions, head_dim / 2] FP32.
        positions: [tokens] int64.
    """

    def __init__(
        self,
        attention: Callable[[Tensor, Tensor, Tensor], Tensor],
        cos: Tensor,
        sin: Tensor,
        positions: Tensor,
        num_heads: int,
    ) -> None:
        self.attention = attention
        self.rotation = (cos, sin, positions, num_heads)
        self.num_heads = num_heads

    def __call__(self, normed: Tensor, projection: nn.Linear) -> Tensor:
        """[tokens, embed_dim] -> [tokens, embed_dim]"""
        from virnucpro_monitor.models.kernels import add_bias_and_rotate, rotate_

        if normed.dtype == torch.bfloat16:
            # Rounding q and k to 8 bits twice, before and after the rotation, would cost accuracy
            # where it matters most, in the attention logits.
            product = torch.mm(normed, projection.weight.t(), out_dtype=torch.float32)
            qkv = add_bias_and_rotate(product, projection.bias, *self.rotation)
        else:
            qkv = rotate_(projection(normed), *self.rotation)
        # [tokens, 3 * embed_dim] -> three of [tokens, heads, head_dim]
        q, k, v = qkv.view(qkv.shape[0], 3, self.num_heads, -1).unbind(1)
        return self.attention(q, k, v).flatten(1)


def run_layers(
    layers: Sequence[Any],
    final_norm: nn.Module,
    hidden: Tensor,
    attend: "FusedAttention",
    wanted: set[int],
) -> dict[int, Tensor]:
    """Hidden states of a pack.

    A residual add and the LayerNorm that follows it are one kernel, so a layer's last add runs
    with the next layer's norm.

    Args:
        layers: `esm2_flash.Layer`s.
        hidden: [tokens, embed_dim], the embeddings.
        wanted: which hidden states to return.

    Returns:
        {layer: [tokens, embed_dim]}
    """
    from virnucpro_monitor.models.kernels import add_norm, gelu_

    dtype = hidden.dtype
    representations = {0: hidden} if 0 in wanted else {}
    normed = layers[0].attention_norm(hidden)
    if dtype == torch.bfloat16:
        # Rounding the residual stream to 8 bits at each add would be the largest error of all. In
        # float16 it isn't, and an FP32 stream would cost 3 % of the speed.
        hidden = hidden.float()
    for number, layer in enumerate(layers, start=1):
        update = layer.out(attend(normed, layer.qkv))
        hidden, normed = add_norm(hidden, update, layer.mlp_norm)
        update = layer.fc2(gelu_(layer.fc1(normed)))
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
