"""Speech in formats without a header, as some corpora ship it: G.722 and raw 8-bit samples."""

from pathlib import Path

import numpy as np

from isogloss.audio.ffmpeg import FFmpeg
from isogloss.audio.reading import Waveform, resample
from isogloss.audio.sources import DEFAULT_LIMITS, Content, Limits, opened
from isogloss.errors import AudioError

_G722_BYTES_PER_SECOND = 8000  # 64 kbit/s


def read_g722(path: Path, *, limits: Limits = DEFAULT_LIMITS) -> Waveform:
    """A headerless G.722 file (64 kbit/s, 16 kHz) -> waveform (S,) float32.

    Raises AudioError for a missing, empty, too long or undecodable file.
    """
    with opened(path, limits) as content:
        _check(content, _G722_BYTES_PER_SECOND, limits)
        blocks = list(FFmpeg(content.name, content.file, "g722").blocks(0, None))
    if not blocks:
        raise AudioError(f"{content.name} holds no audio frames.", "no_frames")
    return np.concatenate(blocks)[:, 0]


def read_u8(path: Path, sample_rate: int, *, limits: Limits = DEFAULT_LIMITS) -> Waveform:
    """Raw unsigned 8-bit mono samples at `sample_rate` Hz -> waveform (S,) float32 at 16 kHz.

    Raises AudioError for a missing, empty or too long file.
    """
    with opened(path, limits) as content:
        _check(content, sample_rate, limits)
        samples = np.frombuffer(content.at(0, content.size), np.uint8)
    return resample((samples.astype(np.float32) - 128) / 128, sample_rate)


def _check(content: Content, bytes_per_second: int, limits: Limits) -> None:
    if content.size > limits.seconds * bytes_per_second:
        raise AudioError(
            f"{content.name} is longer than the limit of {limits.seconds:.0f} s; split it.",
            "too_long",
        )
