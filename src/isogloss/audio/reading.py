"""Audio of any format, rate and channel count -> a 16 kHz mono float32 waveform, or one clear error.

    read(path) ── limits ── decoder ── blocks ── one channel ── soxr HQ ── (S,) float32

No header is believed that a decoder contradicts, and decoding goes block by block, so that a file that lies
costs no memory. `info` counts what `read` reads: both ask the same decoder (`decoders`).
"""

import io
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import soundfile as sf
import soxr
from numpy.typing import NDArray

from isogloss.audio.arrays import RATES, unpacked
from isogloss.audio.blocks import SLACK, Decoder, resampled, trimmed
from isogloss.audio.channels import Channel, Mixer, SwitchingMixer, warn_of_cancelling
from isogloss.audio.decoders import decoder
from isogloss.audio.sources import DEFAULT_LIMITS, SPLIT, Content, Limits, Member, Source, once_per_file, opened
from isogloss.errors import AudioError, IsoglossError
from isogloss.files import atomic_file

if TYPE_CHECKING:
    import torch

SAMPLE_RATE = 16000

Audio: TypeAlias = (
    "Source | Stretch | np.ndarray | torch.Tensor | tuple[np.ndarray | torch.Tensor, float] | Mapping[str, Any]"
)
Waveform = NDArray[np.float32]

_BYTES_A_SECOND = 2000  # of compressed speech
_MOST_CHANNELS = 8  # of FLAC
_MARGIN = 1600  # samples of context on each side of a resampled segment; soxr's filter is shorter
_LOUDEST = 2.0**32  # full scale of 32-bit integers kept as floats; beyond it the power overflows


@dataclass(frozen=True)
class AudioInfo:
    """What a file holds. frames counts per channel at sample_rate; format like "WAV/PCM_16".

    seeks: a stretch is read without decoding all that lies before it.
    """

    seconds: float
    sample_rate: int
    channels: int
    format: str
    frames: int
    seeks: bool = True


@dataclass(frozen=True)
class Stretch:
    """A part of a source, in seconds."""

    source: Source
    start: float
    duration: float


def info(source: Source, *, limits: Limits = DEFAULT_LIMITS) -> AudioInfo:
    """What can be read of a source, from one end to the other. Raises AudioError as `read` does, except for length.

    Costs a look at the header where that can be trusted (WAV, FLAC, Ogg), a pass over the packets of an MP3
    (0.5 s an hour) and decoding for everything else (1 to 5 s an hour), once for each file longer than 1 MB.
    """
    with opened(source, limits) as content:
        return _measured(content)


def read(
    source: Source,
    *,
    start: float = 0.0,
    duration: float | None = None,
    channel: Channel = "mix",
    limits: Limits = DEFAULT_LIMITS,
) -> Waveform:
    """Decode `source` to a 16 kHz mono waveform (S,) float32.

    source: a path, a member of a file, the bytes of a file, or a binary stream (read to its end).
    start, duration: seconds; the result is the same slice of the whole, resampled, waveform.
    channel: "mix" averages all, 1 is the first. Where they cancel in the average, because they are out of
    phase, a warning is logged and the first loud one is read alone.
    Raises AudioError, whose `cause` is missing, empty, unreadable, truncated, too_long, too_large,
    not_finite or no_frames.
    """
    with opened(source, limits) as content:
        audio = decoder(content)
        _check_rate(content.name, audio.rate)
        seconds = None if audio.frames is None else (audio.frames or audio.count()) / audio.rate
        _check_span(content.name, seconds, start, duration, limits)
        mixer = Mixer(content.name, channel, audio.channels)
        waveform = _read(audio, mixer, content.name, start, duration, limits)
        if instead := mixer.instead:
            warn_of_cancelling(content.name, instead, is_file=content.is_file)
            mixer = Mixer(content.name, instead, audio.channels)
            waveform = _read(audio, mixer, content.name, start, duration, limits)
    return _checked(waveform, content.name)


def read_blocks(
    source: Source, *, start: float = 0.0, duration: float | None = None, channel: Channel = "mix"
) -> Iterator[Waveform]:
    """What `read` gives, as blocks (S,) one after the other: of a recording of any length, in bounded memory.

    Channels are averaged until they are found to cancel; from then on the first loud one is read alone. Raises
    AudioError as `read` does, except for length, where the source breaks off.
    """
    with opened(source, DEFAULT_LIMITS) as content:
        audio = decoder(content)
        _check_rate(content.name, audio.rate)
        seconds = None if audio.frames is None else audio.frames / audio.rate
        _check_span(content.name, seconds, start, duration, Limits(seconds=math.inf))
        first = round(start * SAMPLE_RATE)
        last = None if duration is None else round((start + duration) * SAMPLE_RATE)
        begin, end, skip = _native_span(audio.rate, first, last)
        mixer = SwitchingMixer(content.name, channel, audio.channels, is_file=content.is_file)
        mono = map(mixer, audio.blocks(begin, end))
        blocks = trimmed(resampled(mono, audio.rate, SAMPLE_RATE, 1), skip, None if last is None else last - first)
        for block in blocks:
            yield _checked(block, content.name)


