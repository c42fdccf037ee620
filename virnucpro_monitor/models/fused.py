"""The layers of a pack through the Triton kernels: the plain layers' twin in half precision."""

import importlib.util
from collections.abc import Callable, Sequence
from functools import cache, cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


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

    @cached_property
    def token_tables(self) -> tuple[Tensor, Tensor]:
        """Cosines and sines of each token's position, [tokens, head_dim / 2] FP32."""
        cos, sin, positions, _ = self.rotation
        return cos[positions], sin[positions]

    def __call__(self, normed: Tensor, projection: nn.Linear) -> Tensor:
        """[tokens, embed_dim] -> [tokens, embed_dim]"""
        from virnucpro_monitor.models.kernels import add_bias_and_rotate, rotate_
        from virnucpro_monitor.models.linear_rotate import can_rotate, linear_rotate

        if can_rotate(normed, self.num_heads):
            qkv = linear_rotate(normed, projection, *self.token_tables, self.num_heads)
        elif normed.dtype != torch.bfloat16:
            qkv = rotate_(projection(normed), *self.rotation)
        # Rounding q and k to 8 bits twice, before and after the rotation, would cost accuracy where
        # it matters most, in the attention logits.
        else:
            product = torch.mm(normed, projection.weight.t(), out_dtype=torch.float32)
            qkv = add_bias_and_rotate(product, projection.bias, *self.rotation)
        # [tokens, 3 * embed_dim] -> three of [tokens, heads, head_dim]
        q, k, v = qkv.view(qkv.shape[0], 3, self.num_heads, -1).unbind(1)
        return self.attention(q, k, v).flatten(1)


def run_layers(
    layers: Sequence[Any],
    final_norm: nn.LayerNorm,
    hidden: Tensor,
    attend: "FusedAttention",
    wanted: set[int],
) -> dict[int, Tensor]:
    """Hidden states of a pack.

    A product that ends in the residual stream is added to it by the product itself. Its bias is
    owed: the norms add what all layers so far owe, so that no pass over memory goes to it.

    Args:
        layers: `esm2_flash.Layer`s.
        hidden: [tokens, embed_dim], the embeddings.
        wanted: which hidden states to return.

    Returns:
        {layer: [tokens, embed_dim]}
    """
    from virnucpro_monitor.models.kernels import shifted_norm
    from virnucpro_monitor.models.linear_gelu import linear_gelu

    dtype = hidden.dtype
    biases = [bias for layer in layers for bias in (layer.out.bias, layer.fc2.bias)]
    # [2 * layers + 1, embed_dim]: what is owed before each norm
    owed = functional.pad(torch.stack(biases).float().cumsum(0), (0, 0, 1, 0))
    representations = {0: hidden} if 0 in wanted else {}
    # Rounding the residual stream to 8 bits at each add would be the largest error of all in
    # bfloat16. In float16 it isn't, and an FP32 stream would cost 3 % of the speed.
    hidden = hidden.float() if dtype == torch.bfloat16 else hidden.clone()
    for number, layer in enumerate(layers):
        normed = shifted_norm(hidden, owed[2 * number], layer.attention_norm)
        hidden = _add_product(hidden, attend(normed, layer.qkv), layer.out.weight)
        normed = shifted_norm(hidden, owed[2 * number + 1], layer.mlp_norm)
        hidden = _add_product(hidden, linear_gelu(normed, layer.fc1), layer.fc2.weight)
        if number + 1 in wanted and number + 1 < len(layers):
            representations[number + 1] = (hidden.float() + owed[2 * number + 2]).to(dtype)
    if len(layers) in wanted:
        representations[len(layers)] = shifted_norm(hidden, owed[-1], final_norm)
    return representations


def _add_product(hidden: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    """`hidden + x @ weight.T` with FP32 sums, rounded once, if at all."""
    if hidden.dtype == x.dtype:
        return hidden.addmm_(x, weight.t())
    return torch.addmm(hidden, x, weight.t(), out_dtype=hidden.dtype)


def can_fuse(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether the kernels run here: half precision on an NVIDIA GPU of Ampere's age or later."""
    return (
        device.type == "cuda"
        and dtype in (torch.float16, torch.bfloat16)
        and torch.cuda.get_device_capability(device) >= (8, 0)
        and has_triton()
    )
