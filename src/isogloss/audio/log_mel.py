"""Log-mel features: 16 kHz waveform -> (B, T, F) at 100 frames a second.

    (B, S) ─ pre-emphasis ─ frames of 25 ms ─ − mean ─ window ─ |FFT|² ─ mel filters ─ log ─ normaliser ─> (B, T, F)

Three flavours of one pipeline:
    plain     Hann window, no pre-emphasis, triangles over Hz, floor 1e-10 (as torchaudio, librosa with htk)
    kaldi     Povey window, pre-emphasis 0.97, triangles over mel, floor 2^-23 (as Kaldi without dither)
    whisper   as plain, but: frames centred on multiples of the hop, the beginning mirrored, no mean removed, Slaney's
              mel scale and triangles of equal area (as OpenAI's Whisper, with normalisation whisper)

At 128 bins one filter of the kaldi flavour holds no FFT bin and stays at the floor, as in Kaldi; the
plain flavour takes a longer FFT instead.
"""

import functools
import math
from typing import Literal

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from isogloss.audio.normalise import NormaliserName, build_normaliser
from isogloss.audio.reading import SAMPLE_RATE
from isogloss.config import Config
from isogloss.framing import Framing
from isogloss.sequence import Sequence

# FFT input values worked on at once: small enough for the CPU's cache, large enough that threads
# seldom wait for each other (on a busy machine every wait is long).
_CHUNK = {"cpu": 1 << 20}
_LARGE_CHUNK = 1 << 26


class LogMelConfig(Config):
    """Log-mel filter bank energies of 16 kHz audio, normalised."""

    kind: Literal["log_mel"] = "log_mel"
    bins: int = Field(default=80, gt=0, description="number F of mel filters; BEST-RQ and w2v-BERT 80, USM 128")
    flavour: Literal["plain", "kaldi", "whisper"] = Field(
        default="plain", description="window, pre-emphasis, triangles and floor"
    )
    low_hz: float = Field(default=20.0, ge=0, description="lower edge of the first filter, Hz")
    high_hz: float = Field(
        default=8000.0, le=SAMPLE_RATE / 2, description="upper edge of the last filter, Hz"
    )
    window_ms: float = Field(default=25.0, ge=1, le=1000, description="length of a frame, ms")
    shift_ms: float = Field(default=10.0, ge=1, le=1000, description="hop from one frame to the next, ms")
    full_scale: float = Field(
        default=1.0, gt=0, description="value of the loudest sample; 32768 where the floor is that of 16-bit samples"
    )
    normalisation: NormaliserName = Field("utterance", description="over what each bin has zero mean and unit variance")

    @model_validator(mode="after")
    def _check(self) -> "LogMelConfig":
        if self.low_hz >= self.high_hz:
            raise ValueError(f"low_hz {self.low_hz} is not below high_hz {self.high_hz}")
        return self

    @property
    def window(self) -> int:
        """Samples in a frame."""
        return round(self.window_ms * SAMPLE_RATE / 1000)

    @property
    def shift(self) -> int:
        """Samples from one frame to the next."""
        return round(self.shift_ms * SAMPLE_RATE / 1000)

    @property
    def fft(self) -> int:
        """FFT points: a power of two; in the plain flavour enough for the narrowest filter to hold a bin.

        Whisper's are the samples of a frame.
        """
        if self.flavour == "whisper":
            return self.window
        size = 1 << (self.window - 1).bit_length()
        if self.flavour == "plain":
            edges = _edges(self)
            while size < 1 << 14 and SAMPLE_RATE / size >= edges[2] - edges[0]:
                size *= 2
        return size

    @property
    def width(self) -> int:
        """Features a frame, F."""
        return self.bins

    @property
    def framing(self) -> Framing:
        """From samples to frames: T = 1 + ⌊(S − window) / shift⌋, or 0 if there is no whole frame.

        Whisper's frames reach half a window to both sides, and the last of them is left out: T = ⌊S / shift⌋.
        """
        padding = (self.window - self.shift) // 2 if self.flavour == "whisper" else 0
        return Framing(((self.window, self.shift, padding),))

    @property
    def cannot_stream(self) -> str | None:
        """Why audio cannot be taken as it arrives, and what helps; None where it can."""
        if self.normalisation in ("utterance", "frames", "whisper"):
            return (
                "it normalises features by the whole utterance; "
                "train with model.features={kind: log_mel, normalisation: running}."
            )
        return None

    def build(self) -> "LogMelFeatures":
        """The features, with a normaliser that has seen nothing."""
        return LogMelFeatures(self)


