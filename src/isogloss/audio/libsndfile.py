"""Audio that libsndfile decodes: WAV, AIFF, AU, CAF, FLAC, Ogg and more; except in Ogg it seeks to the exact frame."""

import io
import re
from collections.abc import Iterator
from typing import BinaryIO

import soundfile as sf

from isogloss.audio.blocks import BLOCK_VALUES, SLACK, Block, breaks_off, conformed, trimmed

_UNSTATED = 1 << 62  # libsndfile's mark for a FLAC file that was written to a pipe
_STEP = 4096  # frames decoded at once where it matters after which of them decoding fails


class Unknown(Exception):
    """libsndfile cannot decode it, or should not."""


class _Stream(sf.SoundFile):
    """Read from where it is: of a file that can seek, soundfile asks for and restores the position at each read."""

    def seekable(self) -> bool:
        return False


class Sndfile:
    """A `blocks.Decoder` of what libsndfile can be trusted with; raises Unknown for everything else."""

    frames: int

    def __init__(self, name: str, file: BinaryIO):
        self._name = name
        self._source = file
        self._at = 0
        self._file = self._open()
        # What libmpg123 has to say about MP3, it writes to standard error.
        if self._file.subtype.startswith("MPEG") or self._file.frames >= _UNSTATED:
            raise Unknown
        self.rate = self._file.samplerate
        self.channels = self._file.channels
        self.frames = self._file.frames
        self.stated = self.frames / self.rate
        # In Ogg, seeking into the last page gives other samples than are there (libsndfile 1.2.2).
        self.seeks = sf.SoundFile.seekable(self._file) and self._file.format != "OGG"
        states_size = self._file.format in ("WAV", "WAVEX", "RF64", "AIFF", "AU")
        self._promised = _promised(self._file.extra_info, self.frames) if states_size else self.frames

    @property
    def format(self) -> str:
        return f"{self._file.format}/{self._file.subtype}"

    def claims(self, most: float) -> float:
        return self.stated

    def count(self) -> int:
        if self._file.format == "FLAC":  # the header of a cut one still states the whole: is the last frame there?
            for _ in self._decoded(max(0, self.frames - 1), self.frames):
                pass
        self._check(self.frames, self._promised)
        return self.frames

    def blocks(self, begin: int, end: int | None) -> Iterator[Block]:
        last = self.frames if end is None else min(end, self.frames)
        # Samples of GSM 6.10 and G.721 need all those before them.
        first = begin if self.seeks else 0
        yield from trimmed(self._decoded(first, last), begin - first, None)
        if end is None:
            self._check(self.frames, self._promised)

    def _decoded(self, begin: int, end: int) -> Iterator[Block]:
        size = max(1, BLOCK_VALUES // self.channels)
        try:
            self._go_to(begin)
            while self._at < end and len(block := self._read(min(size, end - self._at))):
                self._at += len(block)
                yield block
        except sf.LibsndfileError:
            if self._file.format != "OGG":
                raise breaks_off(self._name, self._decodable() / self.rate, self.frames / self.rate) from None
            # libsndfile gives up on some Opus that others decode; what it has decoded is kept.
            yield from self._by_ffmpeg(self._at, end)
            return
        self._check(self._at, end)

    def _go_to(self, frame: int) -> None:
        if frame != self._at:
            if self.seeks:
                self._file.seek(frame)
            else:
                self._file = self._open()
            self._at = frame

    def _check(self, decoded: int, end: int) -> None:
        if end - decoded > SLACK * self.rate:
            raise breaks_off(self._name, decoded / self.rate, self._promised / self.rate)

    def _read(self, count: int) -> Block:
        return self._file.read(count, dtype="float32", always_2d=True)

    def _by_ffmpeg(self, position: int, end: int) -> Iterator[Block]:
        from isogloss.audio.ffmpeg import FFmpeg

        return conformed(FFmpeg(self._name, self._source), self.rate, self.channels, position, end)

    def _decodable(self) -> int:
        """Frames before the place where decoding fails; costs a decode."""
        self._file = self._open()
        count = 0
        try:
            while done := len(self._read(_STEP)):
                count += done
        except sf.LibsndfileError:
            pass
        return count

    def _open(self) -> _Stream:
        self._source.seek(0)
        file = self._source.fileno() if isinstance(self._source, io.FileIO) else self._source
        try:
            return _Stream(file, closefd=False)
        except sf.LibsndfileError:
            raise Unknown from None


def _promised(log: str, frames: int) -> int:
    """How many frames the header of a WAV, AIFF or AU file states, which may be more than are there.

    libsndfile shortens such files silently and tells only its log. A size near 2 or 4 GiB is the
    mark of a file that was written to a pipe, and promises nothing.
    """
    found = re.search(r"^ *(?:data|SSND|Data Size) *: (\d+) \(should be (\d+)\)", log, re.MULTILINE)
    if not found:
        return frames
    stated, present = int(found[1]), int(found[2])
    if not present < stated < 0x7FFF0000:
        return frames
    return round(frames * stated / present) if present else frames + stated
