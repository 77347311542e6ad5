"""Audio of any format, rate and channel count -> a 16 kHz mono float32 waveform, or one clear error.

    read(path) ── header checked against Limits ── blocks ── mean of channels ── soxr HQ ── (S,) float32

Nothing is decoded before its header passed the limits, and a header that lies is bounded too,
because decoding goes block by block and never past what the header promised.
"""

import io
import math
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import soundfile as sf
import soxr

from isogloss.audio.sources import DEFAULT_LIMITS, Limits, Source, check_file, describe, opened_content
from isogloss.errors import AudioError
from isogloss.files import atomic_file

if TYPE_CHECKING:
    import torch

SAMPLE_RATE = 16000

Audio: TypeAlias = "Source | np.ndarray | torch.Tensor | tuple[np.ndarray | torch.Tensor, int]"
Waveform = np.ndarray[tuple[int], np.dtype[np.float32]]

_BLOCK = 1 << 22  # values (frames x channels) decoded at once: 16 MB
_MARGIN = 1600  # samples of context on each side of a resampled segment; soxr's filter is shorter
_SLACK = 0.1  # seconds a file may lack of what its header promises: sloppy headers are common
_RATES = range(1000, 1_000_001)
_LOUDEST = 2.0**32  # full scale of 32-bit integers kept as floats; beyond it the power overflows
_MAX_CHANNELS = 32


@dataclass(frozen=True)
class AudioInfo:
    """What the header says. frames counts per channel at sample_rate; format like "WAV/PCM_16"."""

    seconds: float
    sample_rate: int
    channels: int
    format: str
    frames: int


def info(source: Source, *, limits: Limits = DEFAULT_LIMITS) -> AudioInfo:
    """Read the header only. Raises AudioError as `read` does, except for length."""
    with _opened(source, limits) as file:
        return _header(file)


def read(
    source: Source, *, start: float = 0.0, duration: float | None = None, limits: Limits = DEFAULT_LIMITS
) -> Waveform:
    """Decode `source` to a 16 kHz mono waveform (S,) float32.

    source: a path, the bytes of a file, or a binary stream (read to its end).
    start, duration: seconds; the result is the same slice of the whole, resampled, waveform.
    Raises AudioError, whose `cause` is missing, empty, unreadable, truncated, too_long, too_large,
    not_finite or no_frames.
    """
    name = describe(source)
    with _opened(source, limits) as file:
        header = _header(file)
        _check_span(name, header, start, duration, limits)
        first = round(start * SAMPLE_RATE)
        last = None if duration is None else round((start + duration) * SAMPLE_RATE)
        begin, end, skip = _native_span(header, first, last)
        waveform = _decode(file, name, begin, end)
    waveform = waveform[skip:] if last is None else waveform[skip : skip + last - first]
    return _checked(waveform, name)


def resample(waveform: np.ndarray, sample_rate: int) -> Waveform:
    """A mono waveform (S,) at `sample_rate` Hz as float32 at 16 kHz (soxr, high quality)."""
    waveform = np.asarray(waveform, dtype=np.float32)
    if sample_rate != SAMPLE_RATE:
        waveform = soxr.resample(waveform, sample_rate, SAMPLE_RATE, quality="HQ")
    return waveform


def as_waveform(audio: Audio, *, limits: Limits = DEFAULT_LIMITS) -> Waveform:
    """Whatever a caller may hold -> a 16 kHz mono waveform (S,) float32.

    A bare array or tensor is 16 kHz, of shape (S,) or (channels, S); `(array, rate)` is at that rate.
    Floats are taken as they are; uint8, int8, int16 and int32 are scaled to [-1, 1).
    Raises AudioError as `read` does, and for a shape or a type that says nothing clear.
    """
    if isinstance(audio, (str, os.PathLike, bytes)) or hasattr(audio, "read"):
        return read(audio, limits=limits)  # type: ignore[arg-type]
    array, rate = audio if isinstance(audio, tuple) and len(audio) == 2 else (audio, SAMPLE_RATE)
    if not isinstance(rate, (int, np.integer)) or rate not in _RATES:
        raise AudioError(f"{rate!r} is not a sample rate in Hz; give (array, rate).", "unreadable")
    name = "The given array"
    waveform = _mono(_scaled(_as_numpy(array)))
    if len(waveform) > limits.seconds * rate:
        raise _too_long(name, len(waveform) / rate, limits)
    return _checked(resample(waveform, int(rate)), name)