class LogMelFeatures(nn.Module):
    """Waveforms (B, S) float in [-1, 1] -> normalised log-mel energies (B, T, F) float32, zeros after each length."""

    def __init__(self, config: LogMelConfig):
        super().__init__()
        self.config = config
        self.width = config.width
        self.framing = config.framing
        self.log_mel = LogMel(config)
        self.normaliser = build_normaliser(config.normalisation, config.bins)

    def forward(self, audio: Sequence) -> Sequence:
        return self.normaliser(self.log_mel(audio))


class LogMel(nn.Module):
    """Waveforms (B, S) float in [-1, 1] -> log-mel energies (B, T, F) float32 as they are, T = framing.frames(S).

    Padding never changes a valid frame, and frames past a length are zero. Computed in float32
    whatever the module was cast to, also under autocast; it has no parameters and no state.
    """

    def __init__(self, config: LogMelConfig | None = None):
        super().__init__()
        self.config = config or LogMelConfig()

    def forward(self, waveforms: Sequence) -> Sequence:
        with torch.autocast(waveforms.device.type, enabled=False):
            features = self._log_mel(waveforms.values.float(), waveforms.lengths)
            return Sequence(features, self.config.framing.frames(waveforms.lengths)).zero_padding()

    def _log_mel(self, samples: Tensor, lengths: Tensor) -> Tensor:
        """(B, S), (B,) -> (B, T, F), chunk by chunk over time; frames past a length mean nothing."""
        config = self.config
        frames = config.framing.frames(samples.shape[1])
        if not frames or not len(samples):
            return samples.new_zeros(len(samples), frames, config.bins)
        samples = _finite_after(samples, lengths, config.fft)
        if config.flavour == "whisper":
            half = config.window // 2
            samples = torch.cat([samples[:, 1 : 1 + half].flip(1), samples], dim=1)
        emphasised = _emphasise(samples, _emphasis(config)).unfold(1, config.fft, config.shift)
        raw = samples.unfold(1, config.window, config.shift)
        step = _CHUNK.get(samples.device.type, _LARGE_CHUNK) // (config.fft * len(samples)) or 1
        spans = [slice(i, min(i + step, frames)) for i in range(0, frames, step)]
        return torch.cat([self._chunk(emphasised[:, span], raw[:, span]) for span in spans], dim=1)

    def _chunk(self, emphasised: Tensor, raw: Tensor) -> Tensor:
        """Frames with pre-emphasis (B, t, fft) and without it (B, t, window) -> (B, t, F)."""
        window, filters = _tables(self.config, raw.device)
        windowed = emphasised * window
        if self.config.flavour != "whisper":
            # The windows start with a zero, so pre-emphasis of the whole signal equals that of each
            # frame, and the mean of a frame, removed before it, shrinks by the same factor.
            mean = (1 - _emphasis(self.config)) * raw.mean(dim=-1, keepdim=True)
            windowed = windowed.addcmul_(mean, window, value=-1)
        # |z|² as two squares and a sum: the absolute value of complex numbers is far slower.
        squares = torch.view_as_real(torch.fft.rfft(windowed)).square_()
        return log_energies((squares[..., 0] + squares[..., 1]) @ filters, self.config)


def _finite_after(samples: Tensor, lengths: Tensor, count: int) -> Tensor:
    """(B, S) -> (B, S + count) with `count` zeros after each length: the last frame's FFT input
    reaches there, with weight 0, and 0 · NaN is NaN."""
    padded = nn.functional.pad(samples, (0, count))
    after = lengths[:, None] + torch.arange(count, device=samples.device)
    return padded.scatter_(1, after, 0.0)


def _emphasis(config: LogMelConfig) -> float:
    return 0.97 if config.flavour == "kaldi" else 0.0


def log_energies(energies: Tensor, config: LogMelConfig) -> Tensor:
    """Logarithms of energies of samples in [-1, 1], no lower than the flavour's floor, at full scale."""
    floor = 2.0**-23 if config.flavour == "kaldi" else 1e-10
    scale = config.full_scale**2
    logarithms = energies.clamp_min(floor / scale).log()
    return logarithms if scale == 1 else logarithms + math.log(scale)


