"""Recordings in pieces that are encoded at once, and batches of them.

    recording ── windows of ten minutes ── pauses ── pieces of at most 30 s ── groups ── batches

However long a recording is, no more than a window and a group of it are in memory.
"""

import os
from collections.abc import Iterable, Iterator
from collections.abc import Sequence as ListOf
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from isogloss.audio.channels import Channel
from isogloss.audio.reading import SAMPLE_RATE, Audio, as_waveform, estimated_seconds, read_blocks
from isogloss.audio.sources import DEFAULT_LIMITS, Limits
from isogloss.audio.vad import no_speech, speech_probabilities
from isogloss.audio.windows import WINDOW_SECONDS, Running, speech_windows
from isogloss.errors import AudioError
from isogloss.framing import Framing

LONGEST = 30.0
"""Seconds of audio encoded at once; longer audio is cut at pauses."""
PAUSE = 0.5
"""Seconds of a pause that parts two pieces; a piece holds no longer one."""
PAD = (0.15, 0.05)
"""Seconds before and after speech that stay with it: voice activity notices its beginning late, and its end too."""
GROUP_SECONDS = 600.0
"""Pieces among which batches of similar length are formed."""
TOLD_SECONDS = 60.0
"""The same where somebody waits for each segment."""
BATCH_SECONDS = 120.0
PADDING = 0.15


@dataclass(frozen=True)
class Piece:
    """A stretch of one recording that is encoded at once; times in seconds from the start of the recording.

    samples: at 16 kHz, with those behind its end that its last frame sees too, where frames go on. no_speech: the
    probability that nobody speaks in it; None where that was not looked for.
    """

    owner: int
    start: float
    end: float
    samples: NDArray[np.float32]
    no_speech: float | None = None


