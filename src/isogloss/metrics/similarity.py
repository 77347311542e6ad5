"""How alike two sets of vectors are."""

import torch
from torch import Tensor


def linear_cka(x: Tensor, y: Tensor) -> float:
    """Linear centred kernel alignment (Kornblith et al. 2019, arXiv 1905.00414): (N, D) and (N, E) -> 0 … 1.

    1 where one is the other turned, moved and scaled; near 0 where they have nothing in common. nan where either does
    not vary.
    """
    x, y = (z.double() - z.double().mean(dim=0) for z in (x, y))
    between = torch.linalg.matrix_norm(x.T @ y).square()
    return float(between / (torch.linalg.matrix_norm(x.T @ x) * torch.linalg.matrix_norm(y.T @ y)))
