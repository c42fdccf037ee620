"""The shapes in which models take several sequences, from the one shape in which a pack comes.

A pack is `ids [tokens]` with `cu_seqlens [n + 1]`. Others want a padded batch, positions, or the
number of the sequence that each token belongs to.
"""

import torch

from virnucpro_monitor.models.families import PER_SEQUENCE, RUNNING

PAD = 1  # ESM-2's <pad>


def pad(
    ids: torch.Tensor, cu_seqlens: torch.Tensor, value: int = PAD
) -> tuple[torch.Tensor, torch.Tensor]:
    """[tokens] -> (batch [n, T], mask [n, T] bool), T the longest; `rows[mask]` undoes it."""
    parts = ids.tensor_split(cu_seqlens[1:-1].long().cpu())
    batch = torch.nn.utils.rnn.pad_sequence(list(parts), batch_first=True, padding_value=value)
    lengths = cu_seqlens.diff().to(ids.device)
    mask = torch.arange(batch.shape[1], device=ids.device)[None, :] < lengths[:, None]
    return batch, mask


def position_ids(cu_seqlens: torch.Tensor, rule: str = PER_SEQUENCE) -> torch.Tensor:
    """[n + 1] -> [tokens] int64: 0, 1, 2, ... in each sequence.

    Args:
        rule: a family's `positions`; `RUNNING` goes on from one sequence to the next.
    """
    if rule == RUNNING:
        return torch.arange(int(cu_seqlens[-1]), device=cu_seqlens.device)
    lengths = cu_seqlens.diff().long()
    starts = torch.repeat_interleave(cu_seqlens[:-1].long(), lengths)
    return torch.arange(len(starts), device=cu_seqlens.device) - starts


def owner_ids(cu_seqlens: torch.Tensor) -> torch.Tensor:
    """[n + 1] -> [tokens] int64: 0 for the first sequence's tokens, 1 for the second's, ..."""
    lengths = cu_seqlens.diff().long()
    return torch.repeat_interleave(torch.arange(len(lengths), device=lengths.device), lengths)