def estimated_seconds(source: Source, *, limits: Limits = DEFAULT_LIMITS) -> float:
    """About how long a source is, by its header or else by its size: nothing is decoded, and it may be wrong.

    Raises AudioError for what is no audio.
    """
    with opened(source, limits) as content:
        stated = decoder(content).stated
        return content.size / _BYTES_A_SECOND if stated is None else stated


def measured_seconds(source: Source, *, limits: Limits) -> float:
    """How long a source is; raises AudioError as `read` does, in little memory.

    Nothing is decoded where the source itself says that it is too long, and never more than the limit.
    """
    with opened(source, limits) as content:
        audio = decoder(content)
        _check_rate(content.name, audio.rate)
        frames = audio.frames
        if frames is None:
            if (seconds := audio.claims(limits.seconds)) > limits.seconds:
                raise _too_long(content.name, seconds, limits)
            end = math.ceil((limits.seconds + SLACK) * audio.rate)
            frames = sum(len(block) for block in audio.blocks(0, end))
        if frames > limits.seconds * audio.rate:
            raise _too_long(content.name, frames / audio.rate, limits)
        if not (frames if audio.frames is None else audio.count()):
            raise AudioError(f"{content.name} holds no audio frames.", "no_frames")
        return frames / audio.rate


def resample(waveform: np.ndarray, sample_rate: float) -> Waveform:
    """A mono waveform (S,) at `sample_rate` Hz as float32 at 16 kHz (soxr, high quality)."""
    waveform = np.asarray(waveform, dtype=np.float32)
    if sample_rate != SAMPLE_RATE:
        waveform = soxr.resample(waveform, sample_rate, SAMPLE_RATE, quality="HQ")
    return waveform


def as_waveform(audio: Audio, *, channel: Channel = "mix", limits: Limits = DEFAULT_LIMITS) -> Waveform:
    """Whatever a caller may hold -> a 16 kHz mono waveform (S,) float32.

    What `read` takes, or an array or tensor at 16 kHz: (S,), (S, channels) or (channels, S), of at most 8
    channels; `(array, rate)` and {"array": array, "sampling_rate": rate} are at that rate in Hz. Floats are
    taken as they are; uint8, int8, int16 and int32 are scaled to [-1, 1). A `Stretch` is read alone. channel: as in
    `read`.
    Raises AudioError as `read` does, and for a shape or a type that says nothing clear.
    """
    if isinstance(audio, Mapping) and "array" not in audio and {"bytes", "path"} <= audio.keys():
        audio = audio["bytes"] or audio["path"]  # of datasets that are not to decode audio
    if isinstance(audio, Stretch):
        return read(audio.source, start=audio.start, duration=audio.duration, channel=channel, limits=limits)
    if isinstance(audio, (str, os.PathLike, bytes, Member)) or hasattr(audio, "read"):
        return read(audio, channel=channel, limits=limits)  # type: ignore[arg-type]
    name = "The given array"
    block, rate = unpacked(audio, SAMPLE_RATE)
    if len(block) > limits.seconds * rate:
        raise _too_long(name, len(block) / rate, limits)
    waveform = SwitchingMixer(name, channel, block.shape[1])(block)
    return _checked(resample(waveform, rate), name)


def encode_flac(waveform: np.ndarray) -> bytes:
    """A 16 kHz waveform (S,) as a file of 16-bit FLAC; samples beyond ±1 are clipped.

    Raises AudioError for an empty or non-finite waveform.
    """
    encoded = io.BytesIO()
    sf.write(encoded, _checked(waveform, "The waveform"), SAMPLE_RATE, format="FLAC", subtype="PCM_16")
    return encoded.getvalue()


def write_flac(path: Path, waveform: np.ndarray) -> None:
    """Write what `encode_flac` gives, atomically. Raises IsoglossError where the disk refuses, else as it does."""
    encoded = encode_flac(waveform)
    with atomic_file(path) as temporary:
        temporary.write_bytes(encoded)


def convert_mono(source: Source, path: Path, channel: Channel = "mix") -> None:
    """Write a whole recording as 16-bit WAV at 16 kHz, its mean or one of its channels, block by block.

    Raises AudioError as `read_blocks` does; IsoglossError where the disk refuses.
    """
    _write_blocks(path, read_blocks(source, channel=channel), 1, "WAV")


def convert(source: Source, path: Path) -> None:
    """Write a whole recording as 16-bit FLAC at 16 kHz with all its channels, block by block.

    Raises AudioError as `read_blocks` does, and for more than 8 channels; IsoglossError where the disk refuses.
    """
    with opened(source, DEFAULT_LIMITS) as content:
        audio = decoder(content)
        _check_rate(content.name, audio.rate)
        if audio.channels > _MOST_CHANNELS:
            raise AudioError(f"{content.name} has {audio.channels} channels; convert it to WAV.", "unreadable")
        blocks = resampled(audio.blocks(0, None), audio.rate, SAMPLE_RATE, audio.channels)
        _write_blocks(path, (_checked(block, content.name) for block in blocks), audio.channels, "FLAC")


