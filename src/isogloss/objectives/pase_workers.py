"""The workers of PASE: small networks on top of an encoder, each of which solves one task with its states.

    states (B, T, D) ─┬─ transposed convolutions ─> the waveform                                       wave
                      ├─ linear, PReLU, linear ───> r frames of features around each of the encoder's  lps … prosody
                      └─ two states, or two means ─ linear, PReLU, linear ─> do they belong together?  lim, gim, spc

Features are computed of the clean waveform; over all that was heard each has zero mean and unit variance.
"""

from collections.abc import Callable, Iterable
from functools import partial
from math import ceil, inf
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from isogloss.audio.mfcc import with_changes
from isogloss.audio.normalise import RunningNormaliser
from isogloss.audio.prosody import prosody
from isogloss.audio.spectra import Grid, cepstra, log_gammatone, log_mel, log_power
from isogloss.nn.pooling import mean_over_time
from isogloss.sequence import Sequence

Worker = Literal[
    "wave",
    "lps",
    "lps_long",
    "fbank",
    "fbank_long",
    "gammatone",
    "gammatone_long",
    "mfcc_13",
    "mfcc_20",
    "mfcc_20_long",
    "prosody",
    "lim",
    "gim",
    "spc",
]


class Spectral(NamedTuple):
    """Features of a power spectrum: of windows of so many samples, so wide, and what makes them of it."""

    window: int
    width: int
    of: Callable[[Tensor], Tensor]


SPECTRAL = {
    "lps": Spectral(400, 1025, log_power),
    "lps_long": Spectral(512, 1025, log_power),
    "fbank": Spectral(400, 40, log_mel),
    "fbank_long": Spectral(1024, 40, log_mel),
    "gammatone": Spectral(400, 40, log_gammatone),
    "gammatone_long": Spectral(2048, 40, log_gammatone),
    "mfcc_13": Spectral(400, 13, partial(cepstra, coefficients=13)),
    "mfcc_20": Spectral(400, 20, partial(cepstra, coefficients=20)),
    "mfcc_20_long": Spectral(2048, 20, partial(cepstra, coefficients=20)),
}
WIDTHS = {name: spectral.width for name, spectral in SPECTRAL.items()} | {"prosody": 4}
"""Features a frame of the workers that predict them."""
KERNEL = 30
"""Width of the transposed convolutions, at least."""
SEEN = 5
"""States after another, or before it, that are judged together."""


@torch.no_grad()
def features(
    names: Iterable[str], clean: Sequence, grid: Grid, lengths: Tensor, frames: int, changes: int
) -> dict[str, Sequence]:
    """What workers of these names predict of clean waveforms: (B, S) -> (B, T, (1 + changes) F) each, T = frames.

    lengths: frames of each clip, (B,). changes: how often the change from frame to frame is added.
    """
    found: dict[str, Sequence] = {}
    powers: dict[int, Tensor] = {}
    with torch.autocast(clean.device.type, enabled=False):
        for name in names:
            if name == "prosody":
                found[name] = prosody(clean, grid, frames, lengths)
                continue
            spectral = SPECTRAL[name]
            if spectral.window not in powers:
                powers[spectral.window] = grid.power(clean, spectral.window, frames)
            found[name] = Sequence(spectral.of(powers[spectral.window]), lengths)
        return {name: with_changes(values.zero_padding(), changes).zero_padding() for name, values in found.items()}


