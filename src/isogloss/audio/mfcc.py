"""Mel-frequency cepstral coefficients, as Kaldi computes them: 16 kHz waveform -> (B, T, F) at 100 frames a second.

    log-mel energies (B, T, 23) ─ DCT ─ lifter ─> (B, T, 13) ─ and how they change, Δ and ΔΔ ─ normaliser ─> (B, T, 39)

    c_k = l_k s_k Σ_m x_m cos(π k (m + ½) / M)     s_0 = √(1/M), s_k = √(2/M), l_k = 1 + 11 sin(π k / 22)
    Δ_t = Σ_{d=-2..2} d x_{t+d} / 10               the first and the last frame stand for those beyond them

The targets of HuBERT's first round, and a baseline for what is learned.
"""

import math
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from isogloss.audio.log_mel import LogMel, LogMelConfig
from isogloss.audio.normalise import NormaliserName, build_normaliser
from isogloss.config import Config
from isogloss.framing import Framing
from isogloss.sequence import Sequence

LIFTER = 22
REACH = 2
"""Frames to each side that a change is computed from."""


class MFCCConfig(Config):
    """Cepstral coefficients with their changes."""

    kind: Literal["mfcc"] = "mfcc"
    coefficients: int = Field(13, ge=1, description="coefficients a frame")
    bins: int = Field(23, ge=1, description="mel filters they are made of")
    changes: int = Field(2, ge=0, le=2, description="how often the change from frame to frame is added")
    normalisation: NormaliserName = Field("utterance", description="over what each has zero mean and unit variance")

    @property
    def log_mel(self) -> LogMelConfig:
        """The energies they are made of."""
        return LogMelConfig(bins=self.bins, flavour="kaldi", full_scale=32768.0, normalisation="none")

    @property
    def width(self) -> int:
        """Features a frame, F."""
        return self.coefficients * (1 + self.changes)

    @property
    def framing(self) -> Framing:
        """From samples to frames."""
        return self.log_mel.framing

    @property
    def cannot_stream(self) -> str | None:
        """Why audio cannot be taken as it arrives, and what helps."""
        return "changes look two frames ahead; train with model.features={kind: log_mel, normalisation: running}."

    def build(self) -> "MFCCFeatures":
        """The features, with a normaliser that has seen nothing."""
        return MFCCFeatures(self)


class MFCCFeatures(nn.Module):
    """Waveforms (B, S) float in [-1, 1] -> normalised coefficients (B, T, F) float32, zeros after each length."""

    dct: Tensor

    def __init__(self, config: MFCCConfig):
        super().__init__()
        self.config = config
        self.width = config.width
        self.framing = config.framing
        self.log_mel = LogMel(config.log_mel)
        self.normaliser = build_normaliser(config.normalisation, config.width)
        self.register_buffer("dct", lifted_dct(config.bins, config.coefficients), persistent=False)

    def forward(self, audio: Sequence) -> Sequence:
        with torch.autocast(audio.device.type, enabled=False):
            found = self.log_mel(audio).map(lambda energies: energies @ self.dct.float())
            return self.normaliser(with_changes(found, self.config.changes).zero_padding())


def lifted_dct(bins: int, coefficients: int) -> Tensor:
    """The orthonormal DCT-II whose coefficients are weighed by the lifter: (M, K)."""
    k = torch.arange(coefficients, dtype=torch.float64)
    m = torch.arange(bins, dtype=torch.float64)[:, None]
    scale = torch.where(k == 0, math.sqrt(1 / bins), math.sqrt(2 / bins))
    lifter = 1 + LIFTER / 2 * torch.sin(math.pi * k / LIFTER)
    return (torch.cos(math.pi * k * (m + 0.5) / bins) * scale * lifter).float()


def with_changes(frames: Sequence, times: int) -> Sequence:
    """(B, T, F) and beside them how they change, and how that changes: (B, T, (1 + times) F)."""
    found = [frames]
    for _ in range(times):
        found.append(found[-1].with_values(change(found[-1])))
    return frames.with_values(torch.cat([part.values for part in found], dim=-1))


def change(frames: Sequence) -> Tensor:
    """How (B, T, F) change from frame to frame, of the same shape; what lies beyond an end is like the frame there."""
    values, lengths = frames.values, frames.lengths
    places = torch.arange(values.shape[1], device=values.device)
    total = torch.zeros_like(values)
    for distance in range(-REACH, REACH + 1):
        near = (places + distance).clamp(min=0)[None].minimum((lengths[:, None] - 1).clamp(min=0))
        total += distance * values.take_along_dim(near[..., None], dim=1)
    return total / (2 * sum(distance**2 for distance in range(1, REACH + 1)))
