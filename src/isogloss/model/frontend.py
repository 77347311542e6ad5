"""Waveform -> normalised features, as one module that a model carries with it."""

from pydantic import Field
from torch import Tensor, nn

from isogloss.audio.features import LogMel, LogMelConfig
from isogloss.audio.normalise import NormaliserName, build_normaliser
from isogloss.config import Config
from isogloss.sequence import Sequence


class FrontendConfig(Config):
    """Log-mel features and how they are normalised."""

    features: LogMelConfig = Field(default_factory=LogMelConfig, description="the filter bank")
    normalisation: NormaliserName = Field("utterance", description="utterance, running, corpus or none")


class Frontend(nn.Module):
    """16 kHz waveform (B, S) -> zero-mean, unit-variance features (B, T, F) at 100 Hz."""

    def __init__(self, config: FrontendConfig):
        super().__init__()
        self.config = config
        self.bins = config.features.bins
        self.frame_ms = config.features.shift_ms
        self.log_mel = LogMel(config.features)
        self.normaliser = build_normaliser(config.normalisation, self.bins)

    def forward(self, audio: Sequence) -> Sequence:
        """(B, S) -> (B, T, F)."""
        return self.normaliser(self.log_mel(audio))

    def frames(self, samples: Tensor) -> Tensor:
        """Feature frames of so many samples."""
        return self.config.features.frames(samples)
