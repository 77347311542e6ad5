"""Audio that FFmpeg decodes (PyAV): MP3, m4a, mp4, webm, AMR, WMA and the rest.

    file ── packets of one stream ── frames ── blocks at one rate and with one number of channels

No header is believed: the length is counted. MP3 is sought by its packets; every other codec is decoded from
the beginning, because what its decoder gives may depend on all that came before (Opus, AMR, the noise of AAC):
a stretch then costs the time to decode what lies before it, but no memory.
"""

import re
import struct
from collections.abc import Iterable, Iterator
from itertools import chain, groupby
from typing import Any, BinaryIO

import av

from isogloss.audio.arrays import scaled
from isogloss.audio.blocks import BLOCK_VALUES, SLACK, Block, breaks_off, resampled, spread, trimmed
from isogloss.errors import AudioError

# Containers of sound, as FFmpeg names them. Play lists and the like, which name other files and addresses,
# are not among them: a recording is read from its own bytes alone.
_CONTAINERS = (
    "aac,ac3,aiff,amr,amrnb,amrwb,ape,asf,au,avi,caf,dsf,dts,eac3,flac,flv,g722,gsm,ircam,loas,matroska,mov,mp3,"
    "mpc,mpc8,mpeg,mpegts,nistsphere,ogg,oma,qcp,rm,shn,sox,tak,tta,voc,w64,wav,wv,xwma"
)
_PREROLL = 20  # packets of MP3 decoded and thrown away: a frame may begin in any of the nine before it
_LATEST = (1 << 63) - 1  # tick that FFmpeg can count to
_XING = re.compile(rb"(?:Xing|Info)\0\0\0[\x01-\x0f](.{4})", re.DOTALL)
_XING_WITHIN = 4096  # bytes after the tag at the beginning of an MP3 file


