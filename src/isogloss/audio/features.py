"""Features: what an encoder is given of a waveform.

    audio (B, S) ── log_mel, mfcc, or learned from the waveform ──> (B, T, F)

Whatever their kind, features have a `width` F and a `framing` (from samples to frames), and their configuration says
whether they can be computed as audio arrives (`cannot_stream`).
"""

from typing import Annotated

from pydantic import Field

from isogloss.audio.log_mel import LogMelConfig, LogMelFeatures
from isogloss.audio.mfcc import MFCCConfig, MFCCFeatures
from isogloss.audio.sincnet import SincNetConfig, SincNetFeatures
from isogloss.audio.waveform import WaveformConfig, WaveformFeatures

FeaturesConfig = Annotated[LogMelConfig | MFCCConfig | WaveformConfig | SincNetConfig, Field(discriminator="kind")]
Features = LogMelFeatures | MFCCFeatures | WaveformFeatures | SincNetFeatures
