"""Perturbed waveforms to learn from: another speed, pauses, noise, another level.

    clip ── speed ── pauses before, inside and after ── noise ── level ──> clip

Clips of corpora are cut close and recorded well; recordings in use have pauses, noise and every level. Nothing is
needed but the clip: pauses are digital silence or sound like its quietest tenth of a second, noise is coloured.
"""

import functools

import numpy as np
import soxr
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


class PerturbConfig(Config):
    """Perturbation of the waveform of a clip, drawn anew each time the clip is read."""

    pauses: float = Field(0.05, ge=0, le=1, description="probability of a pause before, inside and after a clip, each")
    longest_pause: float = Field(0.5, ge=0, description="longest of these pauses, seconds")
    noise: float = Field(0.1, ge=0, le=1, description="probability of noise")
    snr: tuple[float, float] = Field((10.0, 30.0), description="range of the signal-to-noise ratio, dB")
    level: float = Field(10.0, ge=0, description="largest change of level up or down, dB")


def perturb(waveform: Waveform, config: PerturbConfig, random: np.random.Generator) -> Waveform:
    """A 16 kHz waveform (S,) with pauses, noise and another level: at least as many samples."""
    noisy, snr = random.random() < config.noise, random.uniform(*config.snr)
    gain = 10 ** (random.uniform(-config.level, config.level) / 20)
    found = with_pauses(waveform, config, random)
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
