"""What packages import of flash-attn, as exact attention for machines without a GPU."""

import sys
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

import torch
from torch.nn.functional import pad, scaled_dot_product_attention


def stand_in_for_flash_attn() -> None:
    """Let `import flash_attn` in this process give the functions of this module."""
    package, padding = ModuleType("flash_attn"), ModuleType("flash_attn.bert_padding")
    for module in (package, padding):
        module.__spec__ = ModuleSpec(module.__name__, None, is_package=module is package)
    vars(package).update(flash_attn_varlen_func=varlen_attention, bert_padding=padding)
    vars(padding).update(unpad_input=unpad_input, pad_input=pad_input)
    sys.modules |= {module.__name__: module for module in (package, padding)}


def varlen_attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    cu_seqlens_q: torch.Tensor,
    cu_seqlens_k: torch.Tensor,
    max_seqlen_q: int,
    max_seqlen_k: int,
    dropout_p: float = 0.0,
    softmax_scale: float | None = None,
    **_: Any,
) -> torch.Tensor:
    """q, k, v [tokens, heads, head_dim] -> the same shape, each sequence by itself."""
    starts = cu_seqlens_q[1:-1].long().cpu()
    parts = [one.transpose(0, 1).tensor_split(starts, dim=1) for one in (q, k, v)]
    seen = [
        scaled_dot_product_attention(queries, keys, values, scale=softmax_scale)
        for queries, keys, values in zip(*parts, strict=True)
    ]
    return torch.cat([one.transpose(0, 1) for one in seen])


def unpad_input(hidden_states: torch.Tensor, attention_mask: torch.Tensor) -> tuple[Any, ...]:
    """[n, T, ...] with its mask [n, T] -> (rows, their places, cu_seqlens, longest, lengths)."""
    lengths = attention_mask.sum(dim=-1, dtype=torch.int32)
    places = attention_mask.flatten().nonzero().flatten()
    cu_seqlens = pad(lengths.cumsum(0, dtype=torch.int32), (1, 0))
    return hidden_states.flatten(0, 1)[places], places, cu_seqlens, int(lengths.max()), lengths


def pad_input(
    hidden_states: torch.Tensor, indices: torch.Tensor, batch: int, seqlen: int
) -> torch.Tensor:
    """Rows back at their places of [batch, seqlen, ...], zeros elsewhere."""
    whole = hidden_states.new_zeros(batch * seqlen, *hidden_states.shape[1:])
    whole[indices] = hidden_states
    return whole.reshape(batch, seqlen, *hidden_states.shape[1:])
