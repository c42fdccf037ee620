"""Our own tokens of a sequence, as fair-esm makes them: <cls>, the residues, <eos>."""

from functools import cache

import torch
from esm.data import Alphabet

from virnucpro_monitor.errors import BenchmarkError


@cache
def alphabet() -> Alphabet:
    """The alphabet that all ESM-2 sizes share (33 tokens)."""
    return Alphabet.from_architecture("ESM-1b")


def encode(residues: str) -> torch.Tensor:
    """Residues -> [len + 2] int64.

    Raises:
        BenchmarkError: a character the alphabet lacks.
    """
    index = alphabet().tok_to_idx
    unknown = sorted(set(residues) - index.keys())
    if unknown or not residues:
        what = f"holds {unknown[0]!r}, which ESM-2's alphabet lacks" if residues else "is empty"
        raise BenchmarkError(f"The sequence {residues[:20]!r} {what}: correct the benchmark set.")
    ids = [alphabet().cls_idx, *(index[residue] for residue in residues), alphabet().eos_idx]
    return torch.tensor(ids, dtype=torch.int64)