def _emphasise(samples: Tensor, factor: float) -> Tensor:
    """y[n] = x[n] − factor · x[n−1]."""
    if not factor:
        return samples
    return torch.cat([samples[:, :1], torch.add(samples[:, 1:], samples[:, :-1], alpha=-factor)], dim=1)


@functools.lru_cache(maxsize=16)
def _tables(config: LogMelConfig, device: torch.device) -> tuple[Tensor, Tensor]:
    """The window, padded to (fft,), and the mel filters (fft/2+1, F).

    Kept outside the module: as buffers they would be rounded when a model is cast to bf16, and
    lost when it is built on the meta device.
    """
    window = np.pad(_window(config), (0, config.fft - config.window))
    with torch.inference_mode(False):  # what is kept must serve training too
        return (
            torch.from_numpy(window.astype(np.float32)).to(device),
            torch.from_numpy(mel_filters(config).astype(np.float32)).to(device),
        )


def spectral_basis(config: LogMelConfig) -> np.ndarray:
    """(fft + 2, window) float64: rows whose products with the samples of a frame are its spectrum.

    All that is done before the squares is linear: fft/2+1 real parts, then the imaginary ones.
    """
    impulses = np.eye(config.window)
    frames = impulses - _emphasis(config) * np.eye(config.window, k=1)
    if config.flavour != "whisper":
        frames -= (1 - _emphasis(config)) * impulses.mean(axis=1, keepdims=True)
    spectrum = np.fft.rfft(frames * _window(config), n=config.fft)
    return np.concatenate([spectrum.real, spectrum.imag], axis=1).T


def _window(config: LogMelConfig) -> np.ndarray:
    """(window,) weights; Kaldi's window is symmetric, the plain one periodic."""
    period = config.window - 1 if config.flavour == "kaldi" else config.window
    cosine = np.cos(2 * math.pi * np.arange(config.window) / period)
    weights: np.ndarray = (0.5 - 0.5 * cosine) ** (0.85 if config.flavour == "kaldi" else 1.0)
    return weights


def _mel(hz: np.ndarray | float) -> np.ndarray:
    """The HTK mel scale, 1127 ln(1 + f/700)."""
    return 1127.0 * np.log1p(np.asarray(hz) / 700.0)


def _slaney_hz(mel: np.ndarray) -> np.ndarray:
    """Hz on the mel scale of Slaney's Auditory Toolbox: linear to 1 kHz, which is mel 15, then logarithmic."""
    hertz: np.ndarray = np.where(mel < 15, mel * 200 / 3, 1000 * 6.4 ** ((mel - 15) / 27))
    return hertz


def _slaney_mel(hz: float) -> float:
    return hz * 3 / 200 if hz < 1000 else 15 + 27 * math.log(hz / 1000) / math.log(6.4)


def _edges(config: LogMelConfig) -> np.ndarray:
    """(F + 2,) edges of the filters in Hz, equally spaced in mel; filter i spans edges i to i + 2."""
    if config.flavour == "whisper":
        return _slaney_hz(np.linspace(_slaney_mel(config.low_hz), _slaney_mel(config.high_hz), config.bins + 2))
    mel = np.linspace(_mel(config.low_hz), _mel(config.high_hz), config.bins + 2)
    hertz: np.ndarray = 700.0 * np.expm1(mel / 1127.0)
    return hertz


def mel_filters(config: LogMelConfig) -> np.ndarray:
    """(fft/2+1, F) triangular filters of height 1; Whisper's have area 1 over Hz."""
    points: np.ndarray = np.arange(config.fft // 2 + 1) * SAMPLE_RATE / config.fft
    edges = _edges(config)
    if config.flavour == "kaldi":
        points, edges = _mel(points), _mel(edges)
    rising = (points[:, None] - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - points[:, None]) / (edges[2:] - edges[1:-1])
    filters: np.ndarray = np.maximum(0.0, np.minimum(rising, falling))
    if config.flavour == "kaldi":
        filters[-1] = 0.0  # Kaldi leaves out the Nyquist bin
    if config.flavour == "whisper":
        filters *= 2 / (edges[2:] - edges[:-2])
    return filters