def write_flac(path: Path, waveform: np.ndarray) -> None:
    """Write a 16 kHz waveform (S,) as 16-bit FLAC, atomically; samples beyond ±1 are clipped.

    Raises AudioError for an empty or non-finite waveform, IsoglossError where the disk refuses.
    """
    encoded = io.BytesIO()
    sf.write(encoded, _checked(waveform, "The waveform"), SAMPLE_RATE, format="FLAC", subtype="PCM_16")
    with atomic_file(path) as temporary:
        temporary.write_bytes(encoded.getvalue())


@contextmanager
def _opened(source: Source, limits: Limits) -> Iterator[sf.SoundFile]:
    """Open a source whose size passed the limits; every failure of libsndfile becomes an AudioError."""
    name = describe(source)
    handle: bytes | io.BytesIO
    if isinstance(source, (str, os.PathLike)):
        check_file(source, limits)
        handle = os.fsencode(source)
    else:
        handle = opened_content(source, limits)
    try:
        file = sf.SoundFile(handle)
    except (sf.LibsndfileError, TypeError):  # TypeError: a name in .raw
        raise AudioError(
            f"{name} is not audio that can be read, or it is damaged; convert it to WAV or FLAC.",
            "unreadable",
        ) from None
    with file:
        _check_header(file, name)
        yield file


def _check_header(file: sf.SoundFile, name: str) -> None:
    if file.samplerate not in _RATES:
        raise AudioError(
            f"{name} claims a sample rate of {file.samplerate} Hz; its header is damaged.", "unreadable"
        )
    lost = _lost_fraction(file.extra_info)
    if lost == 1 or lost * file.frames / (1 - lost) > _SLACK * file.samplerate:
        raise _truncated(name, file.frames / file.samplerate)
    if file.frames == 0:
        raise AudioError(f"{name} holds no audio frames; remove it.", "no_frames")
    if file.frames >= 1 << 62:  # libsndfile's mark for a FLAC written to a pipe
        raise AudioError(f"{name} does not state its length; encode it again to a file.", "unreadable")


def _lost_fraction(log: str) -> float:
    """How much of the promised audio is missing at the end of a WAV, AIFF or AU file.

    libsndfile shortens such files silently and tells only its log. A size near 2 or 4 GiB is the
    mark of a file that was written to a pipe, and promises nothing.
    """
    found = re.search(r"^ *(?:data|SSND|Data Size) *: (\d+) \(should be (\d+)\)", log, re.MULTILINE)
    if not found:
        return 0.0
    promised, present = int(found[1]), int(found[2])
    return 1 - present / promised if present < promised < 0x7FFF0000 else 0.0


def _header(file: sf.SoundFile) -> AudioInfo:
    return AudioInfo(
        seconds=file.frames / file.samplerate,
        sample_rate=file.samplerate,
        channels=file.channels,
        format=f"{file.format}/{file.subtype}",
        frames=file.frames,
    )


def _check_span(name: str, header: AudioInfo, start: float, duration: float | None, limits: Limits) -> None:
    if not 0 <= start < header.seconds or (duration is not None and not duration > 0):
        raise AudioError(
            f"{name} lasts {header.seconds:.2f} s and has nothing at {start} s for {duration} s; "
            "correct start and duration.",
            "no_frames",
        )
    if duration is not None and start + duration > header.seconds + _SLACK:
        raise AudioError(
            f"{name} lasts {header.seconds:.2f} s, but {start:.2f} s to {start + duration:.2f} s was asked "
            "for; fetch the file again or correct the segment.",
            "truncated",
        )
    wanted = header.seconds - start if duration is None else duration
    if wanted > limits.seconds:
        raise _too_long(name, wanted, limits)