def _write_blocks(path: Path, blocks: Iterable[np.ndarray], channels: int, kind: str) -> None:
    """Write blocks (S,) or (S, channels) at 16 kHz as a 16-bit file of a kind, atomically."""
    with atomic_file(path) as temporary:
        try:
            with sf.SoundFile(temporary, "w", SAMPLE_RATE, channels, "PCM_16", format=kind) as file:
                for block in blocks:
                    file.write(block)
        except sf.LibsndfileError as error:
            raise IsoglossError(f"Cannot write {path}: {error}") from None


@once_per_file
def _measured(content: Content) -> AudioInfo:
    audio = decoder(content)
    _check_rate(content.name, audio.rate)
    frames = audio.count()
    if not frames:
        raise AudioError(f"{content.name} holds no audio frames.", "no_frames")
    return AudioInfo(frames / audio.rate, audio.rate, audio.channels, audio.format, frames, audio.seeks)


def _check_rate(name: str, rate: int) -> None:
    if rate not in RATES:
        raise AudioError(f"{name} claims a sample rate of {rate} Hz; its header is damaged.", "unreadable")


def _read(audio: Decoder, mixer: Mixer, name: str, start: float, duration: float | None, limits: Limits) -> Waveform:
    """The samples of the stretch, resampled while decoding to bound the memory."""
    first = round(start * SAMPLE_RATE)
    last = None if duration is None else round((start + duration) * SAMPLE_RATE)
    begin, end, skip = _native_span(audio.rate, first, last)
    if audio.frames is None and end is None and math.isfinite(limits.seconds):
        end = begin + math.ceil((skip / SAMPLE_RATE + limits.seconds + SLACK) * audio.rate)
    elif audio.frames is not None and end is not None:
        end = min(end, audio.frames)
    mono = (mixer(block) for block in audio.blocks(begin, end))
    pieces = list(resampled(mono, audio.rate, SAMPLE_RATE, 1))
    waveform = pieces[0] if len(pieces) == 1 else np.concatenate([np.zeros(0, np.float32), *pieces])
    waveform = waveform[skip:] if last is None else waveform[skip : skip + last - first]
    missing = 1 if last is None else last - first - SLACK * SAMPLE_RATE
    if audio.frames is None and not missing <= len(waveform) <= limits.seconds * SAMPLE_RATE:
        _check_span(name, audio.count() / audio.rate, start, duration, limits)
    return waveform


def _check_span(name: str, seconds: float | None, start: float, duration: float | None, limits: Limits) -> None:
    """seconds: how long the file is, None where only decoding can tell."""
    if seconds == 0:
        raise AudioError(f"{name} holds no audio frames.", "no_frames")
    length = math.inf if seconds is None else seconds
    lasts = f"{name} lasts {length:.2f} s and" if seconds else name
    if not 0 <= start < length or (duration is not None and not 0 < duration < math.inf):
        asked = f"at {start} s" if duration is None else f"from {start} s on for {duration} s"
        raise AudioError(f"{lasts} has nothing {asked}; correct start and duration.", "no_frames")
    if duration is not None and start + duration > length + SLACK:
        raise AudioError(
            f"{name} lasts {length:.2f} s, but {start:.2f} s to {start + duration:.2f} s was asked for; "
            "correct the segment, or give the whole recording.",
            "truncated",
        )
    wanted = length - start if duration is None else duration
    if math.isfinite(wanted) and wanted > limits.seconds:
        raise _too_long(name, wanted, limits)


def _native_span(rate: int, first: int, last: int | None) -> tuple[int, int | None, int]:
    """Which native frames [begin, end) to decode for the 16 kHz samples [first, last), and how many
    resampled samples to skip. None is the end of the file.

    `begin` is a frame that coincides with a 16 kHz sample, so that a segment is resampled in the
    same phase as the whole; the margin hides the filter's edges.
    """
    if rate == SAMPLE_RATE:
        return first, last, 0
    common = math.gcd(rate, SAMPLE_RATE)
    periods = max(0, first - _MARGIN) // (SAMPLE_RATE // common)
    begin = periods * (rate // common)
    end = None if last is None else math.ceil((last + _MARGIN) * rate / SAMPLE_RATE)
    return begin, end, first - periods * (SAMPLE_RATE // common)


def _checked(waveform: np.ndarray, name: str) -> Waveform:
    """The waveform as contiguous float32, if it has samples and all of them are finite."""
    waveform = np.ascontiguousarray(waveform, dtype=np.float32)
    if not len(waveform):
        raise AudioError(f"{name} is too short for one sample at {SAMPLE_RATE} Hz.", "no_frames")
    # One comparison for NaN, infinities and absurd levels: it is false for each of them.
    if not max(waveform.max(), -waveform.min()) <= _LOUDEST:
        raise AudioError(f"{name} holds samples that are NaN, infinite or absurdly large.", "not_finite")
    return waveform


def _too_long(name: str, seconds: float, limits: Limits) -> AudioError:
    return AudioError(
        f"{name} lasts {seconds:.0f} s, over the limit of {limits.seconds:.0f} s; {SPLIT}.",
        "too_long",
    )
