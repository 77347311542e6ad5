"""What a file is made of, whatever its headers say: joined files and headers that were never finished.

    chained Ogg, joined FLAC, joined WAV     one part for each, which is a file of its own
    WAV, AU with a wrong size                one part with a corrected header, to the end of the file

Vorbis, Opus and FLAC in Ogg chain: RFC 3533, section 4. A recorder writes the size of a WAV or AU file
when it stops; until then, and for ever if it dies, it is 0, or what it was at the last save.
"""

import io
import mmap
import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO

from isogloss.audio.sources import Content, once_per_file

# "OggS", version 0, first page of a logical stream, position 0; and "fLaC" with a STREAMINFO of 34 bytes.
_OGG = re.compile(rb"OggS\0[\x02\x06]\0{8}.{13}", re.DOTALL)
_FLAC = re.compile(rb"fLaC[\0\x80]\0\0\x22")
_NAME = re.compile(rb"[ -~]{4}")
_CHUNKS = 1000  # of a WAV file that are looked at
_SHAPE = 1000  # bytes of a fmt chunk; 16 to 40 are usual
_TRAILER = 0.1  # seconds after the audio that may be padding or a tag, and no audio
_UNKNOWN = 0x7FFF0000  # sizes from here on are marks of a file written to a pipe


@dataclass(frozen=True)
class Part:
    """A file inside a file: `head`, then the bytes [begin, end) of the content."""

    begin: int
    end: int
    head: bytes = b""


@once_per_file
def parts(content: Content) -> list[Part]:
    """The parts of a file in order; one without a head that holds all of it where there is nothing to mend.

    Costs a search through the whole of an Ogg or FLAC file (1 ms a MB), else a look at the headers.
    """
    magic = content.head[:4]
    if magic in (b"RIFF", b"RF64"):
        return _wav_parts(content)
    if magic == b".snd":
        return [_au_part(content)]
    starts = [0]
    if magic == b"OggS":
        starts = _ogg_links(content)
    elif magic == b"fLaC":
        with _whole(content) as data:
            starts = [found.start() for found in _FLAC.finditer(data)] or [0]
    return [Part(*span) for span in zip(starts, [*starts[1:], content.size], strict=True)]


class PartFile(io.RawIOBase):
    """A part as a file of its own, as soundfile and PyAV read files."""

    def __init__(self, file: BinaryIO, part: Part):
        self._file = file
        self._part = part
        self._position = 0
        self._size = len(part.head) + part.end - part.begin

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = max(0, start + offset)
        return self._position

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        head = self._part.head
        if self._position < len(head):
            data = head[self._position : self._position + len(buffer)]
        else:
            behind = self._position - len(head)
            self._file.seek(self._part.begin + behind)
            data = self._file.read(min(len(buffer), max(0, self._part.end - self._part.begin - behind)))
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)


@contextmanager
def _whole(content: Content) -> Iterator[bytes | mmap.mmap]:
    """All bytes of a file, without holding those of a long one in memory."""
    if isinstance(content.file, io.BytesIO):
        yield content.file.getvalue()
    elif content.key is None:
        yield content.at(0, content.size)
    else:
        with mmap.mmap(content.file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            yield mapped


def _ogg_links(content: Content) -> list[int]:
    """Where the links of a chain begin: streams that run side by side, as sound and picture do, are one link."""
    links, beside = [0], 0
    with _whole(content) as data:
        for page in [found.start() for found in _OGG.finditer(data)]:
            if page not in (0, beside):
                links.append(page)
            table = data[page + 27 : page + 27 + data[page + 26]]  # lengths of the segments of the page
            beside = page + 27 + len(table) + sum(table)
    return links


def _wav_parts(content: Content) -> list[Part]:
    """The WAV files that lie one behind the other, the last one up to the end."""
    found, begin = [], 0
    while data := _wav_data(content, begin):
        start, stated, shape = data
        a_second = int.from_bytes(content.at(shape[0] + 8, 4), "little")
        following = _after_chunks(content, start + stated)
        if _is_wav(content, following):
            found.append(Part(begin, following))
            begin = following
        elif stated >= _UNKNOWN or following >= content.size - (_TRAILER * a_second if stated else 0):
            break
        else:
            head = _wav_head(content.at(*shape), content.size - start)
            return [*found, Part(start, content.size, head)]
    return [*found, Part(begin, content.size)]


def _wav_data(content: Content, begin: int) -> tuple[int, int, tuple[int, int]] | None:
    """Where the audio of the WAV file at `begin` starts, how many bytes its header states, and where
    the chunk lies that tells the format, with its size."""
    chunks = {}
    for name, start, stated in _chunks(content, begin + 12):
        chunks[name] = start, stated
        if name == b"data" and b"fmt " in chunks and chunks[b"fmt "][1] <= _SHAPE:
            if stated == 0xFFFFFFFF and b"ds64" in chunks:  # RF64 keeps the size elsewhere
                stated = int.from_bytes(content.at(chunks[b"ds64"][0] + 8, 8), "little")
            return start, stated, chunks[b"fmt "]
    return None


def _after_chunks(content: Content, position: int) -> int:
    """Where a row of chunks, which may be none, stops being one: there are four letters in audio, too."""
    position += position % 2
    for _, start, stated in _chunks(content, position):
        if start + stated > content.size:
            break
        position = start + stated + stated % 2
    return position


def _chunks(content: Content, position: int) -> Iterator[tuple[bytes, int, int]]:
    """(name, where its content starts, size) of RIFF chunks, as long as that is what they are."""
    for _ in range(_CHUNKS):
        head = content.at(position, 8)
        name, stated = head[:4], int.from_bytes(head[4:], "little")
        if len(head) < 8 or name == b"RIFF" or not _NAME.fullmatch(name):
            return
        yield name, position + 8, stated
        position += 8 + stated + stated % 2


def _is_wav(content: Content, position: int) -> bool:
    head = content.at(position, 12)
    return head[:4] == b"RIFF" and head[8:] == b"WAVE"


def _wav_head(shape: bytes, size: int) -> bytes:
    """The header of a WAV file of this format with `size` bytes of audio."""
    shape = b"fmt " + struct.pack("<I", len(shape)) + shape + bytes(len(shape) % 2)
    riff = struct.pack("<4sI4s", b"RIFF", min(12 + len(shape) + size, 0xFFFFFFFF), b"WAVE")
    return riff + shape + struct.pack("<4sI", b"data", min(size, 0xFFFFFFFF))


def _au_part(content: Content) -> Part:
    start, stated, _, rate = struct.unpack(">IIII", content.at(4, 16).ljust(16, b"\xff"))
    if start + stated >= content.size - (_TRAILER * rate if stated else 0):
        return Part(0, content.size)
    return Part(12, content.size, content.head[:8] + b"\xff" * 4)
