"""Features learned by SincNet and convolutions: the front end of PASE and PASE+ (arXiv 1808.00158, 2001.09239).

    (B, S) ─ band-pass filters ─ norm ─ PReLU ─ convolution ─ norm ─ PReLU ─ … ─> (B, T, C) ─┐
                                          │                                    │             ├─> (B, T, C + K)
                                 mean over a frame, matrix   …     mean, matrix ─ Σ ─────────┘

    g[n] = w[n] (2 f₂ sinc 2 f₂ n − 2 f₁ sinc 2 f₁ n) / 2 (f₂ − f₁)       w: a Hamming window; f in cycles a sample
    f₁ = 50 Hz + |low|,  f₂ = f₁ + 50 Hz + |band|, at most half the sample rate

Only `low` and `band` of a filter are learned; they begin side by side on the mel scale. There are 100 frames a second.
What the other layers found stands behind the last one's features (`skips`), for an encoder that adds it to its output.

Differs from the published code: norms take mean and variance over the frames of the utterance and not over the batch;
convolutions have no biases, which the norms would take off again (1856 parameters less); what lies beyond the ends of
a clip is zero and no mirror image, as much on the left as on the right; filters are learned in kHz, where a step of
Adam moves an edge by a Hz and not by a thousandth of one; means over frames come before the matrices, which is the
same and costs less.
"""

import math
from typing import Literal

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from isogloss.audio.reading import SAMPLE_RATE
from isogloss.config import Config
from isogloss.framing import Framing
from isogloss.sequence import Sequence

NARROWEST = 0.05
"""kHz: the lowest frequency that a filter may begin at, and its least width."""
EPSILON = 1e-5