def _native_span(header: AudioInfo, first: int, last: int | None) -> tuple[int, int, int]:
    """Which native frames [begin, end) to decode for the 16 kHz samples [first, last), and how many
    resampled samples to skip.

    `begin` is a frame that coincides with a 16 kHz sample, so that a segment is resampled in the
    same phase as the whole; the margin hides the filter's edges.
    """
    rate = header.sample_rate
    if rate == SAMPLE_RATE:
        return first, header.frames if last is None else min(last, header.frames), 0
    common = math.gcd(rate, SAMPLE_RATE)
    periods = max(0, first - _MARGIN) // (SAMPLE_RATE // common)
    begin = periods * (rate // common)
    end = header.frames if last is None else math.ceil((last + _MARGIN) * rate / SAMPLE_RATE)
    return begin, min(end, header.frames), first - periods * (SAMPLE_RATE // common)


def _decode(file: sf.SoundFile, name: str, begin: int, end: int) -> Waveform:
    """Native frames [begin, end) -> mono at 16 kHz, resampled while decoding to bound the memory."""
    rate = file.samplerate
    stream = None if rate == SAMPLE_RATE else soxr.ResampleStream(rate, SAMPLE_RATE, 1, quality="HQ")
    pieces, position = [], begin
    try:
        file.seek(begin)
        for block in _mono_blocks(file, end - begin):
            position += len(block)
            pieces.append(block if stream is None else stream.resample_chunk(block))
    except sf.LibsndfileError:
        raise _truncated(name, position / rate) from None
    if end - position > _SLACK * rate + 0.01 * (end - begin):  # MP3 lengths are estimates
        raise _truncated(name, position / rate)
    if stream is not None:
        pieces.append(stream.resample_chunk(np.zeros(0, np.float32), last=True))
    return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)


def _mono_blocks(file: sf.SoundFile, count: int) -> Iterator[Waveform]:
    size = max(1, _BLOCK // file.channels)
    mean = np.full(file.channels, 1 / file.channels, dtype=np.float32)
    while count > 0:
        block = file.read(min(size, count), dtype="float32", always_2d=True)
        if not len(block):
            return
        count -= len(block)
        yield block[:, 0] if file.channels == 1 else block @ mean


def _checked(waveform: np.ndarray, name: str) -> Waveform:
    """The waveform as contiguous float32, if it has samples and all of them are finite."""
    waveform = np.ascontiguousarray(waveform, dtype=np.float32)
    if not len(waveform):
        raise AudioError(f"{name} is too short for one sample at {SAMPLE_RATE} Hz; remove it.", "no_frames")
    # One comparison for NaN, infinities and absurd levels: it is false for each of them.
    if not max(waveform.max(), -waveform.min()) <= _LOUDEST:
        raise AudioError(f"{name} holds samples that are NaN, infinite or absurdly large.", "not_finite")
    return waveform


def _as_numpy(array: Any) -> np.ndarray:
    if isinstance(array, np.ndarray):
        return array
    import torch

    if not isinstance(array, torch.Tensor):
        kind = type(array).__name__
        raise AudioError(
            f"Audio of type {kind} is not understood; give a path, bytes, an array, a tensor or "
            "(array, rate).",
            "unreadable",
        )
    array = array.detach().cpu()
    values: np.ndarray = (array.float() if array.is_floating_point() else array).numpy()
    return values


def _scaled(array: np.ndarray) -> np.ndarray:
    """Samples as float32; integers scaled by their type's full range."""
    if array.dtype.kind == "f":
        with np.errstate(over="ignore"):  # becomes infinite, and is refused as such
            return array.astype(np.float32, copy=False)
    if array.dtype == np.uint8:
        return (array.astype(np.float32) - 128) / 128
    if array.dtype in (np.int8, np.int16, np.int32):
        return (array / -float(np.iinfo(array.dtype).min)).astype(np.float32)
    raise AudioError(
        f"Samples of type {array.dtype} have no known scale; convert them to float32 in [-1, 1].",
        "unreadable",
    )


def _mono(array: np.ndarray) -> np.ndarray:
    """(S,) or (channels, S) -> (S,)."""
    if array.ndim == 1:
        return array
    if array.ndim == 2 and 1 <= array.shape[0] <= min(_MAX_CHANNELS, max(1, array.shape[1])):
        mean: np.ndarray = array.mean(axis=0)
        return mean
    raise AudioError(
        f"An array of shape {array.shape} is neither (samples,) nor (channels, samples); "
        "transpose it, or give a batch as a list.",
        "unreadable",
    )


def _truncated(name: str, seconds: float) -> AudioError:
    return AudioError(
        f"{name} breaks off after {seconds:.2f} s, earlier than its header says; fetch it again.", "truncated"
    )


def _too_long(name: str, seconds: float, limits: Limits) -> AudioError:
    return AudioError(
        f"{name} lasts {seconds:.0f} s, over the limit of {limits.seconds:.0f} s; "
        "split it or raise the limit.",
        "too_long",
    )
