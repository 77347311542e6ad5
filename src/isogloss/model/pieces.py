"""Recordings in pieces that are encoded at once, and batches of them.

    recording ── windows of ten minutes ── pauses ── pieces of at most 30 s ── groups ── batches

However long a recording is, no more than a window and a group of it are in memory.
"""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from isogloss.audio.reading import SAMPLE_RATE, Audio, as_waveform, info, read
from isogloss.audio.vad import segment

LONGEST = 30.0
"""Seconds of audio encoded at once; longer audio is cut at pauses."""
WINDOW_SECONDS = 600.0
"""Of a long recording in memory while pauses are looked for."""
TAIL = 1.0
"""Speech that comes so near to a window's end may go on behind it; the next window begins with it."""
GROUP_SECONDS = 600.0
"""Pieces among which batches of similar length are formed."""
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


class Recordings:
    """Recordings to be read in pieces; what is short, or no path, is read at once, so that it is known to be whole.

    seconds: how long each is; of a long file, as far as it has been read.
    """

    def __init__(self, audio: list[Audio]):
        self._sources = [_long_file(item) or as_waveform(item) for item in audio]
        self.seconds = [0.0 if isinstance(item, Path) else len(item) / SAMPLE_RATE for item in self._sources]

    def __len__(self) -> int:
        return len(self._sources)

    def speech(self) -> Iterator[list[Piece]]:
        """Recordings whole, or cut at pauses where they are longer than `LONGEST`; in groups."""
        return _groups(piece for owner in range(len(self)) for piece in self._speech(owner))

    def even(self) -> Iterator[list[Piece]]:
        """Recordings in stretches of `LONGEST`, nothing left out: frame n stays at n · 40 ms; in groups."""
        return _groups(piece for owner in range(len(self)) for piece in self._even(owner))

    def _speech(self, owner: int) -> Iterator[Piece]:
        start = 0.0
        while True:
            window, last = self._window(owner, start)
            seconds = len(window) / SAMPLE_RATE
            if last and start == 0.0 and seconds <= LONGEST:
                yield _cut(owner, window, 0.0, 0.0, LONGEST)
                return
            times = segment(window, max_seconds=LONGEST)
            following = start + seconds
            if not last and times and times[-1][1] > seconds - TAIL and times[-1][0] > 0:
                following = start + times.pop()[0]
            yield from (_cut(owner, window, start, *span) for span in times)
            if last:
                return
            start = following

    def _even(self, owner: int) -> Iterator[Piece]:
        start, last = 0.0, False
        while not last:
            window, last = self._window(owner, start)
            for offset in np.arange(0.0, len(window) / SAMPLE_RATE, LONGEST).tolist():
                yield _cut(owner, window, start, offset, offset + LONGEST)
            start += WINDOW_SECONDS

    def _window(self, owner: int, start: float) -> tuple[NDArray[np.float32], bool]:
        """The samples from `start` on, (S,), and whether they are the last."""
        source = self._sources[owner]
        if not isinstance(source, Path):
            rest = source[round(start * SAMPLE_RATE) :]
            most = round(WINDOW_SECONDS * SAMPLE_RATE)
            return rest[:most], len(rest) <= most
        last = info(source).seconds - start <= WINDOW_SECONDS
        window = read(source, start=start, duration=None if last else WINDOW_SECONDS)
        self.seconds[owner] = max(self.seconds[owner], start + len(window) / SAMPLE_RATE)
        return window, last


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


def _groups(pieces: Iterable[Piece]) -> Iterator[list[Piece]]:
    group: list[Piece] = []
    seconds = 0.0
    for piece in pieces:
        group.append(piece)
        seconds += piece.end - piece.start
        if seconds >= GROUP_SECONDS:
            yield group
            group, seconds = [], 0.0
    if group:
        yield group


def _cut(owner: int, window: NDArray[np.float32], offset: float, start: float, end: float) -> Piece:
    """What is said from `start` to `end` of a window that lies `offset` seconds into its recording."""
    # A copy: a piece must not keep its window in memory.
    samples = window[round(start * SAMPLE_RATE) : round(end * SAMPLE_RATE)].copy()
    end = start + len(samples) / SAMPLE_RATE
    # A few samples are no frame; silence after them makes one.
    return Piece(owner, offset + start, offset + end, np.pad(samples, (0, max(0, SHORTEST - len(samples)))))


def _long_file(audio: Audio) -> Path | None:
    """The path of a file that is not to be read at once."""
    if isinstance(audio, (str, os.PathLike)) and info(Path(audio)).seconds > WINDOW_SECONDS:
        return Path(audio)
    return None
