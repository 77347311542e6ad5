"""Who decodes a file: numpy plain WAV, libsndfile what it can be trusted with, FFmpeg the rest.

Each part of a joined file is decoded by itself.
"""

from collections.abc import Iterator
from typing import BinaryIO, cast

from isogloss.audio.blocks import Block, Decoder, conformed
from isogloss.audio.libsndfile import Sndfile, Unknown
from isogloss.audio.parts import Part, PartFile, parts
from isogloss.audio.plain_wav import PlainWav
from isogloss.audio.sources import Content


def decoder(content: Content) -> Decoder:
    """The decoder of an opened source; raises AudioError for what is no audio."""
    if (plain := PlainWav.of(content)) is not None:
        return plain
    found = parts(content)
    if found == [Part(0, content.size)]:
        return _decoder(content.name, content.file, content.head)
    files = (cast(BinaryIO, PartFile(content.file, part)) for part in found)
    each = [_decoder(content.name, file, file.read(3)) for file in files]
    return each[0] if len(each) == 1 else Joined(each)


def _decoder(name: str, file: BinaryIO, head: bytes) -> Decoder:
    # libmpg123, which libsndfile gives MP3 to, believes the header and writes to standard error.
    if head[:3] != b"ID3" and not (head[:1] == b"\xff" and head[1:2] >= b"\xe0"):
        try:
            return Sndfile(name, file)
        except Unknown:
            pass
    from isogloss.audio.ffmpeg import FFmpeg  # takes a tenth of a second to import

    return FFmpeg(name, file)


class Joined:
    """Several decoders one after the other, at the rate and with the channels of the first."""

    frames: int

    def __init__(self, each: list[Decoder]):
        self._each = each
        self.rate = each[0].rate
        self.channels = each[0].channels
        self.format = each[0].format
        self._lengths = [round(one.count() * self.rate / one.rate) for one in each]
        self.frames = sum(self._lengths)
        self.stated = self.frames / self.rate
        self.seeks = all(one.seeks for one in each)

    def claims(self, most: float) -> float:
        return self.stated

    def count(self) -> int:
        return self.frames

    def blocks(self, begin: int, end: int | None) -> Iterator[Block]:
        last = self.frames if end is None else end
        offset = 0
        for one, length in zip(self._each, self._lengths, strict=True):
            span = max(begin - offset, 0), min(last - offset, length)
            if span[0] < span[1]:
                yield from conformed(one, self.rate, self.channels, *span)
            offset += length
