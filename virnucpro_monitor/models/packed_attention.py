"""Attention over a pack: which sequences may see each other, rotary positions, and the backends.

A pack is a row of sequences without padding, cut by `cu_seqlens`:

    tokens      <cls> M K T <eos> <cls> V L <eos>      9 tokens
    cu_seqlens  0                 5              9
    positions   0     1 2 3 4     0     1 2 3
    sequence    0     0 0 0 0     1     1 1 1
"""

import importlib.util
import warnings
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor
from torch.nn import functional

from virnucpro_monitor.errors import ConfigurationError

FLASH_ATTN = "flash-attn"
TORCH_VARLEN = "torch-varlen"
TRITON = "triton"
SDPA = "sdpa"
BACKENDS = (FLASH_ATTN, TORCH_VARLEN, TRITON, SDPA)
HALF_DTYPES = (torch.float16, torch.bfloat16)
_FLASH_CAPABILITY = (8, 0)  # Ampere: the oldest GPU that the flash kernels run on


@dataclass(frozen=True)
class Pack:
    """The layout of one pack, worked out once and used by every layer.

    Attributes:
        cu_seqlens: [n + 1] int32, from 0 to `num_tokens`.
        positions: [num_tokens] int64, from 0 in each sequence.
        sequence_index: [num_tokens] int64, which sequence a token belongs to.
        max_seqlen: the longest sequence, in tokens.
    """

    cu_seqlens: Tensor
    positions: Tensor
    sequence_index: Tensor
    max_seqlen: int
    num_tokens: int

    @classmethod
    def from_cu_seqlens(cls, cu_seqlens: Tensor, max_seqlen: int, num_tokens: int) -> "Pack":
        """Lay out a pack on the device of `cu_seqlens`, without waiting for the device."""
        lengths = cu_seqlens.diff().long()
        sequence_index = torch.repeat_interleave(lengths, output_size=num_tokens)
        starts = cu_seqlens[:-1].long()
        positions = torch.arange(num_tokens, device=cu_seqlens.device) - starts[sequence_index]
        return cls(cu_seqlens, positions, sequence_index, max_seqlen, num_tokens)

    @property
    def num_sequences(self) -> int:
        return self.cu_seqlens.numel() - 1

    @cached_property
    def _query_blocks(self) -> dict[int, Tensor]:
        return {}

    def query_blocks(self, size: int) -> Tensor:
        """Where the Triton backend's blocks of queries lie; see `attention_kernel.query_blocks`."""
        from virnucpro_monitor.models.attention_kernel import query_blocks

        if size not in self._query_blocks:
            self._query_blocks[size] = query_blocks(self.cu_seqlens, self.num_tokens, size)
        return self._query_blocks[size]

    @cached_property
    def bounds(self) -> list[int]:
        """`cu_seqlens` on the host. Waits for the device."""
        return cast(list[int], self.cu_seqlens.tolist())


def check_pack(input_ids: Tensor, cu_seqlens: Tensor, max_seqlen: int) -> None:
    """Check a pack before any kernel runs on it. Reads `cu_seqlens` from the device once.

    Raises:
        ValueError: naming the value that is wrong.
    """
    if input_ids.ndim != 1:
        raise ValueError(f"input_ids has shape {tuple(input_ids.shape)}; a pack is [tokens]")
    if input_ids.dtype not in (torch.int64, torch.int32):
        raise ValueError(f"input_ids is {input_ids.dtype}; token ids are torch.int64")
    if cu_seqlens.dtype != torch.int32:
        raise ValueError(f"cu_seqlens is {cu_seqlens.dtype}; the kernels read torch.int32")
    if cu_seqlens.ndim != 1 or cu_seqlens.numel() < 2:
        raise ValueError(
            f"cu_seqlens has shape {tuple(cu_seqlens.shape)}; n sequences have n + 1 bounds"
        )
    if cu_seqlens.device != input_ids.device:
        raise ValueError(f"cu_seqlens is on {cu_seqlens.device}, input_ids on {input_ids.device}")
    bounds = cu_seqlens.tolist()
    if bounds[0] != 0:
        raise ValueError(f"cu_seqlens starts at {bounds[0]}; it starts at 0")
    lengths = [end - start for start, end in pairwise(bounds)]
    for index, length in enumerate(lengths):
        if length <= 0:
            raise ValueError(
                f"cu_seqlens does not increase at sequence {index}: {bounds[index]} to "
                f"{bounds[index + 1]}"
            )
    if bounds[-1] != input_ids.numel():
        raise ValueError(f"cu_seqlens ends at {bounds[-1]}, the pack at {input_ids.numel()} tokens")
    if max_seqlen < max(lengths):
        raise ValueError(f"max_seqlen is {max_seqlen}; the longest sequence has {max(lengths)}")


