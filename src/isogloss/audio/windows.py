"""Long recordings window by window: decoded once, and no more than a window of them in memory.

    blocks ── windows of ten minutes ── speech between pauses ── what is unfinished goes into the next window
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from isogloss.audio.reading import SAMPLE_RATE, Waveform
from isogloss.audio.vad import Span, segment, speech_probabilities

WINDOW_SECONDS = 600.0
"""Of a long recording in memory while pauses are looked for."""
TAIL = 1.0
"""Speech that comes so near to a window's end may go on behind it; the next window begins with it…"""
LEAD = 0.5
"""… and with so much of the pause before, in which voice activity needs to settle."""


class Window(NamedTuple):
    """A stretch of a recording; the next one begins at `end`, which may lie before the end of the samples.

    start, end: seconds from the start of the recording. samples: (S,) at 16 kHz. probabilities: of speech in steps of
    32 ms. spans: what is said, in seconds from `start`.
    """

    start: float
    end: float
    samples: Waveform
    probabilities: NDArray[np.float32]
    spans: list[Span]


class Running:
    """A recording of which windows are asked for in order; they may overlap."""

    def __init__(self, blocks: Iterator[Waveform]):
        self._blocks = blocks
        self._held: Waveform = np.zeros(0, np.float32)
        self._at = 0

    def window(self, start: float, seconds: float = WINDOW_SECONDS) -> tuple[Waveform, bool]:
        """The samples from `start` on, (S,), of so many seconds at most, and whether they are the last.

        start: not before that of the window asked for before, and not behind its end.
        """
        count = round(seconds * SAMPLE_RATE)
        first = round(start * SAMPLE_RATE)
        parts = [self._held[first - self._at :]]
        while sum(map(len, parts)) <= count and (block := next(self._blocks, None)) is not None:
            parts.append(block)
        self._at, self._held = first, np.concatenate(parts)
        return self._held[:count], len(self._held) <= count


def speech_windows(
    window: Callable[[float], tuple[Waveform, bool]],
    max_seconds: float,
    *,
    max_pause: float = 2.0,
    pad: tuple[float, float] = (0.2, 0.2),
    probabilities: NDArray[np.float32] | None = None,
) -> Iterator[Window]:
    """The windows of a recording with what is said in them; no word is cut where a window ends.

    window: the samples from a time on, and whether they are the last, as of `Running.window`. max_seconds, max_pause,
    pad: as in `vad.segment`. probabilities: of a recording that is no longer than a window, if they are known.
    """
    start, last = 0.0, False
    while not last:
        samples, last = window(start)
        found = probabilities if last and start == 0.0 else None
        if found is None:
            (found,) = speech_probabilities([samples])
        spans = segment(samples, max_seconds, max_pause=max_pause, pad=pad, probabilities=found)
        seconds = len(samples) / SAMPLE_RATE
        end = start + seconds
        if not last and spans and spans[-1][1] > seconds - TAIL and spans[-1][0] > LEAD:
            begins, _ = spans.pop()
            end = start + max(begins - LEAD, spans[-1][1] if spans else 0.0)
        yield Window(start, end, samples, found, spans)
        start = end
