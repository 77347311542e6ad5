"""Perturbed waveforms to learn from: another speed, pauses, a room, another tone, noise, another level.

    clip ── speed ── pauses before, inside and after ── room ── tone ── noise ── level ──> clip

Clips of corpora are cut close and recorded well, many by one microphone; recordings in use have pauses, rooms, noise
and every microphone and level. Nothing is needed but the clip: pauses are digital silence or sound like its quietest
tenth of a second, rooms are decaying noise, noise is coloured.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import soxr
from numpy.typing import NDArray
from pydantic import Field

from isogloss.audio.levels import levels
from isogloss.audio.reading import SAMPLE_RATE, Waveform
from isogloss.config import Config
from isogloss.errors import IsoglossError

QUIET = SAMPLE_RATE // 10
"""Samples of what is quietest in a clip."""
GAP = 20.0
"""Decibels below the loudest at which it is so quiet inside a clip that a pause may be put there."""
COLOURS = (0.0, 1.0, 2.0)
"""Exponents of noise whose power falls as 1 / fᵅ: white, pink, brown."""
BANK_SECONDS = 30
DECAY = math.log(1e6)
"""A room's response falls by this, 60 dB of power, in its reverberation time."""
DIRECT = SAMPLE_RATE // 400
"""Samples for which a room returns nothing: 2.5 ms, as from a wall at 40 cm."""
BANDS_HZ = (60.0, 200.0, 600.0, 2000.0, 7000.0)
"""Where the gains of another tone are drawn; between them they are interpolated over log frequency."""


class PerturbConfig(Config):
    """Perturbation of the waveform of a clip, drawn anew each time the clip is read."""

    pauses: float = Field(0.05, ge=0, le=1, description="probability of a pause before, inside and after a clip, each")
    longest_pause: float = Field(0.5, ge=0, description="longest of these pauses, seconds")
    rooms: float = Field(0.0, ge=0, le=1, description="probability of a room")
    reverberation: tuple[float, float] = Field((0.1, 0.6), description="range of a room's reverberation time, seconds")
    tone: float = Field(0.0, ge=0, description="largest gain of a band of frequencies up or down, dB; 0 = none")
    noise: float = Field(0.1, ge=0, le=1, description="probability of noise")
    snr: tuple[float, float] = Field((10.0, 30.0), description="range of the signal-to-noise ratio, dB")
    level: float = Field(10.0, ge=0, description="largest change of level up or down, dB")


def perturb(waveform: Waveform, config: PerturbConfig, random: np.random.Generator) -> Waveform:
    """A 16 kHz waveform (S,) with pauses, a room, another tone, noise and level: at least as many samples."""
    noisy, snr = random.random() < config.noise, random.uniform(*config.snr)
    gain = 10 ** (random.uniform(-config.level, config.level) / 20)
    found = with_pauses(waveform, config, random)
    if len(found) and random.random() < config.rooms:
        found = in_a_room(found, random.uniform(*config.reverberation), random)
    if len(found) and config.tone:
        found = with_tone(found, random.uniform(-config.tone, config.tone, len(BANDS_HZ)))
    power = float(np.square(waveform, dtype=np.float64).mean()) if len(waveform) else 0.0
    if noisy and power:
        found = found + coloured_noise(len(found), random) * np.float32((power / 10 ** (snr / 10)) ** 0.5)
    return found * np.float32(gain)


def with_pauses(waveform: Waveform, config: PerturbConfig, random: np.random.Generator) -> Waveform:
    """Pauses before, inside where it is quiet, and after: all of them silent, or all of them like the quietest part."""
    wanted = random.random(3) < config.pauses
    lengths = (random.uniform(0, config.longest_pause, 3) * wanted * SAMPLE_RATE).astype(int).tolist()
    silent = random.random() < 0.5
    if not any(lengths) or len(waveform) < QUIET:
        return waveform
    loudness = levels(waveform, QUIET)
    quietest = waveform[(start := int(loudness.argmin()) * QUIET) : start + QUIET]
    before, inside, after = (
        sounding_like(quietest, length, random) if length and not silent else np.zeros(length, np.float32)
        for length in lengths
    )
    gap = 1 + int(loudness[1:-1].argmin()) if len(loudness) > 2 else 0
    if not gap or loudness[gap] > loudness.max() - GAP:
        return np.concatenate([before, waveform, after])
    middle = gap * QUIET + QUIET // 2
    return np.concatenate([before, waveform[:middle], inside, waveform[middle:], after])