class Recordings:
    """Recordings to be read in pieces; what is short, or no path, is read at once, so that it is known to be whole.

    channels: of each, all mixed if not given. max_pause: seconds of the longest pause inside a piece. seconds: how long
    each is; of a long file, as far as it has been read. no_speech: the probability that nobody speaks in each, of
    those that were searched for speech. errors: what could not be read, with the reason. done, total: seconds handed
    out so far, and of all together as far as headers tell.
    """

    def __init__(self, audio: ListOf[Audio], *, channels: ListOf[Channel] = (), max_pause: float = PAUSE):
        self.channels = channels or ["mix"] * len(audio)
        self.max_pause = max_pause
        self.errors: dict[int, AudioError] = {}
        self.done = self.total = 0.0
        self._sources = [self._opened(owner, item) for owner, item in enumerate(audio)]
        self.seconds = [0.0 if isinstance(item, Path) else len(item) / SAMPLE_RATE for item in self._sources]
        self.no_speech: list[float | None] = [None] * len(audio)
        self._probabilities: list[NDArray[np.float32]] = []
        self._running = Running(iter(()))

    def __len__(self) -> int:
        return len(self._sources)

    def speech(self, group: float = GROUP_SECONDS) -> Iterator[list[Piece]]:
        """The stretches between pauses, of at most `LONGEST`; in groups of so many seconds."""
        self.done = 0.0
        self.no_speech = [None] * len(self)
        if not self._probabilities:
            # Side by side; of long files window by window.
            short = [np.zeros(0, np.float32) if isinstance(item, Path) else item for item in self._sources]
            whole = [item if len(item) <= WINDOW_SECONDS * SAMPLE_RATE else item[:0] for item in short]
            self._probabilities = speech_probabilities(whole)
        pieces = (piece for owner in range(len(self)) for piece in self._safely(owner, self._speech(owner)))
        return _groups(pieces, group)

    def even(self, framing: Framing, group: float = GROUP_SECONDS) -> Iterator[list[Piece]]:
        """Recordings in stretches of `LONGEST`, in groups of so many seconds; nothing is left out.

        framing: the frames of all stretches together are those of the whole recording, each at its time.
        """
        self.done = 0.0
        pieces = (piece for owner in range(len(self)) for piece in self._safely(owner, self._even(owner, framing)))
        return _groups(pieces, group)

    def _safely(self, owner: int, pieces: Iterator[Piece]) -> Iterator[Piece]:
        """The pieces of a recording until it breaks off."""
        if owner in self.errors:
            return
        try:
            yield from pieces
        except AudioError as error:
            self.errors[owner] = error

    def _speech(self, owner: int) -> Iterator[Piece]:
        known = self._probabilities[owner]
        windows = speech_windows(
            partial(self._window, owner),
            LONGEST,
            max_pause=self.max_pause,
            pad=PAD,
            probabilities=known if len(known) else None,
        )
        for window in windows:
            found, before = no_speech(window.probabilities), self.no_speech[owner]
            self.no_speech[owner] = found if before is None else min(before, found)
            for span in window.spans:
                likely = no_speech(window.probabilities, span)
                yield _cut(owner, window.samples, window.start, *span, no_speech=likely)
            self.done += window.end - window.start

    def _even(self, owner: int, framing: Framing) -> Iterator[Piece]:
        frames = round(LONGEST * SAMPLE_RATE) // framing.stride
        step = frames * framing.stride
        length = max(step, framing.least(frames))  # the last frame may see further than to the next stretch
        start, last = 0.0, False
        while not last:
            window, last = self._window(owner, start)
            least = framing.least(1) if start else 1
            cut = 0
            while len(window) - cut >= (least if last else length):
                end = min(cut + step, len(window))
                samples = window[cut : cut + length].copy()
                yield Piece(owner, start + cut / SAMPLE_RATE, start + end / SAMPLE_RATE, samples)
                cut, least = cut + step, framing.least(1)
            done = (len(window) if last else cut) / SAMPLE_RATE
            self.done += done
            start += done

    def _window(self, owner: int, start: float) -> tuple[NDArray[np.float32], bool]:
        """The samples from `start` on, (S,), and whether they are the last."""
        source = self._sources[owner]
        if not isinstance(source, Path):
            rest = source[round(start * SAMPLE_RATE) :]
            most = round(WINDOW_SECONDS * SAMPLE_RATE)
            return rest[:most], len(rest) <= most
        if start == 0.0:
            self._running = Running(read_blocks(source, channel=self.channels[owner]))
        window, last = self._running.window(start, WINDOW_SECONDS)
        self.seconds[owner] = max(self.seconds[owner], (round(start * SAMPLE_RATE) + len(window)) / SAMPLE_RATE)
        return window, last

    def _opened(self, owner: int, audio: Audio) -> Path | NDArray[np.float32]:
        """The path of a long file, else the samples; none of what cannot be read."""
        path = Path(audio) if isinstance(audio, (str, os.PathLike)) else None
        try:
            if path is not None and (seconds := estimated_seconds(path)) > WINDOW_SECONDS:
                self.total += seconds
                return path
            limits = DEFAULT_LIMITS if path is None else Limits(seconds=WINDOW_SECONDS)
            waveform: NDArray[np.float32] = as_waveform(audio, channel=self.channels[owner], limits=limits)
        except AudioError as error:
            if path is not None and error.cause == "too_long":  # whatever its header says
                return path
            self.errors[owner] = error
            return np.zeros(0, np.float32)
        self.total += len(waveform) / SAMPLE_RATE
        return waveform


def batches(pieces: list[Piece]) -> Iterator[list[Piece]]:
    """Pieces of similar length together, at most `BATCH_SECONDS` of padded audio each, `PADDING` of it in vain."""
    batch: list[Piece] = []
    samples = 0
    for piece in sorted(pieces, key=lambda part: len(part.samples)):
        padded = len(piece.samples) * (len(batch) + 1)
        samples += len(piece.samples)
        if batch and (padded > BATCH_SECONDS * SAMPLE_RATE or padded - samples > PADDING * padded):
            yield batch
            batch, samples = [], len(piece.samples)
        batch.append(piece)
    if batch:
        yield batch


def _groups(pieces: Iterable[Piece], most: float) -> Iterator[list[Piece]]:
    group: list[Piece] = []
    seconds = 0.0
    for piece in pieces:
        group.append(piece)
        seconds += piece.end - piece.start
        if seconds >= most:
            yield group
            group, seconds = [], 0.0
    if group:
        yield group


def _cut(
    owner: int,
    window: NDArray[np.float32],
    offset: float,
    start: float,
    end: float,
    no_speech: float | None = None,
) -> Piece:
    """What is said from `start` to `end` of a window that lies `offset` seconds into its recording."""
    # A copy: a piece must not keep its window in memory.
    samples = window[round(start * SAMPLE_RATE) : round(end * SAMPLE_RATE)].copy()
    return Piece(owner, offset + start, offset + start + len(samples) / SAMPLE_RATE, samples, no_speech)
