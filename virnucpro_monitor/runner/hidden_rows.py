"""Hidden rows of a pack, put in the pack's own order.

They are read at a target's layers, which may see the pack padded on either side, or its sequences
in another order that is undone at the end. The tokens that its embedding was given tell which rows
are whose.
"""

import itertools
from collections.abc import Sequence

import torch

from virnucpro_monitor.validation.subject import PackedBatch
from virnucpro_monitor.validation.tokens import alphabet


def in_pack_order(
    rows: torch.Tensor, embedded: Sequence[torch.Tensor], batch: PackedBatch
) -> torch.Tensor:
    """Rows [tokens, D] or [n, T, D] of a layer -> [tokens, D] in the order of `batch.input_ids`.

    Args:
        embedded: the tokens that the target embedded, as it laid them out, of each time that it
            did. Where they are not those of the rows, padded rows are taken to begin at the left,
            in the pack's order.
    """
    if embedded and sum(tokens.numel() for tokens in embedded) == rows[..., 0].numel():
        tokens = torch.cat([tokens.reshape(-1).cpu() for tokens in embedded])
        if rows.dim() == 2 and torch.equal(tokens, batch.input_ids.cpu()):
            return rows
        places = _places(tokens.tolist(), batch)
        if places is not None:
            return rows.reshape(-1, rows.shape[-1])[places.to(rows.device)]
    if rows.dim() == 3:
        pairs = zip(rows, batch.cu_seqlens.diff().tolist(), strict=True)
        return torch.cat([row[:length] for row, length in pairs])
    return rows


def _places(tokens: Sequence[int], batch: PackedBatch) -> torch.Tensor | None:
    """Which of the embedded tokens each of the pack's is; None where one sequence is not found."""
    starts = [place for place, token in enumerate(tokens) if token == alphabet().cls_idx]
    found: dict[tuple[int, ...], list[int]] = {}
    for start, end in itertools.pairwise([*starts, len(tokens)]):
        while end > start and tokens[end - 1] == alphabet().padding_idx:
            end -= 1
        found.setdefault(tuple(tokens[start:end]), []).append(start)
    places: list[torch.Tensor] = []
    for start, end in itertools.pairwise(batch.cu_seqlens.tolist()):
        own = found.get(tuple(batch.input_ids[start:end].tolist()))
        if not own:
            return None
        at = own.pop(0)
        places.append(torch.arange(at, at + end - start))
    index = torch.cat(places)
    return index if index.numel() == batch.input_ids.numel() else None