def sounding_like(sample: Waveform, length: int, random: np.random.Generator) -> Waveform:
    """Noise of so many samples with the level and the spectrum of a sample: white noise, convolved with it."""
    white = random.standard_normal(length + len(sample), dtype=np.float32)
    size = 1 << (length + 2 * len(sample) - 1).bit_length()
    found = np.fft.irfft(np.fft.rfft(white, size) * np.fft.rfft(sample, size), size)[len(sample) :][:length]
    return (found / len(sample) ** 0.5).astype(np.float32)


def in_a_room(waveform: Waveform, reverberation: float, random: np.random.Generator) -> Waveform:
    """As it sounds in a room: the sound itself, and after it noise that decays in so many seconds by 60 dB.

    The room returns as much power as arrives directly, or down to a tenth of it. As many samples, no delay.
    """
    after = np.arange(round(reverberation * SAMPLE_RATE))
    response = random.standard_normal(len(after)) * np.exp(-DECAY / 2 * after / len(after))
    response[:DIRECT] = 0
    response *= 10 ** (-random.uniform(0, 10) / 20) / max(np.sqrt(np.square(response).sum()), 1e-9)
    response[0] = 1
    size = 1 << (len(waveform) + len(response) - 1).bit_length()
    found = np.fft.irfft(np.fft.rfft(waveform, size) * np.fft.rfft(response, size), size)[: len(waveform)]
    return found.astype(np.float32)


def with_tone(waveform: Waveform, gains: NDArray[np.float64]) -> Waveform:
    """As another microphone records it. gains: in the bands around `BANDS_HZ`, dB."""
    return filtered(waveform, lambda hertz: 10 ** (np.interp(np.log(hertz.clip(min=1)), np.log(BANDS_HZ), gains) / 20))


def filtered(waveform: Waveform, gain: Callable[[NDArray[Any]], NDArray[Any]]) -> Waveform:
    """With what each frequency is multiplied by: Hz (N,) -> (N,)."""
    hertz = np.fft.rfftfreq(size := 1 << (len(waveform) - 1).bit_length(), 1 / SAMPLE_RATE)
    found = np.fft.irfft(np.fft.rfft(waveform, size) * gain(hertz), size)[: len(waveform)]
    return found.astype(np.float32)


def coloured_noise(length: int, random: np.random.Generator) -> Waveform:
    """White, pink or brown noise of so many samples, of power 1."""
    bank = _bank(random.choice(COLOURS))
    noise: Waveform = bank.take(np.arange(length) + random.integers(len(bank)), mode="wrap")
    return noise


def change_speed(waveform: Waveform, factor: float) -> Waveform:
    """Play a waveform (S,) `factor` times as fast, pitch included: (S / factor,) samples.

    Raises IsoglossError for a factor outside 0.25 to 4.
    """
    if not 0.25 <= factor <= 4:
        raise IsoglossError(f"A speed of {factor} is not between 0.25 and 4.")
    faster: Waveform = soxr.resample(waveform, SAMPLE_RATE * factor, SAMPLE_RATE, quality="HQ")
    return faster


@functools.cache
def _bank(exponent: float) -> Waveform:
    """Half a minute of noise, the same everywhere, of power 1."""
    white = np.random.default_rng(int(exponent)).standard_normal(BANK_SECONDS * SAMPLE_RATE)
    # Below 20 Hz there is nothing to hear, and in brown noise nearly all of the power.
    hertz = np.maximum(np.fft.rfftfreq(len(white), 1 / SAMPLE_RATE), 20.0)
    noise = np.fft.irfft(np.fft.rfft(white) * hertz ** (-exponent / 2), len(white))
    return (noise / noise.std()).astype(np.float32)
