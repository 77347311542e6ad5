"""Feature normalisation: zero mean and unit variance per bin, from one of several places.

    utterance   the speech of the utterance itself: no state, needs the whole utterance
    frames      all frames of the utterance, quiet or not, as in w2v-BERT 2.0
    running     everything seen so far while training, older frames slowly forgotten
    corpus      fixed statistics of a corpus, fitted once
    whisper     the loudest value of the utterance, as in Whisper; not zero mean and unit variance

All are modules Sequence (B, T, F) -> Sequence (B, T, F) float32 with zeros in the padding, and none
looks at the padding. BEST-RQ needs one of them: without it the random-projection quantiser
collapses onto a few codes.
"""

import math
from collections.abc import Callable, Iterable
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from isogloss.errors import IsoglossError
from isogloss.sequence import Sequence

NormaliserName = Literal["utterance", "frames", "running", "corpus", "whisper", "none"]

FLOOR = -2.0
"""Standard deviations below the mean of a corpus at which features end: deeper is no speech but digital silence, or
the empty upper bands of telephone speech, which an encoder that never saw any would take for something."""
UTTERANCE_FLOOR = -3.0
"""The same below the mean of an utterance, whose quiet frames are not in its statistics."""
QUIET = 50 * math.log(10) / 10
"""In the natural logarithm of a power: 50 dB. Frames so far below the loudest one are no speech."""
_EPSILON = 1e-5  # added to the variance: a constant bin becomes 0 and not NaN
_SMALL = 1e-7  # the same, as others have it


class UtteranceNormaliser(nn.Module):
    """Mean and variance over the frames of each utterance that may be speech; one frame alone becomes zeros.

    Frames whose loudest bin lies `QUIET` below that of the loudest frame have no part in the statistics: an utterance
    looks the same with silence around it or inside. They end at `UTTERANCE_FLOOR`.
    """

    def forward(self, features: Sequence) -> Sequence:
        """(B, T, F) -> (B, T, F) float32."""
        values = features.zero_padding().values.float()
        level = values.amax(2).masked_fill(~features.valid, -torch.inf)
        loudest = level.amax(1, keepdim=True) if values.shape[1] else level
        loud = ((level >= loudest - QUIET) & features.valid)[:, None].float()  # (B, 1, T)
        weights = loud / loud.sum(2, keepdim=True).clamp(min=1)
        with torch.autocast(values.device.type, enabled=False):  # products would be rounded to bf16
            centred = values - weights @ values
            scale = torch.rsqrt(weights @ centred.square() + _EPSILON)
        return features.with_values((centred * scale).clamp(min=UTTERANCE_FLOOR)).zero_padding()


class FramesNormaliser(nn.Module):
    """Mean and unbiased variance over all frames of each utterance."""

    def forward(self, features: Sequence) -> Sequence:
        """(B, T, F) -> (B, T, F) float32."""
        values, count = features.zero_padding().values.float(), features.lengths[:, None, None]
        centred = features.with_values(values - values.sum(1, keepdim=True) / count.clamp(min=1)).zero_padding()
        variance = centred.values.square().sum(1, keepdim=True) / (count - 1).clamp(min=1)
        return centred.map(lambda x: x * torch.rsqrt(variance + _SMALL))


