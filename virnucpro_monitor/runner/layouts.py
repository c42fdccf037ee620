"""The shapes in which models take several sequences, from the one shape in which a pack comes.

A pack is `ids [tokens]` with `cu_seqlens [n + 1]`. Others want a padded batch, positions, or the
number of the sequence that each token belongs to.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import torch

from virnucpro_monitor.models.families import PER_SEQUENCE, RUNNING

PAD = 1  # ESM-2's <pad>

# A padded batch takes the room of its longest sequence as often as it has sequences. As loaders do
# that sort by length, a pack is put through in several batches where padding would be more than
# a quarter of the tokens, but for small ones, in which a few residues lie beside a hundred.
MAX_PADDED_SHARE = 1.25
SMALL_BATCH_TOKENS = 320
MAX_PADDED_TOKENS = 4_096


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


def padded_batches(lengths: Sequence[int]) -> list[list[int]]:
    """Places of the sequences that are padded together; in each batch in the pack's order."""
    found: list[list[int]] = []
    longest = tokens = 0
    for place in sorted(range(len(lengths)), key=lambda one: -lengths[one]):
        length = lengths[place]
        padded = longest * (len(found[-1]) + 1) if found else 0
        allowed = max(SMALL_BATCH_TOKENS, MAX_PADDED_SHARE * (tokens + length))
        if not found or padded > min(MAX_PADDED_TOKENS, allowed):
            found.append([])
            longest, tokens = length, 0
        found[-1].append(place)
        tokens += length
    return [sorted(batch) for batch in found]


class PackRows(Mapping[int, torch.Tensor]):
    """{layer: [tokens, D]} of a pack that went through in padded batches.

    A layer's rows are put together when it is asked for: of most packs only one or two are.

    Args:
        parts: by batch, all layers, each [n, T, D], or [rows, D] without the padding.
        inside: by batch, places of its tokens in [n * T].
        back: [tokens] places in the batches' rows, end to end, of the pack's tokens.
    """

    def __init__(
        self,
        parts: Sequence[Sequence[torch.Tensor]],
        inside: Sequence[torch.Tensor],
        back: torch.Tensor,
    ) -> None:
        self._parts, self._inside, self._back = parts, inside, back

    def __getitem__(self, layer: int) -> torch.Tensor:
        if layer not in range(len(self)):
            raise KeyError(layer)
        found = []
        for part, inside in zip(self._parts, self._inside, strict=True):
            rows = part[layer]
            if rows.dim() == 3:
                rows = rows.flatten(0, 1)
                if len(inside) != len(rows):
                    rows = rows[inside]
            found.append(rows)
        return found[0] if len(found) == 1 else torch.cat(found)[self._back]

    def __iter__(self) -> Iterator[int]:
        return iter(range(len(self)))

    def __len__(self) -> int:
        return min(map(len, self._parts))


def embed_padded(
    ids: torch.Tensor,
    cu_seqlens: torch.Tensor,
    embed: Callable[[torch.Tensor, torch.Tensor], Iterable[torch.Tensor]],
    value: int = PAD,
) -> PackRows:
    """Put a pack through a model that takes padded batches: [tokens] -> {layer: [tokens, D]}.

    Args:
        embed: (batch [n, T], mask [n, T] bool) -> all layers, each [n, T, D], or [tokens, D] where
            the model takes the padding out itself.
        value: the padding's token.
    """
    places = torch.arange(len(ids), device=ids.device)
    slots = places.tensor_split(cu_seqlens[1:-1].long().cpu())
    parts, taken, inside = [], [], []
    for chosen in padded_batches([len(slot) for slot in slots]):
        taken.append(torch.cat([slots[one] for one in chosen]))
        bounds = torch.tensor([0, *(len(slots[one]) for one in chosen)]).cumsum(0)
        batch, mask = pad(ids[taken[-1]], bounds, value)
        parts.append(tuple(embed(batch, mask)))
        inside.append(mask.flatten().nonzero()[:, 0])
    return PackRows(parts, inside, torch.cat(taken).argsort())
