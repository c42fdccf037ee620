"""Rotary positions, in FP32 whatever the model's dtype."""

import torch
from torch import Tensor


class RotaryTables:
    """Cosines and sines by position, one FP32 copy per device.

    They are no buffers of the module, because `.half()` would round them: in half precision the
    angles step by 0.5 above position 512, and in bfloat16 positions above 256 collide.

    Args:
        inv_freq: [head_dim / 2], the model's own frequencies.
    """

    def __init__(self, inv_freq: Tensor) -> None:
        self.inv_freq = inv_freq.detach().to("cpu", torch.float32)
        self._tables: dict[torch.device, tuple[Tensor, Tensor]] = {}

    def get(self, length: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """Cosines and sines for positions below at least `length`, each [positions, head_dim / 2].

        They grow by doubling, so a longer pack seldom makes them anew.
        """
        tables = self._tables.get(device)
        if tables is None or tables[0].shape[0] < length:
            # FP32 angles as in fair-esm. FP64 angles would be nearer to an FP64 run, but farther
            # from the FP32 run of fair-esm that every result is judged by.
            angles = torch.arange(_grown(length)).float()[:, None] * self.inv_freq
            tables = (angles.cos().to(device), angles.sin().to(device))
            self._tables[device] = tables
        return tables


def _grown(length: int) -> int:
    size = 1024
    while size < length:
        size *= 2
    return size


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn each pair (i, i + head_dim / 2) by its angle, in FP32.

    Args:
        x: [..., heads, head_dim]
        cos, sin: [..., 1, head_dim / 2] FP32, one row per token.

    Returns:
        Like `x`, in its dtype.
    """
    first, second = x.float().chunk(2, dim=-1)
    turned = torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)
    return turned.to(x.dtype)
