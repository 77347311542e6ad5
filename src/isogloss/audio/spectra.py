"""Spectra of frames that stand where an encoder's do, for whoever predicts them: power, mel, cepstra, gammatone.

    (B, S) ─ frames around given samples ─ Hann window ─ |FFT|² ─> (B, T, 1025) ─ filters ─ log ─> (B, T, F)

Gammatone filters (Patterson et al. 1992) are weights of the power spectrum: of order 4, with centres evenly spaced on
the scale of equivalent rectangular bandwidths (Glasberg & Moore 1990),

    |G_c(f)|² = (1 + ((f − f_c) / b_c)²)⁻⁴,   b_c = 1.019 · 24.7 (1 + 4.37 f_c / 1000) Hz
"""

import functools
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import pad

from isogloss.audio.log_mel import LogMelConfig, mel_filters
from isogloss.audio.mfcc import lifted_dct
from isogloss.audio.reading import SAMPLE_RATE
from isogloss.sequence import Sequence

FFT = 2048
FLOOR = 1e-10
"""Power below which everything is equally silent."""
BINS = 40
LOWEST = 500.0
"""Hz: the centre of the lowest gammatone filter, as in PASE+."""


@dataclass(frozen=True)
class Grid:
    """Frames, each around a sample: the first around sample `first`, the next `hop` samples later, and so on."""

    first: int
    hop: int

    def framed(self, audio: Sequence, window: int, frames: int) -> Tensor:
        """So many frames of `window` samples: (B, S) -> (B, T, window), with zeros beyond the ends of a clip."""
        samples = audio.zero_padding().values
        begin, seen = self.first - window // 2, (frames - 1) * self.hop + window
        padded = pad(samples, (max(0, -begin), max(0, begin + seen - samples.shape[1])))
        return padded[:, max(0, begin) :][:, :seen].unfold(1, window, self.hop)

    def power(self, audio: Sequence, window: int, frames: int) -> Tensor:
        """Their power spectra: (B, S) -> (B, T, 1025)."""
        framed = self.framed(audio, window, frames)
        hann = torch.hann_window(window, device=framed.device, dtype=framed.dtype)
        return torch.view_as_real(torch.fft.rfft(framed * hann, FFT)).square().sum(dim=-1)


def log_power(power: Tensor) -> Tensor:
    """(…, 1025) -> (…, 1025)."""
    return power.clamp(min=FLOOR).log()


def log_mel(power: Tensor) -> Tensor:
    """(…, 1025) -> (…, 40)."""
    return (power @ _mel(power.device)).clamp(min=FLOOR).log()


def cepstra(power: Tensor, coefficients: int) -> Tensor:
    """(…, 1025) -> (…, coefficients)."""
    return log_mel(power) @ _dct(power.device, coefficients)


def log_gammatone(power: Tensor) -> Tensor:
    """(…, 1025) -> (…, 40)."""
    return (power @ _gammatone(power.device)).clamp(min=FLOOR).log()


def centres(count: int = BINS, lowest: float = LOWEST) -> NDArray[np.float64]:
    """Centres of gammatone filters from the lowest to below half the sample rate, Hz: (count,)."""
    scale = np.linspace(np.log1p(4.37e-3 * lowest), np.log1p(4.37e-3 * SAMPLE_RATE / 2), count + 1)[:-1]
    found: NDArray[np.float64] = np.expm1(scale) / 4.37e-3
    return found


def gammatone_filters(centres: NDArray[np.float64]) -> NDArray[np.float64]:
    """Weights of the power spectrum, 1 at each centre: (F,) -> (1025, F)."""
    bandwidth = 1.019 * 24.7 * (1 + 4.37e-3 * centres)
    distance = np.fft.rfftfreq(FFT, 1 / SAMPLE_RATE)[:, None] - centres
    weights: NDArray[np.float64] = (1 + (distance / bandwidth) ** 2) ** -4.0
    return weights


@functools.lru_cache(maxsize=4)
def _gammatone(device: torch.device) -> Tensor:
    return _constant(gammatone_filters(centres()), device)


@functools.lru_cache(maxsize=4)
def _mel(device: torch.device) -> Tensor:
    return _constant(mel_filters(LogMelConfig(bins=BINS, window_ms=1000 * FFT / SAMPLE_RATE)), device)


@functools.lru_cache(maxsize=8)
def _dct(device: torch.device, coefficients: int) -> Tensor:
    return _constant(lifted_dct(BINS, coefficients).numpy(), device)


def _constant(table: NDArray[np.floating], device: torch.device) -> Tensor:
    with torch.inference_mode(False):  # what is kept must serve training too
        return torch.from_numpy(table.astype(np.float32)).to(device)
