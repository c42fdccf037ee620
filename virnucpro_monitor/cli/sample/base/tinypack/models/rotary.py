"""Rotary position embeddings for packed tokens."""

import torch


def number_positions(cu_seqlens: torch.Tensor) -> torch.Tensor:
    """Position of every token of a pack within its own sequence: [tokens] int64."""
    starts = cu_seqlens[:-1].long()
    lengths = cu_seqlens.diff().long()
    tokens = torch.arange(int(cu_seqlens[-1]), device=cu_seqlens.device)
    return tokens - starts.repeat_interleave(lengths)


def make_tables(positions: torch.Tensor, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosine and sine of every rotation angle, each [tokens, 1, width] float32."""
    exponents = torch.arange(0, width, 2, device=positions.device, dtype=torch.float64) / width
    # In double precision, because angles grow with the position.
    angles = torch.outer(positions.double(), 10000.0**-exponents)
    angles = torch.cat((angles, angles), dim=-1).unsqueeze(1)
    return angles.cos().float(), angles.sin().float()


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotate queries or keys [tokens, heads, width] by their positions."""
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-second, first), dim=-1) * sin
