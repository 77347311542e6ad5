"""Four frames become one: as convolutions, and side by side."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from isogloss.framing import Framing
from isogloss.nn.dropout import Dropout
from isogloss.nn.past import SubsamplingPast
from isogloss.sequence import Sequence

_HALF = Framing(((3, 2, 1),))


def stack(features: Sequence, factor: int) -> Tensor:
    """`factor` frames side by side: (B, T, F) -> (B, ceil(T/factor), factor · F), zeros after the length."""
    values = features.zero_padding().values
    missing = -values.shape[1] % factor
    return functional.pad(values, (0, 0, 0, missing)).unflatten(1, (-1, factor)).flatten(2)


def not_empty(features: Sequence) -> Sequence:
    """Clips too short for a frame get one of padding: blocks want one."""
    return features if features.values.shape[1] else features.map(lambda x: functional.pad(x, (0, 0, 0, 1)))


class Subsampling(nn.Module):
    """Two 3×3 convolutions of stride 2 over time and frequency, then a projection to D.

    Encoder frame i stands over input frames 4i … 4i+3; its receptive field is 4i-3 … 4i+3.
    """

    framing = _HALF.then(_HALF)

    def __init__(self, bins: int, channels: int, width: int, dropout: float = 0.0):
        super().__init__()
        self.width = width
        self.first = nn.Conv2d(1, channels, 3, stride=2, padding=(0, 1))
        self.second = nn.Conv2d(channels, channels, 3, stride=2, padding=(0, 1))
        self.project = nn.Linear(channels * self.framing.frames(bins), width)
        self.dropout = Dropout(dropout)
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
        middle = _HALF.frames(features.lengths)
        x = Sequence(x.transpose(1, 2), middle).zero_padding().values.transpose(1, 2)
        x, past.middle = _between(past.middle, x)
        x = functional.relu(self.second(x))
        x = self.dropout(self.project(x.transpose(1, 2).flatten(2)))
        return Sequence(x, _HALF.frames(middle))


def _between(before: Tensor | None, x: Tensor) -> tuple[Tensor, Tensor]:
    """(B, C, T, F) with a frame on each side, the one `before` (zeros at the start) and zeros; and its last frame."""
    last = x[:, :, -1:]
    if before is None:
        return functional.pad(x, (0, 0, 1, 1)), last
    return functional.pad(torch.cat([before, x], dim=2), (0, 0, 0, 1)), last