class _Statistics(nn.Module):
    """Mean and variance per bin and the number of frames behind them, saved with the model."""

    mean: Tensor
    variance: Tensor
    count: Tensor

    def __init__(self, bins: int, floor: float = FLOOR):
        super().__init__()
        self.floor = floor
        self.register_buffer("mean", torch.zeros(bins, dtype=torch.float32))
        self.register_buffer("variance", torch.ones(bins, dtype=torch.float32))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))

    def _apply_statistics(self, features: Sequence) -> Sequence:
        centred = features.values.float() - self.mean
        scaled = centred * torch.rsqrt(self.variance + _EPSILON)
        return features.with_values(scaled.clamp(min=self.floor)).zero_padding()

    @torch.no_grad()
    def _update(self, features: Sequence, horizon: float) -> None:
        """Merge the valid frames of a batch; what was known weighs as at most `horizon` frames.

        Pairwise merging of means and variances (Chan, Golub and LeVeque, 1979), in float64.
        """
        values = features.zero_padding().values.double()
        new = features.lengths.sum()
        size = new.clamp(min=1)
        mean = values.sum((0, 1)) / size
        deviations = features.with_values(values - mean).zero_padding().values
        variance = deviations.square().sum((0, 1)) / size
        known = self.count.double().clamp(max=horizon)
        share = new / (known + size)
        shift = mean - self.mean
        spread = share * (1 - share) * shift.square()
        self.variance.copy_((1 - share) * self.variance + share * variance + spread)
        self.mean.copy_(self.mean + share * shift)
        self.count.add_(new)


class RunningNormaliser(_Statistics):
    """Statistics of all frames seen in training mode; in evaluation mode they stay as they are.

    A cumulative mean and variance up to `horizon` frames, an exponential one beyond. A batch is
    added before it is normalised. Under DDP the buffers of rank 0 count, as for batch norm.

    horizon: frames; 360 000 is an hour at 100 frames a second. floor: where features end, standard deviations.
    """

    def __init__(self, bins: int, horizon: int = 360_000, floor: float = FLOOR):
        super().__init__(bins, floor)
        self.horizon = horizon

    def forward(self, features: Sequence) -> Sequence:
        """(B, T, F) -> (B, T, F) float32."""
        if self.training:
            self._update(features, self.horizon)
        return self._apply_statistics(features)


class CorpusNormaliser(_Statistics):
    """Fixed statistics of a corpus; `fit` finds them. Raises IsoglossError when used before."""

    def __init__(self, bins: int):
        super().__init__(bins)
        self._known = False

    def fit(self, batches: Iterable[Sequence]) -> None:
        """Exact statistics over all valid frames of the batches, (B, T, F) each."""
        self.mean.zero_()
        self.variance.fill_(1)
        self.count.zero_()
        for features in batches:
            self._update(features.to(self.mean.device), float("inf"))

    def forward(self, features: Sequence) -> Sequence:
        """(B, T, F) -> (B, T, F) float32."""
        if not self._known:  # asked of the device once only
            self._known = bool(self.count > 0)
        if not self._known:
            raise IsoglossError(
                "The features are to be normalised by the corpus, whose statistics are not known; let a first stage of "
                "the recipe find them (fit: {name: normalisation})."
            )
        return self._apply_statistics(features)


class WhisperNormaliser(nn.Module):
    """log₁₀, no more than 80 dB below the loudest value of the utterance, shifted and scaled (OpenAI's Whisper)."""

    def forward(self, features: Sequence) -> Sequence:
        """(B, T, F), natural logarithms -> (B, T, F) float32."""
        values = features.values.float() / math.log(10)
        loudest = values.masked_fill(~features.valid[..., None], -torch.inf).flatten(1)
        loudest = loudest.amax(1) if loudest.shape[1] else loudest.new_zeros(len(loudest))
        lowered = torch.maximum(values, (loudest - 8)[:, None, None])
        return features.with_values((lowered + 4) / 4).zero_padding()


class NoNormaliser(nn.Module):
    """Features as they are, as float32, with zeros in the padding."""

    def forward(self, features: Sequence) -> Sequence:
        """(B, T, F) -> (B, T, F) float32."""
        return features.map(Tensor.float).zero_padding()


def build_normaliser(name: NormaliserName, bins: int) -> nn.Module:
    """The normaliser of that name for (B, T, bins)."""
    kinds: dict[NormaliserName, Callable[[], nn.Module]] = {
        "utterance": UtteranceNormaliser,
        "frames": FramesNormaliser,
        "running": partial(RunningNormaliser, bins),
        "corpus": partial(CorpusNormaliser, bins),
        "whisper": WhisperNormaliser,
        "none": NoNormaliser,
    }
    return kinds[name]()
