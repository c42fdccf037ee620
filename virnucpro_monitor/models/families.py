"""Families of protein encoders: their tokens, and how ESM-2's become theirs.

The yardstick speaks ESM-2's tokens (`<cls>`, residues, `<eos>`) to every model. A model of another
family gets its own, and its rows are put back in the places of ESM-2's.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from esm.data import Alphabet

_ESM2 = Alphabet.from_architecture("ESM-1b")
_LETTERS = "LAGVSERTIDPKQNFYMHWCXBUZO"

PER_SEQUENCE = "per sequence"
RUNNING = "running"


@dataclass(frozen=True, slots=True)
class FamilyFacts:
    """What judging needs of a family.

    Attributes:
        name: of the family; ESM-2's has limits of its own, all others provisional ones.
        hides_residues: whether a token of it does, as `<mask>`.
    """

    name: str = "esm2"
    hides_residues: bool = True


@dataclass(frozen=True, kw_only=True)
class Family:
    """What a kind of encoder reads.

    Attributes:
        name: as in `adapter:family=NAME`.
        residues: token by letter.
        unknown: token of a letter that is not among them.
        before, after: tokens in front of the residues and behind them.
        mask: token that hides a residue, None where there is none; `unknown` stands for it then.
        pad: token that fills a batch.
        positions: `PER_SEQUENCE`, or `RUNNING` on through a pack.
    """

    name: str
    residues: Mapping[str, int]
    unknown: int
    before: tuple[int, ...]
    after: tuple[int, ...]
    mask: int | None
    pad: int
    positions: str = PER_SEQUENCE

    @property
    def facts(self) -> FamilyFacts:
        return FamilyFacts(self.name, self.mask is not None)

    @cached_property
    def is_esm2(self) -> bool:
        """Whether its tokens are ESM-2's own."""
        ids = [*range(4, 4 + len(_LETTERS)), _ESM2.mask_idx]
        ends = (self.before, self.after) == ((_ESM2.cls_idx,), (_ESM2.eos_idx,))
        return ends and [int(self._table[one]) for one in ids] == ids

    @cached_property
    def _table(self) -> torch.Tensor:
        """[33] int64: this family's token for each of ESM-2's."""
        table = torch.full((len(_ESM2),), self.unknown, dtype=torch.int64)
        for letter, token in self.residues.items():
            table[_ESM2.get_idx(letter)] = token
        table[_ESM2.mask_idx] = self.unknown if self.mask is None else self.mask
        return table

    def translated(
        self, ids: torch.Tensor, cu_seqlens: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """ESM-2's pack as this family's.

        Args:
            ids: [tokens] int64.
            cu_seqlens: [n + 1].

        Returns:
            This family's ids [tokens'] and cu_seqlens [n + 1], and for each of ESM-2's tokens the
            row that stands for it: [tokens] int64. `<cls>` and `<eos>` are the outermost rows.
        """
        device, table = ids.device, self._table.to(ids.device)
        before, after = (torch.tensor(one, device=device) for one in (self.before, self.after))
        parts, rows, start = [], [], 0
        for part in ids.tensor_split(cu_seqlens[1:-1].long().cpu()):
            inner = table[part[1:-1]]
            parts.append(torch.cat([before.long(), inner, after.long()]))
            first, end = start + len(self.before), start + len(parts[-1])
            residues = torch.arange(first, first + len(inner), device=device)
            outer = torch.tensor([start if self.before else end - 1, end - 1], device=device)
            rows.append(torch.cat([outer[:1], residues, outer[1:]]))
            start = end
        ends = torch.tensor([0, *map(len, parts)], device=device).cumsum(0)
        return torch.cat(parts), ends.to(cu_seqlens), torch.cat(rows)


def _in_order(letters: str, first: int) -> dict[str, int]:
    return {letter: first + place for place, letter in enumerate(letters)}


def _like_esm2(name: str, **changed: Any) -> Family:
    return Family(
        name=name,
        residues=_in_order(_LETTERS, 4),
        unknown=_ESM2.get_idx("X"),
        before=(_ESM2.cls_idx,),
        after=(_ESM2.eos_idx,),
        mask=_ESM2.mask_idx,
        pad=_ESM2.padding_idx,
        **changed,
    )


ESM2 = _like_esm2("esm2")
FAMILIES = {
    family.name: family
    for family in (
        ESM2,
        _like_esm2("esmc", positions=RUNNING),
        # <bos> 1 residues 2 <eos>; "?" hides a residue.
        Family(
            name="e1",
            residues={
                letter: 8 + place
                for place, letter in enumerate("ABCDEFGHIJKLMNOPQRSTUVWXYZ")
                if letter in _LETTERS
            },
            unknown=31,
            before=(1, 6),
            after=(7, 2),
            mask=5,
            pad=0,
        ),
        # ProtT5: residues and </s>; rare letters are read as X.
        Family(
            name="prott5",
            residues=_in_order("ALGVSRETDIPKFQNYMHWCX", 3),
            unknown=23,
            before=(),
            after=(1,),
            mask=None,
            pad=0,
        ),
    )
}
