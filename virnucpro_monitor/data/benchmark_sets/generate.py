"""How the released sets were made. The frozen FASTA files are the truth; a test regenerates them.

Random numbers come from `random.Random(seed).random()` alone: it is the one method whose sequence
Python promises to keep between versions.
"""

import bisect
import itertools
import math
import random
from collections.abc import Callable, Mapping
from statistics import NormalDist

from virnucpro_monitor.data.fasta import AMBIGUOUS_RESIDUES
from virnucpro_monitor.data.limits import MAX_RESIDUES
from virnucpro_monitor.records import ProteinSequence

# Residue frequencies in percent: "Amino acid composition" in the release statistics of
# UniProtKB/Swiss-Prot (2023), rounded to 0.01.
FREQUENCIES_PERCENT: Mapping[str, float] = {
    "A": 8.25, "R": 5.52, "N": 4.06, "D": 5.46, "C": 1.38, "Q": 3.93, "E": 6.71, "G": 7.07,
    "H": 2.27, "I": 5.91, "L": 9.64, "K": 5.79, "M": 2.41, "F": 3.86, "P": 4.74, "S": 6.65,
    "T": 5.36, "W": 1.10, "Y": 2.92, "V": 6.86,
}  # fmt: skip

_RESIDUES = tuple(FREQUENCIES_PERCENT)
_CUMULATIVE_PERCENT = tuple(itertools.accumulate(FREQUENCIES_PERCENT.values()))

TILE_EDGES = (16, 32, 64, 128, 256, 512)

_MEDIAN_RESIDUES = 290
_SIGMA_LOG_RESIDUES = 0.75
_MIN_RESIDUES = 20
_KINDS = ("plain",) * 7 + ("lowcomplexity", "repeat", "ambiguous")


def generate_seed_set() -> tuple[ProteinSequence, ...]:
    """The sequences of the original equivalence tests, under the ids that they have there."""
    residues = {
        "short1": "MKTAYIAK",
        "short2": "VLSPADKTNV",
        "short3": "MVHLT",
        "medium1": "MKTAYIAK" * 10,
        "medium2": "VLSPADKTNV" * 15,
        "tiny": "MKT",
        "small": "MKTAYIAK",
        "medium": "MKTAYIAK" * 20,
        "large": "MKTAYIAK" * 50,
        "hydrophobic": "AILVFMWP" * 5,
        "charged": "DERKH" * 8,
    }
    return tuple(ProteinSequence(id=name, residues=text) for name, text in residues.items())


def generate_boundaries_set() -> tuple[ProteinSequence, ...]:
    """Lengths around every tile edge of attention kernels, in residues and in tokens.

    A sequence has two tokens more than residues, so `edge - 3 ... edge + 1` residues surround
    `edge` in both units. 1023 residues are cut to the limit of 1022.
    """
    source = random.Random(20261124)
    lengths = [1, 2, 3]
    lengths += [edge + step for edge in TILE_EDGES for step in (-3, -2, -1, 0, 1)]
    lengths += [MAX_RESIDUES - 2, MAX_RESIDUES - 1, MAX_RESIDUES, MAX_RESIDUES + 1]
    return tuple(
        ProteinSequence(id=f"length-{length:04d}", residues=_draw_residues(source, length))
        for length in lengths
    )


def generate_proteome_set() -> tuple[ProteinSequence, ...]:
    """200 sequences with the lengths and residues of a proteome; three in ten are awkward.

    Lengths are log-normal around 290 residues, drawn again outside 20 to 1022; the first two
    sequences have exactly these limits. Every ten sequences hold seven plain ones, one with
    low-complexity stretches, one built of tandem repeats, and one with ambiguous residues
    (B, Z, X, U, O).
    """
    source = random.Random(290)
    sequences = []
    limits = {1: _MIN_RESIDUES, 2: MAX_RESIDUES}
    for number, kind in zip(range(1, 201), itertools.cycle(_KINDS), strict=False):
        length = limits.get(number) or _draw_length(source)
        residues = _MAKERS[kind](source, length)
        # Proteins begin with methionine.
        sequences.append(ProteinSequence(id=f"{kind}-{number:03d}", residues="M" + residues[1:]))
    return tuple(sequences)


def generate_reach_set() -> tuple[ProteinSequence, ...]:
    """Few sequences that reach what a target may do by length or letter, in more than one pack.

    One and two residues; tile edges in tokens, and beside them; more than a window of 512; the
    limit; every letter that is no standard residue. Together they exceed the usual budget of 4096
    tokens.
    """
    source = random.Random(4096)
    lengths = (300, 1, 1022, 63, 126, 2, 700, 127, 128, 513, 255, 1021)
    return (
        *(
            ProteinSequence(id=f"length-{length:04d}", residues=_draw_residues(source, length))
            for length in lengths
        ),
        ProteinSequence(id="ambiguous", residues="M" + _ambiguous(source, 120)[1:]),
        ProteinSequence(id="repeat", residues="M" + _tandem_repeat(source, 90)[1:]),
    )


def _draw_length(source: random.Random) -> int:
    while True:
        deviate = NormalDist().inv_cdf(max(source.random(), 1e-12))
        length = round(_MEDIAN_RESIDUES * math.exp(_SIGMA_LOG_RESIDUES * deviate))
        if _MIN_RESIDUES <= length <= MAX_RESIDUES:
            return length


def _draw_residues(source: random.Random, length: int) -> str:
    return "".join(
        _RESIDUES[
            bisect.bisect_right(_CUMULATIVE_PERCENT, source.random() * _CUMULATIVE_PERCENT[-1])
        ]
        for _ in range(length)
    )


def _draw_below(source: random.Random, limit: int) -> int:
    return int(source.random() * limit)


def _low_complexity(source: random.Random, length: int) -> str:
    """Up to three stretches of 8 to 40 residues made of one to three kinds of residue."""
    residues = list(_draw_residues(source, length))
    for _ in range(1 + _draw_below(source, 3)):
        kinds = _draw_residues(source, 1 + _draw_below(source, 3))
        stretch = min(length, 8 + _draw_below(source, 33))
        start = _draw_below(source, length - stretch + 1)
        for place in range(start, start + stretch):
            residues[place] = kinds[_draw_below(source, len(kinds))]
    return "".join(residues)


def _tandem_repeat(source: random.Random, length: int) -> str:
    """One unit of 3 to 42 residues over and over, each copy with one residue in ten exchanged."""
    unit = _draw_residues(source, 3 + _draw_below(source, 40))
    residues = (unit * (length // len(unit) + 1))[:length]
    return "".join(
        _draw_residues(source, 1) if source.random() < 0.1 else residue for residue in residues
    )


def _ambiguous(source: random.Random, length: int) -> str:
    """One residue in twenty, and at least one of each kind, is an ambiguity code."""
    residues = list(_draw_residues(source, length))
    for code in AMBIGUOUS_RESIDUES * max(1, length // (20 * len(AMBIGUOUS_RESIDUES))):
        place = 0
        while place == 0 or residues[place] in AMBIGUOUS_RESIDUES:
            place = _draw_below(source, length)
        residues[place] = code
    return "".join(residues)


_MAKERS: Mapping[str, Callable[[random.Random, int], str]] = {
    "plain": _draw_residues,
    "lowcomplexity": _low_complexity,
    "repeat": _tandem_repeat,
    "ambiguous": _ambiguous,
}

GENERATORS: Mapping[str, Callable[[], tuple[ProteinSequence, ...]]] = {
    "seed": generate_seed_set,
    "boundaries": generate_boundaries_set,
    "proteome": generate_proteome_set,
    "reach": generate_reach_set,
}