def lead(context: int, ratio: int) -> int:
    """States at either end of a clip around which some of so many frames of features lie outside it."""
    return ceil(context // 2 / ratio)


class Perceptron(nn.Module):
    """Linear, PReLU, linear: (…, D) -> (…, outputs)."""

    def __init__(self, width: int, hidden: int, outputs: int):
        super().__init__()
        self.enter = nn.Linear(width, hidden)
        self.activation = nn.PReLU(hidden, init=0.0)
        self.leave = nn.Linear(hidden, outputs)

    def forward(self, x: Tensor) -> Tensor:
        inside: Tensor = self.enter(x)
        # torch takes the second dimension for the channels.
        return self.leave(self.activation(inside.flatten(0, -2)).view_as(inside))


class Regression(nn.Module):
    """Predicts, from each state, the features of `context` frames around its own, jointly.

    ratio: frames of features to one of states. Only states all of whose frames lie in the clip have a loss.
    """

    def __init__(self, width: int, features: int, hidden: int, context: int, ratio: int):
        super().__init__()
        self.context, self.ratio = context, ratio
        self.lead = lead(context, ratio)
        self.normalise = RunningNormaliser(features, floor=-inf)
        self.predict = Perceptron(width, hidden, features * context)

    def forward(self, states: Sequence, targets: Sequence) -> Tensor:
        """(B, T, D), (B, (T - 1) ratio + 1, F) -> mean squares, summed over frames: a scalar."""
        wanted, frames = self.normalise(targets).values, max(0, states.values.shape[1] - 2 * self.lead)
        lengths = (states.lengths - 2 * self.lead).clamp(min=0)
        inner = Sequence(states.values[:, self.lead : self.lead + frames], lengths)
        found = self.predict(inner.values).float().unflatten(-1, (-1, self.context))
        if not frames:
            return found.sum()
        begin = self.ratio * self.lead - self.context // 2
        around = wanted[:, begin:].unfold(1, self.context, self.ratio)[:, :frames]
        return _summed((found - around).square().mean(dim=(-2, -1)), inner)


class Decoder(nn.Module):
    """Writes the waveform: of each state as many samples as lie between two."""

    def __init__(self, width: int, channels: tuple[int, int, int], hidden: int, stride: int):
        super().__init__()
        strides = (4, 4, stride // 16)
        self.normalise = RunningNormaliser(1, 3600 * 16000, floor=-inf)
        self.layers = nn.ModuleList(
            _Upward(*sizes) for sizes in zip((width, *channels), channels, strides, strict=False)
        )
        self.write = Perceptron(channels[-1], hidden, 1)

    def forward(self, states: Sequence, waveforms: Tensor) -> Tensor:
        """(B, T, D), (B, T, stride) -> mean absolute differences, summed over frames: a scalar."""
        found, stride = states, waveforms.shape[2]
        for layer in self.layers:
            found = layer(found)
        clean = Sequence(waveforms.flatten(1)[..., None], states.lengths * stride)
        differences = (self.write(found.values).float() - self.normalise(clean).values).abs()
        return _summed(differences.view(waveforms.shape).mean(dim=-1), states)


class _Upward(nn.Module):
    """A transposed convolution and PReLU: (B, T, D) -> (B, T · stride, C), zeros after each length."""

    def __init__(self, width: int, channels: int, stride: int):
        super().__init__()
        self.stride = stride
        kernel = max(KERNEL, stride)
        kernel += (kernel - stride) % 2
        self.convolution = nn.ConvTranspose1d(width, channels, kernel, stride, (kernel - stride) // 2)
        self.activation = nn.PReLU(channels, init=0.0)

    def forward(self, x: Sequence) -> Sequence:
        found = self.activation(self.convolution(x.zero_padding().values.transpose(1, 2)))
        return Sequence(found.transpose(1, 2), x.lengths * self.stride).zero_padding()


class Judge(nn.Module):
    """Tells which of two inputs belongs to an anchor; with losses -log σ(g(a, right)) - log(1 - σ(g(a, wrong)))."""

    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.score = Perceptron(width, hidden, 1)

    def judge(self, anchor: Tensor, right: Tensor, wrong: Tensor) -> tuple[Tensor, Tensor]:
        """(…, D), (…, E), (…, E) -> losses, and 1 where right has the higher score, (…) each."""
        scores = [self.score(torch.cat([anchor, other], dim=-1)).float()[..., 0] for other in (right, wrong)]
        return softplus(-scores[0]) + softplus(scores[1]), (scores[0] > scores[1]).float()


class LocalJudge(Judge):
    """State by state; from the beginning of the wrong crop again where that is shorter."""

    def forward(self, anchors: Sequence, near: Sequence, other: Sequence) -> tuple[Tensor, Tensor]:
        """(B, T, D), (B, T, D), (B, T, D) -> (B, T), (B, T)."""
        places = torch.arange(anchors.values.shape[1], device=anchors.device) % other.lengths.clamp(min=1)[:, None]
        return self.judge(anchors.values, near.values, other.values.take_along_dim(places[..., None], dim=1))


class GlobalJudge(Judge):
    """The means over crops; either crop of a clip is the anchor once."""

    def forward(self, anchors: Sequence, near: Sequence, other: Sequence) -> tuple[Tensor, Tensor]:
        """(B, T, D), (B, T, D), (B, T, D) -> (B,), (B,)."""
        one, two, wrong = map(mean_over_time, (anchors, near, other))
        both = [self.judge(one, two, wrong), self.judge(two, one, wrong)]
        losses, right = (torch.stack(part).mean(dim=0) for part in zip(*both, strict=True))
        return losses, right


class OrderJudge(Judge):
    """What comes after a state from what came before it: `SEEN` states of either."""

    def forward(self, anchors: Sequence, order: Tensor) -> tuple[Tensor, Tensor]:
        """(B, T, D), (B, 3): the state, the first after and the first before -> (B,), (B,)."""
        state, after, before = order.clamp(min=0).T
        seen = ((state, 1), (after, SEEN), (before, SEEN))
        return self.judge(*(_taken(anchors.values, begin, count) for begin, count in seen))


def _taken(states: Tensor, begin: Tensor, count: int) -> Tensor:
    """So many states side by side: (B, T, D), (B,) -> (B, count · D)."""
    places = (begin[:, None] + torch.arange(count, device=begin.device)).clamp(max=states.shape[1] - 1)
    return states.take_along_dim(places[..., None], dim=1).flatten(1)


JUDGES: dict[str, tuple[type[Judge], int]] = {
    "lim": (LocalJudge, 2),
    "gim": (GlobalJudge, 2),
    "spc": (OrderJudge, 1 + SEEN),
}
"""Binary workers, and how many states stand side by side in the input of each."""


def _summed(losses: Tensor, of: Sequence) -> Tensor:
    """The sum of (B, T) over the valid frames."""
    return of.with_values(losses).zero_padding().values.sum()