class FFmpeg:
    """A `blocks.Decoder`. container: what FFmpeg shall take the file for, where it has no header.

    Raises AudioError for what FFmpeg does not know and for pictures without sound.
    """

    frames = None
    _container: Any  # PyAV's types leave out what only some streams have
    _stream: Any

    def __init__(self, name: str, file: BinaryIO, container: str | None = None):
        self._name = name
        self._file = file
        self._as = container
        self._fresh = True  # nothing has been taken out of the container yet
        self._open()
        codec = self._stream.codec_context
        kind = self._container.format.name.partition(",")[0]
        self.rate = int(codec.sample_rate)
        self.channels = int(codec.layout.nb_channels)
        self.format = f"{kind}/{codec.codec.canonical_name}".upper()
        self.seeks = self._is_mp3 = self.format == "MP3/MP3"
        self._promised = self._promise(kind)
        length = self._container.duration  # FFmpeg guesses where it is not stated, or has none
        self.stated = None if length is None else length / av.time_base

    def claims(self, most: float) -> float:
        """By the times of the packets."""
        seconds = 0.0
        for packet in self._packets():
            if packet.pts is not None:
                ended = packet.pts + (packet.duration or 0) - self._start
                seconds = max(seconds, float(ended * self._stream.time_base))
            if seconds > most:
                break
        return seconds

    def count(self) -> int:
        """Adds up the packets of MP3 (0.5 s an hour of audio), decodes everything else (1 to 5 s an hour)."""
        if not self._is_mp3:
            return sum(len(block) for block in self.blocks(0, None))
        ticks = skipped = 0
        for packet in self._packets():
            ticks += packet.duration or 0
            if packet.has_sidedata("skip_samples"):  # what the encoder added before and after
                skipped += sum(struct.unpack("<II", bytes(packet.get_sidedata("skip_samples"))[:8]))
        return max(0, self._frames_in(ticks) - skipped)

    def blocks(self, begin: int, end: int | None) -> Iterator[Block]:
        count = None if end is None else end - begin
        at_once = max(1, BLOCK_VALUES // self.channels)
        frames = self._decoded(self._packets(begin))
        if self._is_mp3 and (first := next(frames, None)) is not None:
            begin = max(0, begin - self._frames_in(first.pts - self._start))
            frames = chain([first], frames)
        return trimmed(self._conformed(frames, at_once if count is None else min(at_once, count)), begin, count)

    def _packets(self, begin: int = 0) -> Iterator[Any]:
        """The packets of the stream from the first on, of MP3 from a little before frame `begin` on.

        Raises AudioError where the stream ends before its time.
        """
        if not self._fresh:
            self._open()
        self._fresh = False
        stream, ended, failed = self._stream, 0, False
        if self._is_mp3 and begin > 0:
            before = begin - _PREROLL * stream.codec_context.frame_size
            place = self._start + int(before / self.rate / stream.time_base)
            self._container.seek(min(max(0, place), _LATEST), stream=stream)
        try:
            for packet in self._container.demux(stream):
                if packet.pts is not None:
                    ended = max(ended, packet.pts + (packet.duration or 0))
                yield packet
        except av.FFmpegError:
            failed = True
        seconds = float(ended * stream.time_base)
        if failed if self._promised is None else seconds < self._promised - SLACK:
            raise breaks_off(self._name, seconds, self._promised)

    def _decoded(self, packets: Iterator[Any]) -> Iterator[Any]:
        """FFmpeg's frames; what cannot be decoded of the first or last packet is left out."""
        done = lost = 0
        for packet in packets:
            try:
                frames = packet.decode()
            except av.FFmpegError:
                lost += packet.duration or 0
                if lost * self._stream.time_base > SLACK:
                    raise breaks_off(self._name, float(done * self._stream.time_base), self._promised) from None
            else:
                yield from frames
                done += packet.duration or 0

    def _conformed(self, frames: Iterator[Any], at_once: int) -> Iterator[Block]:
        """Frames as blocks; joined files may go on at another rate or with other channels."""
        for (rate, channels, _), run in groupby(frames, key=_shape):
            for block in resampled(_gathered(run, at_once, channels), rate, self.rate, channels):
                yield spread(block, self.channels)

    def _frames_in(self, ticks: int) -> int:
        return round(ticks * self._stream.time_base * self.rate)

    @property
    def _start(self) -> int:
        return self._stream.start_time or 0

    def _open(self) -> None:
        self._file.seek(0)
        try:
            # Tags in no encoding that anybody knows are common, and of no interest here.
            self._container = av.open(
                self._file, format=self._as, metadata_errors="ignore", options={"format_whitelist": _CONTAINERS}
            )
        except av.FFmpegError:
            raise AudioError(self._unreadable(), "unreadable") from None
        stream = self._container.streams.best("audio")
        if stream is None:
            raise AudioError(f"{self._name} holds pictures or data, but no sound.", "no_frames")
        if stream.codec_context is None or not stream.codec_context.sample_rate:
            raise AudioError(f"The sound of {self._name} is encoded in a way that FFmpeg does not know.", "unreadable")
        self._stream = stream

    def _unreadable(self) -> str:
        self._file.seek(4)
        if self._file.read(4) == b"ftyp":
            return (
                f"{self._name} is an MP4 file without its index: the recording was never finished, or the file is cut. "
                "Give a complete copy, or rebuild the index with a repair tool such as untrunc."
            )
        return f"{self._name} is not audio that can be read, or it is damaged; convert it to WAV or FLAC."

    def _promise(self, kind: str) -> float | None:
        """Where in time the stream shall end, in seconds, if the container says so and does not guess."""
        stream, whole = self._stream, self._container.duration
        if kind == "mp3" and (frames := _xing_frames(self._file)):
            return frames * stream.codec_context.frame_size / self.rate
        if kind == "mov" and stream.duration:
            return float((self._start + stream.duration) * stream.time_base)
        if kind == "matroska" and whole and len(self._container.streams) == 1:
            return whole / av.time_base
        return None


def _shape(frame: Any) -> tuple[int, int, str]:
    return frame.sample_rate, frame.layout.nb_channels, frame.format.name


def _gathered(frames: Iterable[Any], at_once: int, channels: int) -> Iterator[Block]:
    """Frames of one shape as blocks of about `at_once` samples: FFmpeg's own are tiny."""
    queue = av.AudioFifo()
    for frame in frames:
        frame.pts = None  # the queue would hold it to its time
        queue.write(frame)
        if queue.samples >= at_once:
            yield _as_block(queue.read(), channels)
    if queue.samples:
        yield _as_block(queue.read(), channels)


def _as_block(frame: Any, channels: int) -> Block:
    values = frame.to_ndarray()  # (channels, n) if planar, else (1, n * channels)
    return scaled(values.T if frame.format.is_planar else values.reshape(-1, channels))


def _xing_frames(file: BinaryIO) -> int | None:
    """The number of frames that the Xing header of an MP3 file states; leaves the file where it was."""
    place = file.tell()
    file.seek(0)
    head = file.read(10)
    tag = 0
    if head[:3] == b"ID3" and len(head) == 10:
        tag = 10 + sum(byte << shift for byte, shift in zip(head[6:], (21, 14, 7, 0), strict=True))
    file.seek(tag)
    found = _XING.search(file.read(_XING_WITHIN))
    file.seek(place)
    return int.from_bytes(found[1], "big") if found else None