class SincNetConfig(Config):
    """Features that band-pass filters and convolutions learn from 16 kHz audio; the defaults are PASE+'s."""

    kind: Literal["sincnet"] = "sincnet"
    channels: tuple[int, ...] = Field(
        (64, 64, 128, 128, 256, 256, 512, 512), min_length=1, description="band-pass filters, then channels"
    )
    kernels: tuple[int, ...] = Field((251, 20, *[11] * 6), min_length=1, description="kernel width of each; first odd")
    strides: tuple[int, ...] = Field((1, 10, 2, 1, 2, 1, 2, 2), min_length=1, description="stride of each")
    skips: int = Field(256, ge=0, description="width K of what stands behind the last layer's features; PASE 0")

    @model_validator(mode="after")
    def _check(self) -> "SincNetConfig":
        if not len(self.channels) == len(self.kernels) == len(self.strides):
            counts = f"{len(self.channels)}, {len(self.kernels)} and {len(self.strides)}"
            raise ValueError(f"channels, kernels and strides have {counts} values; give as many of each")
        if min(self.channels + self.kernels + self.strides) < 1 or self.kernels[0] % 2 == 0:
            raise ValueError("channels, kernels and strides are 1 or more, and the first kernel is odd")
        return self

    @property
    def width(self) -> int:
        """Features a frame, F = C + K."""
        return self.channels[-1] + self.skips

    @property
    def framing(self) -> Framing:
        """From samples to frames, the first of which is centred on the first sample."""
        windows = zip(self.kernels, self.strides, strict=True)
        return Framing(tuple((kernel, stride, (kernel - 1) // 2) for kernel, stride in windows))

    @property
    def cannot_stream(self) -> str | None:
        """Why audio cannot be taken as it arrives, and what helps."""
        return (
            "its features are normalised over the whole utterance; "
            "train with model.features={kind: waveform, norm: layer}."
        )

    def build(self) -> "SincNetFeatures":
        """The features with random weights."""
        return SincNetFeatures(self)


class SincNetFeatures(nn.Module):
    """Waveforms (B, S) -> features (B, T, F), T = framing.frames(S), with zeros after each length."""

    def __init__(self, config: SincNetConfig):
        super().__init__()
        self.config = config
        self.width = config.width
        self.framing = config.framing
        self.layers = nn.ModuleList(_Layer(config, number) for number in range(len(config.channels)))
        skipping = config.channels[:-1] if config.skips else ()
        self.skips = nn.ModuleList(nn.Linear(channels, config.skips, bias=False) for channels in skipping)

    def forward(self, audio: Sequence) -> Sequence:
        clean = audio.map(lambda values: values.to(next(self.parameters()).dtype)).zero_padding()
        # A batch shorter than one frame still goes through the layers; what comes out is cut off below.
        missing = max(0, self.framing.least(1) - clean.values.shape[1])
        x, lengths = functional.pad(clean.values, (0, missing))[:, None], audio.lengths
        found: list[Tensor] = []
        for layer, window in zip(self.layers, self.framing.layers, strict=True):
            lengths = Framing((window,)).frames(lengths)
            x = layer(x, lengths)
            found.append(x)
        frames = self.framing.frames(audio.values.shape[1])
        return Sequence(self._together(found)[:, :frames], lengths).zero_padding()

    def _together(self, found: list[Tensor]) -> Tensor:
        """The outputs of all layers, (B, C, N) each -> (B, T, C + K)."""
        last = found[-1].transpose(1, 2)
        if not self.skips:
            return last
        strides, frames = self.config.strides, last.shape[1]
        pooled = (_frame_means(x, math.prod(strides[n + 1 :]), frames) for n, x in enumerate(found[:-1]))
        skipped = torch.stack([skip(x) for skip, x in zip(self.skips, pooled, strict=True)]).sum(dim=0)
        return torch.cat([last, skipped], dim=-1)


def _frame_means(x: Tensor, stride: int, frames: int) -> Tensor:
    """(B, C, N), zeros after each length -> (B, T, C): means over `stride` outputs around the centre of each frame."""
    return functional.avg_pool1d(x, stride, stride, stride // 2)[..., :frames].transpose(1, 2)


class _Layer(nn.Module):
    """One layer: (B, C, N) and the valid frames that come out, (B,) -> (B, C', N') with zeros after these."""

    def __init__(self, config: SincNetConfig, number: int):
        super().__init__()
        channels, kernel, stride = config.channels[number], config.kernels[number], config.strides[number]
        self.convolution: nn.Module = (
            nn.Conv1d(config.channels[number - 1], channels, kernel, stride, (kernel - 1) // 2, bias=False)
            if number
            else BandPass(channels, kernel, stride)
        )
        self.norm = OverUtterance(channels)
        self.activation = nn.PReLU(channels, init=0.0)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        return self.activation(self.norm(self.convolution(x), lengths))


class BandPass(nn.Module):
    """Band-pass filters whose edges are learned: (B, 1, S) -> (B, C, N)."""

    def __init__(self, channels: int, kernel: int, stride: int = 1):
        super().__init__()
        self.kernel, self.stride = kernel, stride
        highest = SAMPLE_RATE / 2 - 2000 * NARROWEST
        mel = np.linspace(math.log1p(30 / 700), math.log1p(highest / 700), channels + 1)
        edges = torch.from_numpy(0.7 * np.expm1(mel)).float()
        self.low = nn.Parameter(edges[:-1].clone())
        self.band = nn.Parameter(edges.diff())

    @property
    def edges(self) -> tuple[Tensor, Tensor]:
        """Where the filters begin and end, Hz: (C,), (C,)."""
        highest = SAMPLE_RATE / 2000
        low = (NARROWEST + self.low.abs()).clamp(max=highest - NARROWEST)
        high = (low + NARROWEST + self.band.abs()).clamp(max=highest)
        return 1000 * low, 1000 * high

    def filters(self) -> Tensor:
        """(C, kernel), symmetric."""
        low, high = (edge[:, None] / SAMPLE_RATE for edge in self.edges)
        places = torch.arange(self.kernel, device=low.device, dtype=low.dtype) - self.kernel // 2
        window = 0.54 + 0.46 * torch.cos(2 * math.pi * places / self.kernel)
        passed = high * torch.sinc(2 * high * places) - low * torch.sinc(2 * low * places)
        return window * passed / (high - low)

    def forward(self, x: Tensor) -> Tensor:
        return functional.conv1d(x, self.filters()[:, None], stride=self.stride, padding=self.kernel // 2)


class OverUtterance(nn.Module):
    """Each channel with zero mean and unit variance over the valid frames: (B, C, N), (B,) -> (B, C, N).

    What `waveform.OverTime` does, but for all rows at once: it asks the device for no length, and keeps more of them.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        valid = torch.arange(x.shape[2], device=x.device) < lengths[:, None]
        with torch.autocast(x.device.type, enabled=False):
            x = x.to(self.weight.dtype)
            shares = (valid / lengths.clamp(min=1)[:, None]).to(x.dtype)[..., None]  # (B, N, 1)
            mean = x @ shares
            variance = (x.square() @ shares - mean.square()).clamp(min=0)
            scale = self.weight[:, None] * torch.rsqrt(variance + EPSILON)
            normed = torch.addcmul(self.bias[:, None] - mean * scale, x, scale)
        return torch.where(valid[:, None], normed, 0.0)
