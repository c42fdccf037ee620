"""How far a result is from its reference."""

from torch import Tensor


def relative_l2(a: Tensor, b: Tensor) -> float:
    """||a - b|| / ||b||, in FP64."""
    return float((a.double() - b.double()).norm() / b.double().norm())
