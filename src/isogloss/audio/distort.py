"""Distortion of waveforms from which an encoder shall make what it would have made of the clean one (PASE+).

    clip ── a second voice ── room ── noise ── band drop ── 8 kHz ── clipping ── gaps ──> clip of as many samples

Ravanelli et al. 2020, arXiv 2001.09239, whose probabilities are the defaults. What they take from recordings is made of
the clip and of noise here: a second voice is the clip itself, faster or slower, from another place, and in a room.
"""

import numpy as np
from pydantic import Field

from isogloss.audio.perturb import change_speed, coloured_noise, filtered, in_a_room
from isogloss.audio.reading import SAMPLE_RATE, Waveform
from isogloss.config import Config

REVERBERATION = (0.1, 0.8)
"""Range of a room's reverberation time, seconds."""
SPEEDS = (0.8, 1.25)
"""Of a second voice."""
MOST_GAPS = 2
GAPS = ((0.05, 0.025), (0.1, 0.05))
"""Mean and standard deviation of how long gaps are, seconds."""


class DistortConfig(Config):
    """Distortions of a clip, drawn anew each time; each with its probability."""

    overlap: float = Field(0.1, ge=0, le=1, description="probability of a second voice")
    overlap_snr: tuple[float, ...] = Field(
        (5.0, 7.5, 10.0), min_length=1, description="its levels below the first, dB, of which one is drawn"
    )
    rooms: float = Field(0.5, ge=0, le=1, description="probability of a room")
    noise: float = Field(0.4, ge=0, le=1, description="probability of noise")
    snr: tuple[float, ...] = Field((0.0, 5.0, 10.0), min_length=1, description="signal-to-noise ratios, dB")
    band_drop: float = Field(0.35, ge=0, le=1, description="probability that a band of frequencies is missing")
    narrow: float = Field(0.25, ge=0, le=1, description="probability that all above 4 kHz is missing")
    clip: float = Field(0.2, ge=0, le=1, description="probability of clipping")
    clip_factors: tuple[float, ...] = Field(
        (0.1, 0.3, 0.5), min_length=1, description="where the waveform is cut off, as a share of its peak"
    )
    gaps: float = Field(0.2, ge=0, le=1, description="probability that one stretch or two are silent")


def distort(waveform: Waveform, config: DistortConfig, random: np.random.Generator) -> Waveform:
    """A 16 kHz waveform (S,) with distortions: as many samples. What has no power stays as it is."""
    power = float(np.square(waveform, dtype=np.float64).mean()) if len(waveform) else 0.0
    if not power:
        return waveform

    def happens(probability: float) -> bool:
        return bool(random.random() < probability)

    found = waveform
    if happens(config.overlap):
        found = found + _at(second_voice(waveform, random), power, random.choice(config.overlap_snr))
    if happens(config.rooms):
        found = in_a_room(found, random.uniform(*REVERBERATION), random)
    if happens(config.noise):
        found = found + _at(coloured_noise(len(found), random), power, random.choice(config.snr))
    if happens(config.band_drop):
        low = random.uniform(100, 6000)
        found = without_band(found, low, low + random.uniform(200, 2000))
    if happens(config.narrow):
        found = without_band(found, 4000, SAMPLE_RATE)
    if happens(config.clip):
        most = float(random.choice(config.clip_factors) * np.abs(found).max())
        found = found.clip(-most, most)
    return with_gaps(found, random) if happens(config.gaps) else found


def second_voice(waveform: Waveform, random: np.random.Generator) -> Waveform:
    """Another voice, of as many samples: the same clip at another speed, from another place, in a room."""
    faster = change_speed(waveform, random.choice(SPEEDS))
    other: Waveform = faster.take(np.arange(len(waveform)) + random.integers(len(faster)), mode="wrap")
    return in_a_room(other, random.uniform(*REVERBERATION), random)


def without_band(waveform: Waveform, low: float, high: float) -> Waveform:
    """Without what is between two frequencies, Hz."""
    return filtered(waveform, lambda hertz: (hertz < low) | (hertz >= high))


def with_gaps(waveform: Waveform, random: np.random.Generator) -> Waveform:
    """With one gap or two."""
    found = waveform.copy()
    for _ in range(random.integers(1, MOST_GAPS + 1)):
        seconds = random.normal(*GAPS[random.integers(len(GAPS))])
        begin = random.integers(len(found))
        found[begin : begin + max(1, round(seconds * SAMPLE_RATE))] = 0
    return found


def _at(other: Waveform, power: float, snr: float) -> Waveform:
    """Scaled to so many decibels below a power; what is silent stays so."""
    own = max(float(np.square(other, dtype=np.float64).mean()), 1e-12)
    return other * np.float32((power / own / 10 ** (snr / 10)) ** 0.5)
