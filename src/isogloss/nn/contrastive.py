"""InfoNCE: which of several candidates belongs to an anchor (van den Oord et al. 2018, arXiv 1807.03748)."""

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy


def info_nce(right: Tensor, wrong: Tensor, excluded: Tensor | None = None) -> Tensor:
    """-log exp(right) / (exp(right) + Σ exp(wrong)): (M,), (M, K) -> (M,); the right one is in the denominator.

    excluded: (M, K) bool, candidates that are no wrong ones because they equal the right one.
    """
    wrong = wrong.float()
    if excluded is not None:
        wrong = wrong.masked_fill(excluded, -torch.inf)
    logits = torch.cat([right.float()[:, None], wrong], dim=1)
    return cross_entropy(logits, torch.zeros(len(logits), dtype=torch.int64, device=logits.device), reduction="none")
