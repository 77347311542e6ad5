"""What all decoders have in common: audio as a stream of blocks (n, channels) float32, whatever its length."""

from collections.abc import Iterator
from typing import Protocol

import numpy as np
import soxr
from numpy.typing import NDArray

from isogloss.errors import AudioError

Block = NDArray[np.float32]

BLOCK_VALUES = 1 << 22  # frames x channels decoded at once: 16 MB
SLACK = 0.1  # seconds a file may lack of what it promises: sloppy headers are common


class Decoder(Protocol):
    """One source of audio, at one rate and with one number of channels."""

    @property
    def rate(self) -> int:
        """Frames a second."""

    @property
    def channels(self) -> int: ...

    @property
    def format(self) -> str:
        """Container and codec, as in WAV/PCM_16."""

    @property
    def frames(self) -> int | None:
        """How many there are for each channel; None where only decoding tells."""

    @property
    def stated(self) -> float | None:
        """Seconds by the header, right or wrong; None where it does not tell."""

    @property
    def seeks(self) -> bool:
        """Whether blocks from the middle on cost no decoding of what lies before."""

    def claims(self, most: float) -> float:
        """Seconds by all that can be known without decoding, right or wrong; beyond `most` any larger number."""

    def count(self) -> int:
        """The true number of frames; raises AudioError where the file is cut or damaged."""

    def blocks(self, begin: int, end: int | None) -> Iterator[Block]:
        """Frames [begin, end), or all from `begin` on.

        There are fewer where the file has no more; raises AudioError where it is cut or damaged before `end`.
        """


def trimmed(blocks: Iterator[Block], skip: int, count: int | None) -> Iterator[Block]:
    """The stream without its first `skip` frames, and of the rest at most `count`."""
    for block in blocks:
        block, skip = block[skip:], max(0, skip - len(block))
        if count is not None:
            block = block[:count]
            count -= len(block)
        if len(block):
            yield block
        if count == 0:
            return


def resampled(blocks: Iterator[Block], source: int, target: int, channels: int) -> Iterator[Block]:
    """The stream at `target` Hz (soxr, high quality)."""
    if source == target:
        yield from blocks
        return
    stream = soxr.ResampleStream(source, target, channels, quality="HQ")
    block = None
    for block in blocks:
        yield stream.resample_chunk(block)
    if block is not None:
        yield stream.resample_chunk(block[:0], last=True)


def conformed(decoder: Decoder, rate: int, channels: int, begin: int, end: int) -> Iterator[Block]:
    """Frames [begin, end) of a decoder, counted at another rate, with another number of channels."""
    if decoder.rate == rate:
        blocks = decoder.blocks(begin, end)
    else:
        whole = decoder.blocks(0, None)
        blocks = trimmed(resampled(whole, decoder.rate, rate, decoder.channels), begin, end - begin)
    return (spread(block, channels) for block in blocks)


def spread(block: Block, channels: int) -> Block:
    """The same sound in another number of channels."""
    if block.shape[1] == channels:
        return block
    return np.repeat(block.mean(axis=1, keepdims=True), channels, axis=1)


def breaks_off(name: str, seconds: float, promised: float | None = None) -> AudioError:
    """What is said of a file that cannot be decoded beyond `seconds`."""
    of = "" if promised is None else f" of {promised:.2f} s"
    return AudioError(
        f"{name} is cut or damaged: only its first {seconds:.2f} s{of} can be decoded. "
        "Give a complete copy, or convert what is there (ffmpeg -i FILE PART.wav).",
        "truncated",
    )
