"""InfoNCE: which of several candidates belongs to an anchor (van den Oord et al. 2018, arXiv 1807.03748)."""

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize


def info_nce(right: Tensor, wrong: Tensor, excluded: Tensor | None = None) -> Tensor:
    """-log exp(right) / (exp(right) + Σ exp(wrong)): (M,), (M, K) -> (M,); the right one is in the denominator.

    excluded: (M, K) bool, candidates that are no wrong ones because they equal the right one.
    """
    wrong = wrong.float()
    if excluded is not None:
        wrong = wrong.masked_fill(excluded, -torch.inf)
    scores = torch.cat([right.float()[:, None], wrong], dim=1)
    return info_nce_among(scores, torch.zeros(len(scores), dtype=torch.int64, device=scores.device))


def info_nce_among(scores: Tensor, right: Tensor) -> Tensor:
    """The same where the candidates of all anchors are the same N, as the clips of a batch: (M, N), (M,) -> (M,).

    right: of each anchor, the place of the candidate that belongs to it. A score of -inf leaves a candidate out.
    """
    return cross_entropy(scores.float(), right, reduction="none")


def info_nce_both_ways(scores: Tensor) -> Tensor:
    """The same for two views of N things, from the first to the second and back, averaged: (N, N) -> (N,).

    Row i and column i belong together.
    """
    own = torch.arange(len(scores), device=scores.device)
    return (info_nce_among(scores, own) + info_nce_among(scores.mT, own)) / 2


def cosines(one: Tensor, other: Tensor) -> Tensor:
    """Cosines of all pairs: (M, E), (N, E) -> (M, N) float32; bf16 has two digits, and temperatures leave one."""
    with torch.autocast(one.device.type, enabled=False):
        return normalize(one.float(), dim=-1) @ normalize(other.float(), dim=-1).mT


def triplet_loss(near: Tensor, far: Tensor, margin: float) -> Tensor:
    """max(0, near - far + margin) of squared distances to something alike and to something else, of any shape."""
    return (near - far + margin).clamp(min=0)
