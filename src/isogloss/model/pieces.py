"""Recordings in pieces that are encoded at once, and batches of them."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from isogloss.audio.reading import SAMPLE_RATE
from isogloss.audio.vad import segment

LONGEST = 30.0
"""Seconds of audio encoded at once; longer audio is cut at pauses."""
BATCH_SECONDS = 120.0
SHORTEST = 640
"""Samples below which a piece is padded with silence: one encoder frame."""


@dataclass(frozen=True)
class Piece:
    """A stretch of one recording that is encoded at once."""

    owner: int
    start: float
    end: float
    samples: NDArray[np.float32]


def speech_pieces(recordings: list[NDArray[np.float32]]) -> list[Piece]:
    """Recordings whole, or cut at pauses where they are longer than `LONGEST`."""
    pieces = []
    for owner, waveform in enumerate(recordings):
        times = [(0.0, LONGEST)]
        if len(waveform) > LONGEST * SAMPLE_RATE:
            times = segment(waveform, max_seconds=LONGEST)
        pieces += [_cut(owner, waveform, start, end) for start, end in times]
    return pieces


def even_pieces(recordings: list[NDArray[np.float32]]) -> list[Piece]:
    """Recordings in stretches of `LONGEST`, nothing left out: frame n stays at n · 40 ms."""
    return [
        _cut(owner, waveform, start, start + LONGEST)
        for owner, waveform in enumerate(recordings)
        for start in np.arange(0.0, len(waveform) / SAMPLE_RATE, LONGEST).tolist()
    ]


def _cut(owner: int, waveform: NDArray[np.float32], start: float, end: float) -> Piece:
    samples = waveform[round(start * SAMPLE_RATE) : round(end * SAMPLE_RATE)]
    end = start + len(samples) / SAMPLE_RATE
    # A few samples are no frame; silence after them makes one.
    return Piece(owner, start, end, np.pad(samples, (0, max(0, SHORTEST - len(samples)))))


def batches(pieces: list[Piece]) -> Iterator[list[Piece]]:
    """Pieces of similar length together, at most `BATCH_SECONDS` of padded audio each."""
    batch: list[Piece] = []
    for piece in sorted(pieces, key=lambda part: len(part.samples)):
        if batch and len(piece.samples) * (len(batch) + 1) > BATCH_SECONDS * SAMPLE_RATE:
            yield batch
            batch = []
        batch.append(piece)
    if batch:
        yield batch
