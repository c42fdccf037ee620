"""Measures of agreement between two embeddings of one sequence.

Each is a pure function over whole tensors, computed on float64 copies. A value that is not finite
is `None`, never NaN, so that a gate has to look at it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from virnucpro_monitor.data.pooling import cosine_similarity


@dataclass(frozen=True, slots=True)
class ResidueAgreement:
    """How two [residues, D] embeddings of one sequence agree, residue by residue.

    Attributes:
        worst, p01: minimum and 1st percentile (linear interpolation) of the residues' cosines.
        worst_residue: 0-based residue with the lowest cosine.
        max_abs: largest absolute difference over all residues and channels.
    """

    worst: float
    p01: float
    worst_residue: int
    max_abs: float


def finite_or_none(value: float) -> float | None:
    return value if math.isfinite(value) else None


def all_finite(rows: torch.Tensor) -> bool:
    """Whether every value is: a finite sum proves it, in one pass and without copies."""
    return math.isfinite(float(rows.sum(dtype=torch.float32))) or bool(torch.isfinite(rows).all())


def cosine(a: torch.Tensor, b: torch.Tensor) -> float | None:
    """Cosine of two vectors [D]; None where either is zero or not finite."""
    return finite_or_none(cosine_similarity(a, b))


def relative_l2(a: torch.Tensor, b: torch.Tensor) -> float | None:
    """||a - b|| / ||b|| of two tensors of one shape; None where not finite."""
    a, b = a.double(), b.double()
    return finite_or_none(float((a - b).norm() / b.norm()))


def slots_relative_l2(
    a: torch.Tensor, b: torch.Tensor, lengths: Sequence[int]
) -> list[float | None]:
    """`relative_l2` of each of several sequences that lie behind each other, [rows, D] x 2.

    Args:
        lengths: rows of each sequence.
    """
    wide = b.double()
    rows = torch.stack([(a.double() - wide).square().sum(-1), wide.square().sum(-1)]).cpu()
    # A GPU adds rows to a slot in no fixed order, so that the last bits differ from run to run.
    slots = torch.repeat_interleave(torch.tensor(lengths))
    squares = torch.zeros(2, len(lengths), dtype=torch.float64)
    squares[0].index_add_(0, slots, rows[0])
    squares[1].index_add_(0, slots, rows[1])
    return [finite_or_none(value) for value in (squares[0] / squares[1]).sqrt().tolist()]


def gain(a: torch.Tensor, b: torch.Tensor) -> float | None:
    """||a|| / ||b||; None where not finite. 1 is no gain error."""
    return finite_or_none(float(a.double().norm() / b.double().norm()))


def scale_factor(a: torch.Tensor, b: torch.Tensor) -> float | None:
    """The least-squares factor f that brings f * b closest to a: <a, b> / <b, b>."""
    a, b = a.double().flatten(), b.double().flatten()
    return finite_or_none(float(torch.dot(a, b) / torch.dot(b, b)))


def residue_cosines(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Cosine of each row: [residues, D] x 2 -> [residues] float64."""
    a, b = a.double(), b.double()
    cosines: torch.Tensor = (a * b).sum(-1) / (a.norm(dim=-1) * b.norm(dim=-1))
    return cosines


def residue_relative_l2(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """||a - b|| / ||b|| of each row: [residues, D] x 2 -> [residues] float64."""
    a, b = a.double(), b.double()
    distances: torch.Tensor = (a - b).norm(dim=-1) / b.norm(dim=-1)
    return distances


def residue_figures(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """How two [residues, D] tensors agree: [4] float64 for `agreement_of`, on their device.

    The device is not waited for. They have one shape, and a residue at least.
    """
    a, b = a.double(), b.double()
    cosines = residue_cosines(a, b)
    worst = cosines.argmin()
    # Not cosines[worst]: a number is asked of the device for that, which is waited for.
    lowest = torch.where(cosines.isfinite().all(), cosines.min(), torch.nan)
    largest = (a - b).abs_().max()
    return torch.stack([lowest, torch.quantile(cosines, 0.01), worst.double(), largest])


def agreement_of(figures: Sequence[float]) -> ResidueAgreement | None:
    """`residue_figures` as numbers; None where a value is not finite."""
    worst, p01, place, largest = figures
    if not (math.isfinite(worst) and math.isfinite(largest)):
        return None
    return ResidueAgreement(worst=worst, p01=p01, worst_residue=int(place), max_abs=largest)
