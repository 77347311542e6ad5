"""Speech in formats without a header, as some corpora ship it: G.722 and raw 8-bit samples."""

from pathlib import Path

import numpy as np

from isogloss.audio.reading import Waveform, resample
from isogloss.audio.sources import DEFAULT_LIMITS, Limits, check_file, describe
from isogloss.errors import AudioError, IsoglossError

_G722_BYTES_PER_SECOND = 8000  # 64 kbit/s


def read_g722(path: Path, *, limits: Limits = DEFAULT_LIMITS) -> np.ndarray:
    """A headerless G.722 file (64 kbit/s, 16 kHz) -> waveform (S,) float32.

    Raises AudioError for a missing, empty, too long or undecodable file, IsoglossError without PyAV.
    """
    _check(path, _G722_BYTES_PER_SECOND, limits)
    try:
        import av
    except ImportError:
        raise IsoglossError(
            'Reading G.722 needs PyAV; install it with pip install "isogloss[g722]".'
        ) from None
    try:
        with av.open(str(path), format="g722") as container:
            frames = [frame.to_ndarray().reshape(-1) for frame in container.decode(audio=0)]
    except (av.FFmpegError, IndexError) as error:
        raise AudioError(f"{describe(path)} cannot be decoded as G.722: {error}.", "unreadable") from None
    if not frames:
        raise AudioError(f"{describe(path)} holds no audio frames; remove it.", "no_frames")
    waveform: np.ndarray = np.concatenate(frames).astype(np.float32) / np.float32(32768)
    return waveform


def read_u8(path: Path, sample_rate: int, *, limits: Limits = DEFAULT_LIMITS) -> Waveform:
    """Raw unsigned 8-bit mono samples at `sample_rate` Hz -> waveform (S,) float32 at 16 kHz.

    Raises AudioError for a missing, empty or too long file.
    """
    _check(path, sample_rate, limits)
    return resample((np.fromfile(path, np.uint8).astype(np.float32) - 128) / 128, sample_rate)


def _check(path: Path, bytes_per_second: int, limits: Limits) -> None:
    check_file(path, limits)
    if path.stat().st_size > limits.seconds * bytes_per_second:
        raise AudioError(
            f"{describe(path)} is longer than the limit of {limits.seconds:.0f} s; "
            "split it or raise the limit.",
            "too_long",
        )