def choose_backend(requested: str, device: torch.device, dtype: torch.dtype) -> str:
    """The backend that will run: the one asked for, or with "auto" the fastest that can.

    Warns where the GPU is too old for the flash kernels.

    Raises:
        ConfigurationError: the backend asked for is unknown or cannot run here.
    """
    if requested not in ("auto", *BACKENDS):
        raise ConfigurationError(
            f"Unknown attention backend {requested!r}: choose auto, {', '.join(BACKENDS)}."
        )
    obstacle = _flash_obstacle(device, dtype)
    if requested == SDPA or (requested == "auto" and device.type != "cuda"):
        return SDPA
    if requested == "auto":
        if obstacle is None:
            # In the order of their speed on an H200 (packs of 16,384 tokens, 650M, microseconds a
            # layer for long to short sequences): triton 229 to 99, flash-attn 303 to 165,
            # torch-varlen 312 to 169. With the small heads of 8M and 35M, whole packs as graphs on
            # an H100: 9.7 and 3.3 million tokens/s with triton, 7.9 and 3.0 with flash-attn.
            order = [(TRITON, "triton"), (FLASH_ATTN, "flash_attn")]
            return next((name for name, module in order if _has_module(module)), TORCH_VARLEN)
        if dtype in HALF_DTYPES:
            warnings.warn(f"{obstacle}; attention falls back to sdpa, which is slow", stacklevel=3)
        return SDPA
    if obstacle is not None:
        raise ConfigurationError(f"Attention backend {requested!r} cannot run: {obstacle}.")
    if requested in (FLASH_ATTN, TRITON) and not _has_module(requested.replace("-", "_")):
        raise ConfigurationError(
            f"Attention backend {requested!r} is not installed: install {requested}, or choose "
            f"{TORCH_VARLEN}."
        )
    return requested


def _flash_obstacle(device: torch.device, dtype: torch.dtype) -> str | None:
    """Why neither flash kernel can run, or None."""
    if device.type != "cuda":
        return f"the flash kernels need a CUDA device, not {device}"
    if torch.cuda.get_device_capability(device) < _FLASH_CAPABILITY:
        return f"{torch.cuda.get_device_name(device)} is too old for the flash kernels"
    if dtype not in HALF_DTYPES:
        return f"the flash kernels take float16 and bfloat16, not {dtype}"
    return None


def _has_module(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


def packed_attention(q: Tensor, k: Tensor, v: Tensor, pack: Pack, backend: str) -> Tensor:
    """Softmax attention inside each sequence of a pack; no scale is applied.

    Args:
        q, k, v: [tokens, heads, head_dim]; q comes scaled.

    Returns:
        [tokens, heads, head_dim]
    """
    if backend == FLASH_ATTN:
        from flash_attn import flash_attn_varlen_func

        return cast(
            Tensor,
            flash_attn_varlen_func(
                q,
                k,
                v,
                pack.cu_seqlens,
                pack.cu_seqlens,
                pack.max_seqlen,
                pack.max_seqlen,
                softmax_scale=1.0,
            ),
        )
    if backend == TORCH_VARLEN:
        from torch.nn.attention.varlen import varlen_attn

        return cast(
            Tensor,
            varlen_attn(
                q,
                k,
                v,
                pack.cu_seqlens,
                pack.cu_seqlens,
                pack.max_seqlen,
                pack.max_seqlen,
                scale=1.0,
            ),
        )
    if backend == TRITON:
        from virnucpro_monitor.models.attention_kernel import attention, tiling_of

        return attention(q, k, v, pack.query_blocks(tiling_of(q.shape[-1]).queries))
    return _sdpa_attention(q, k, v, pack.bounds)


def _sdpa_attention(q: Tensor, k: Tensor, v: Tensor, bounds: list[int]) -> Tensor:
    """The exact one: each sequence by itself, so that nothing can leak."""
    output = torch.empty_like(q)
    # [tokens, heads, head_dim] -> [1, heads, tokens, head_dim]
    q, k, v = (part.transpose(0, 1).unsqueeze(0) for part in (q, k, v))
    for start, end in pairwise(bounds):
        attended = functional.scaled_dot_product_attention(
            q[:, :, start:end], k[:, :, start:end], v[:, :, start:end], scale=1.0
        )
        output[start:end] = attended[0].transpose(0, 1)
    return output
