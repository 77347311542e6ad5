"""From 10 ms frames to 40 ms frames: the only place that does length arithmetic between them."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from isogloss.nn.past import SubsamplingPast
from isogloss.sequence import Sequence

FACTOR = 4
"""Input frames per encoder frame."""


def subsampled(frames: Tensor | int) -> Tensor | int:
    """Encoder frames of `frames` input frames: ceil(frames / 4)."""
    return (frames + FACTOR - 1) // FACTOR


def stack(features: Sequence, factor: int) -> Tensor:
    """So many frames side by side: (B, T, F) -> (B, ceil(T/factor), factor·F), zeros after the length."""
    values = features.zero_padding().values
    return functional.pad(values, (0, 0, 0, -values.shape[1] % factor)).unflatten(1, (-1, factor)).flatten(2)


class Subsampling(nn.Module):
    """Two 3×3 convolutions of stride 2 over time and frequency, then a projection to D.

    Encoder frame i stands over input frames 4i … 4i+3; its receptive field is 4i-3 … 4i+3.
    """

    def __init__(self, bins: int, channels: int, width: int):
        super().__init__()
        self.first = nn.Conv2d(1, channels, 3, stride=2, padding=(0, 1))
        self.second = nn.Conv2d(channels, channels, 3, stride=2, padding=(0, 1))
        self.project = nn.Linear(channels * int(subsampled(bins)), width)
        # torch's default shrinks the signal fivefold, below what the blocks add to it: CTC then needs
        # several times as many steps to leave its all-blank phase.
        for layer in (self.first, self.second):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        nn.init.xavier_normal_(self.project.weight)

    def forward(self, features: Sequence, past: SubsamplingPast | None = None) -> Sequence:
        """(B, T, F) -> (B, ceil(T/4), D). Padding is zeroed before each convolution.

        past: what came before; then T is a multiple of 4 in all calls but the last.
        """
        past = past or SubsamplingPast()
        x = features.zero_padding().values[:, None]
        if not x.shape[2]:  # clips too short for a frame: the convolutions want one, be it of padding
            x = functional.pad(x, (0, 0, 0, 1))
        x, past.features = _between(past.features, x)
        x = functional.relu(self.first(x))
        middle = (features.lengths + 1) // 2
        x = Sequence(x.transpose(1, 2), middle).zero_padding().values.transpose(1, 2)
        x, past.middle = _between(past.middle, x)
        x = functional.relu(self.second(x))
        x = self.project(x.transpose(1, 2).flatten(2))
        return Sequence(x, (middle + 1) // 2)


def _between(before: Tensor | None, x: Tensor) -> tuple[Tensor, Tensor]:
    """(B, C, T, F) with a frame on each side, the one `before` (zeros at the start) and zeros; and its last frame."""
    last = x[:, :, -1:]
    if before is None:
        return functional.pad(x, (0, 0, 1, 1)), last
    return functional.pad(torch.cat([before, x], dim=2), (0, 0, 0, 1)), last
