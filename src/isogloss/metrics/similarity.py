"""How alike two sets of vectors are."""

import torch
from torch import Tensor

from isogloss.errors import IsoglossError


def linear_cka(x: Tensor, y: Tensor) -> float:
    """Linear centred kernel alignment (Kornblith et al. 2019, arXiv 1905.00414): (N, D) and (N, E) -> 0 … 1.

    1 where one is the other turned, moved and scaled; near 0 where they have nothing in common. NaN where either does
    not vary beyond the rounding of its type, and without vectors. Raises ValueError for other shapes, and
    IsoglossError for numbers that are NaN or infinite.
    """
    if x.dim() != 2 or y.dim() != 2 or len(x) != len(y):
        raise ValueError(f"Linear CKA compares (N, D) with (N, E), not {tuple(x.shape)} with {tuple(y.shape)}.")
    (x, varies), (y, also) = map(_centred, (x, y))
    if not (varies and also):
        return float("nan")
    between = torch.linalg.matrix_norm(x.T @ y).square()
    return float(between / (torch.linalg.matrix_norm(x.T @ x) * torch.linalg.matrix_norm(y.T @ y)))


def _centred(x: Tensor) -> tuple[Tensor, bool]:
    """The vectors without their mean, in float64, and whether anything but rounding errors is left."""
    if not bool(x.isfinite().all()):
        raise IsoglossError("Vectors to compare are NaN or infinite; check the model that gave them.")
    exact = x.double()
    moved = exact - exact.mean(dim=0)
    return moved, bool(moved.norm() > torch.finfo(x.dtype).eps * exact.norm())
