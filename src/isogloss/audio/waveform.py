"""Features learned from the waveform: wav2vec 2.0's convolutions (arXiv 2006.11477 §2; in HuBERT and data2vec alike).

    (B, S) ── convolution ── norm ── GELU ── … seven times … ──> (B, T, C)     50 frames a second, of 25 ms each

Two ways to normalise inside:
    group   the first layer alone, each channel over time     wav2vec 2.0 base, on the waveform as it is
    layer   every layer, over the channels of a frame         wav2vec 2.0 large, with biases, on a normalised waveform

wav2vec takes the logarithm of what comes out, log(1 + |z|) (`log_compression`; arXiv 1904.05862 and its code).

Differs from fairseq and transformers: "group" takes mean and variance over the frames of the utterance, never over
padding. A clip in a padded batch therefore has the features it has alone; theirs are the same where nothing is padded.
"""

from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from isogloss.config import Config
from isogloss.framing import Framing
from isogloss.sequence import Sequence

_EPSILON = 1e-7  # added to the variance of the waveform: silence stays silence, and quiet speech is as loud as any


class WaveformConfig(Config):
    """Features that convolutions learn from 16 kHz audio; the defaults are wav2vec 2.0 base."""

    kind: Literal["waveform"] = "waveform"
    channels: int = Field(512, ge=1, description="channels C of every convolution, the width of the features")
    kernels: tuple[int, ...] = Field(
        (10, 3, 3, 3, 3, 2, 2), min_length=1, description="kernel width of each convolution"
    )
    strides: tuple[int, ...] = Field((5, 2, 2, 2, 2, 2, 2), min_length=1, description="stride of each convolution")
    norm: Literal["group", "layer"] = Field(
        "group", description="normalisation; group = first convolution, over time; layer = all, over channels"
    )
    bias: bool = Field(False, description="biases in the convolutions; wav2vec 2.0 large: true")
    normalisation: Literal["utterance", "none"] = Field(
        "none", description="utterance = zero mean and unit variance of the waveform, as in wav2vec 2.0 large"
    )
    log_compression: bool = Field(False, description="log(1 + |z|) of what the last convolution gives; wav2vec: true")

    @model_validator(mode="after")
    def _check(self) -> "WaveformConfig":
        if len(self.kernels) != len(self.strides):
            raise ValueError(f"kernels has {len(self.kernels)} values and strides {len(self.strides)}")
        if min(self.kernels + self.strides) < 1:
            raise ValueError("kernels and strides are 1 or more")
        return self

    @property
    def width(self) -> int:
        """Features a frame, F."""
        return self.channels

    @property
    def framing(self) -> Framing:
        """From samples to frames."""
        return Framing(tuple((kernel, stride, 0) for kernel, stride in zip(self.kernels, self.strides, strict=True)))

    @property
    def cannot_stream(self) -> str | None:
        """Why audio cannot be taken as it arrives, and what helps; None where it can."""
        if self.normalisation == "utterance" or self.norm == "group":
            return (
                "its features are normalised over the whole utterance; "
                "train with model.features={kind: waveform, norm: layer}."
            )
        return None

    def build(self) -> "WaveformFeatures":
        """The features with random weights."""
        return WaveformFeatures(self)


class WaveformFeatures(nn.Module):
    """Waveforms (B, S) -> features (B, T, C), T = framing.frames(S), with zeros after each length."""

    def __init__(self, config: WaveformConfig):
        super().__init__()
        self.config = config
        self.width = config.width
        self.framing = config.framing
        self.layers = nn.ModuleList(_Layer(config, number) for number in range(len(config.kernels)))

    def forward(self, audio: Sequence) -> Sequence:
        clean = audio.map(lambda values: values.to(next(self.parameters()).dtype)).zero_padding()
        if self.config.normalisation == "utterance":
            clean = _standardised(clean)
        # A batch shorter than one frame still goes through the layers; what comes out is cut off below.
        missing = max(0, self.framing.receptive_field - clean.values.shape[1])
        x, lengths = functional.pad(clean.values, (0, missing))[:, None], audio.lengths
        for layer, window in zip(self.layers, self.framing.layers, strict=True):
            lengths = Framing((window,)).frames(lengths)
            x = layer(x, lengths)
        if self.config.log_compression:
            x = torch.log1p(x.abs())
        frames = self.framing.frames(audio.values.shape[1])
        return Sequence(x.transpose(1, 2)[:, :frames], lengths).zero_padding()


class _Layer(nn.Module):
    """One convolution: (B, C, N) and the valid frames that come out, (B,) -> (B, C', N')."""

    def __init__(self, config: WaveformConfig, number: int):
        super().__init__()
        inputs, channels = config.channels if number else 1, config.channels
        kernel, stride = config.kernels[number], config.strides[number]
        self.convolution = nn.Conv1d(inputs, channels, kernel, stride, bias=config.bias)
        nn.init.kaiming_normal_(self.convolution.weight)
        self.norm: OverTime | OverChannels | None = None
        if config.norm == "layer":
            self.norm = OverChannels(channels)
        elif number == 0:
            self.norm = OverTime(channels)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        x = self.convolution(x)
        if self.norm is not None:
            x = self.norm(x, lengths)
        return functional.gelu(x)


class OverTime(nn.Module):
    """GroupNorm with a group a channel: zero mean and unit variance over the valid frames of each utterance."""

    def __init__(self, channels: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        """(B, C, N), (B,) -> (B, C, N), with zeros after each length."""
        frames = x.shape[2]
        # Row by row, for each has its own length: the fused kernel reads an utterance twice and keeps nothing of it.
        rows = [
            functional.pad(self._normalised(row[None, :, : max(1, length)]), (0, frames - max(1, length)))
            for row, length in zip(x, lengths.tolist(), strict=True)
        ]
        return torch.cat(rows)

    def _normalised(self, row: Tensor) -> Tensor:
        return torch.group_norm(row, len(self.weight), self.weight, self.bias)


class OverChannels(nn.LayerNorm):
    """LayerNorm over the channels of each frame: (B, C, N), (B,) -> (B, C, N); lengths are not needed."""

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(x.transpose(1, 2)).transpose(1, 2)


def _standardised(audio: Sequence) -> Sequence:
    """(B, S) with zeros after each length -> the same with zero mean and unit variance in each row."""
    count = audio.lengths.clamp(min=1)[:, None]
    centred = audio.map(lambda values: values - values.sum(1, keepdim=True) / count).zero_padding()
    variance = centred.values.square().sum(1, keepdim=True) / count
    return centred.map(lambda values: values * torch.rsqrt(variance + _EPSILON))
