"""How one sequence becomes one vector, and how two vectors are compared."""

from torch import Tensor


def mean_pool(residues: Tensor) -> Tensor:
    """Mean over residues, in float64: [len, D] -> [D].

    The caller cuts off BOS and EOS. Not finite in, not finite out.

    Raises:
        ValueError: there are no residues, or the shape is another.
    """
    if residues.ndim != 2 or residues.shape[0] == 0:
        raise ValueError(f"cannot pool {tuple(residues.shape)}: expected [len, D] with len >= 1")
    return residues.double().mean(dim=0)


def cosine_similarity(a: Tensor, b: Tensor) -> float:
    """Cosine of the angle between two vectors [D], in float64.

    NaN where either is zero or not finite, so that nothing of the kind can pass a threshold.
    """
    a, b = a.double(), b.double()
    # Scaled first: the squares of large float64 values could overflow.
    a, b = a / a.abs().max(), b / b.abs().max()
    return float(a @ b / (a.norm() * b.norm()))
