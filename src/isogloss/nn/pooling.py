"""From a sequence to one vector."""

import torch
from torch import Tensor, nn

from isogloss.sequence import Sequence


def mean_over_time(states: Sequence) -> Tensor:
    """(B, T, D) -> (B, D) float32; an empty sequence gives zeros."""
    return states.zero_padding().values.float().sum(dim=1) / states.lengths.clamp(min=1)[:, None]


class AttentiveStatistics(nn.Module):
    """Weighted mean and standard deviation over time (arXiv 1803.10963): (B, T, D) -> (B, 2D)."""

    def __init__(self, width: int, hidden: int = 64):
        super().__init__()
        self.score = nn.Sequential(nn.Linear(width, hidden), nn.Tanh(), nn.Linear(hidden, 1, bias=False))

    def forward(self, states: Sequence) -> Tensor:
        """(B, T, D) -> (B, 2D); an empty sequence gives zeros."""
        values = states.zero_padding().values.float()
        valid = states.valid[..., None]
        # A finite floor and a product with `valid`: a row without any valid frame stays finite.
        score = self.score(values).float().masked_fill(~valid, torch.finfo(torch.float32).min)
        weight = score.softmax(dim=1) * valid
        mean = (weight * values).sum(1)
        variance = (weight * (values - mean[:, None]) ** 2).sum(1)
        return torch.cat([mean, (variance + 1e-6).sqrt()], dim=-1)
