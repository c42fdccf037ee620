"""Attention inside each sequence of a pack."""

from itertools import pairwise
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention

from tinypack.models.rotary import rotate


def find_sequences(cu_seqlens: torch.Tensor) -> list[slice]:
    """The rows of every sequence of a pack."""
    return [slice(start, end) for start, end in pairwise(cu_seqlens.tolist())]


def attend(
    attention: Any,
    x: torch.Tensor,
    sequences: list[slice],
    tables: tuple[torch.Tensor, torch.Tensor],
) -> torch.Tensor:
    """Self-attention of one layer over packed hidden states, [tokens, dim] -> [tokens, dim]."""
    # [tokens, dim] -> [tokens, heads, width]
    shape = (len(x), attention.num_heads, -1)
    query = rotate(attention.q_proj(x).view(shape), *tables)
    key = rotate(attention.k_proj(x).view(shape), *tables)
    value = attention.v_proj(x).view(shape)
    mixed = torch.empty_like(value)
    for rows in sequences:
        # [length, heads, width] -> [heads, length, width] and back
        q, k, v = (side[rows].transpose(0, 1) for side in (query, key, value))
        mixed[rows] = scaled_dot_product_attention(q, k, v).transpose(0, 1)
    output: torch.Tensor = attention.out_proj(mixed.flatten(1))
    return output
