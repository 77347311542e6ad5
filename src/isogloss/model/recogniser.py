"""`Recogniser`: a model put to use on audio of any kind and length."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Sequence as ListOf
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from isogloss.audio.reading import SAMPLE_RATE, Audio, as_waveform
from isogloss.audio.vad import segment
from isogloss.decoding.greedy import greedy
from isogloss.decoding.words import Word, words
from isogloss.errors import IsoglossError, did_you_mean
from isogloss.model.folder import load_model
from isogloss.model.model import Model
from isogloss.sequence import Sequence

LONGEST = 30.0
"""Seconds of audio encoded at once; longer audio is cut at pauses."""
BATCH_SECONDS = 120.0
SHORTEST = 640
"""Samples below which a piece is padded with silence: one encoder frame."""


@dataclass(frozen=True)
class Segment:
    """A stretch of speech; times in seconds from the start of the audio."""

    start: float
    end: float
    text: str
    words: tuple[Word, ...]
    confidence: float


@dataclass(frozen=True)
class Transcript:
    """What is said in one recording, and in which language."""

    text: str
    language: str | None
    seconds: float
    segments: tuple[Segment, ...]

    def plain(self) -> dict[str, Any]:
        """As plain data for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Identification:
    """Languages by falling probability."""

    language: str
    probabilities: dict[str, float]

    def plain(self) -> dict[str, Any]:
        """As plain data for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class _Piece:
    """A stretch of one recording that is encoded at once."""

    owner: int
    start: float
    samples: NDArray[np.float32]


class Recogniser:
    """Transcribes, identifies and encodes; made by `isogloss.load(folder)`.

    Every method takes one recording or a list of them, each a path, bytes of a file, a NumPy array
    or a tensor (mono at 16 kHz), or a pair (array, sample rate), and returns one result or a list.
    """

    def __init__(self, model: Model, device: torch.device | str = "cpu"):
        self.model = model.eval().to(device)
        self.device = torch.device(device)

    @property
    def languages(self) -> tuple[str, ...]:
        """The languages the model tells apart."""
        return self.model.config.languages

    @torch.inference_mode()
    def transcribe(self, audio: Audio | list[Audio], *, language: str | None = None) -> Any:
        """What is said: a `Transcript`, or a list of them.

        language: a BCP 47 tag the model knows; only symbols of that language's transcripts are
        then written, and the language is not guessed.
        """
        if not isinstance(audio, list):
            return self.transcribe([audio], language=language)[0]
        allowed = self._allowed(language)
        recordings = [as_waveform(item) for item in audio]
        segments: list[list[Segment]] = [[] for _ in recordings]
        votes = [torch.zeros(len(self.languages)) for _ in recordings]
        for pieces, states in self._encoded(_speech_pieces(recordings)):
            for piece, found in zip(pieces, self._segments(pieces, states, allowed), strict=True):
                if found.text:
                    segments[piece.owner].append(found)
            if self.model.language is not None and language is None:
                scores = self.model.language(states).log_softmax(dim=-1).cpu()
                for piece, score in zip(pieces, scores, strict=True):
                    votes[piece.owner] += score * (len(piece.samples) / SAMPLE_RATE)
        return [
            self._transcript(waveform, found, language or self._best(vote))
            for waveform, found, vote in zip(recordings, segments, votes, strict=True)
        ]

    @torch.inference_mode()
    def identify(self, audio: Audio | list[Audio]) -> Any:
        """Which language is spoken: an `Identification`, or a list of them."""
        if not isinstance(audio, list):
            return self.identify([audio])[0]
        if self.model.language is None:
            raise IsoglossError("This model does not identify languages; fine-tune it on more than one first.")
        recordings = [as_waveform(item) for item in audio]
        scores = torch.zeros(len(recordings), len(self.languages))
        heard = torch.zeros(len(recordings), 1)
        for pieces, states in self._encoded(_speech_pieces(recordings)):
            for piece, logits in zip(pieces, self.model.language(states).cpu(), strict=True):
                scores[piece.owner] += logits.log_softmax(dim=-1) * len(piece.samples)
                heard[piece.owner] += len(piece.samples)
        # Pieces of one recording vote by their length; silence between them has no vote.
        scores /= heard.clamp(min=1)
        return [self._identification(row) for row in scores.softmax(dim=-1)]

    @torch.inference_mode()
    def encode(self, audio: Audio | list[Audio], *, layer: int | None = None) -> Any:
        """Hidden states at 25 Hz, a tensor (T, D), or a list of them.

        layer: 0 for the input of the first block … the number of blocks; the last by default.
        """
        if not isinstance(audio, list):
            return self.encode([audio], layer=layer)[0]
        deepest = self.model.encoder.layers
        if layer is not None and not 0 <= layer <= deepest:
            raise IsoglossError(f"The encoder has no layer {layer}; give one from 0 to {deepest}.")
        recordings = [as_waveform(item) for item in audio]
        parts: list[list[tuple[float, Tensor]]] = [[] for _ in recordings]
        for pieces, states in self._encoded(_even_pieces(recordings), layer):
            for piece, item in zip(pieces, states.unpad(), strict=True):
                parts[piece.owner].append((piece.start, item.cpu()))
        return [torch.cat([item for _, item in sorted(part, key=lambda p: p[0])]) for part in parts]

    def _encoded(
        self, pieces_to_encode: list[_Piece], layer: int | None = None
    ) -> Iterator[tuple[list[_Piece], Sequence]]:
        for pieces in _batches(pieces_to_encode):
            audio = Sequence.from_list([torch.from_numpy(piece.samples) for piece in pieces]).to(self.device)
            features = self.model.frontend(audio)
            encoded = self.model.encoder(features, layers=() if layer is None else (layer,))
            yield pieces, encoded.final if layer is None else encoded.layers[layer]

    def _segments(self, pieces: ListOf[_Piece], states: Sequence, allowed: Tensor | None) -> list[Segment]:
        if self.model.ctc is None or self.model.tokenizer is None:
            raise IsoglossError("This model has no recogniser: it was pre-trained on speech alone; fine-tune it first.")
        scores = self.model.ctc(states)
        if allowed is not None:
            scores = scores.map(lambda values: values.masked_fill(~allowed, -torch.inf))
        found = []
        for piece, hypothesis in zip(pieces, greedy(scores), strict=True):
            spoken = words(hypothesis, self.model.tokenizer, self.model.frame_seconds, piece.start)
            found.append(
                Segment(
                    start=piece.start,
                    end=piece.start + len(piece.samples) / SAMPLE_RATE,
                    text=" ".join(word.text for word in spoken),
                    words=tuple(spoken),
                    confidence=hypothesis.confidence,
                )
            )
        return found

    def _allowed(self, language: str | None) -> Tensor | None:
        """(V,) bool, the symbols of a language's transcripts and blank; None without a language."""
        if language is None:
            return None
        alphabets = self.model.config.alphabets
        if language not in alphabets:
            raise IsoglossError(
                f'The model was not taught to write "{language}".{did_you_mean(language, alphabets)} '
                f"It writes: {', '.join(alphabets) or 'nothing'}."
            )
        allowed = torch.zeros(self.model.tokenizer.size if self.model.tokenizer else 0, dtype=torch.bool)
        allowed[[0, *alphabets[language]]] = True
        return allowed.to(self.device)

    def _transcript(self, waveform: NDArray[np.float32], found: list[Segment], language: str | None) -> Transcript:
        ordered = tuple(sorted(found, key=lambda part: part.start))
        text = " ".join(part.text for part in ordered)
        return Transcript(text, language, len(waveform) / SAMPLE_RATE, ordered)

    def _best(self, vote: Tensor) -> str | None:
        return self.languages[int(vote.argmax())] if self.model.language is not None else None

    def _identification(self, probabilities: Tensor) -> Identification:
        ranked = sorted(zip(self.languages, probabilities.tolist(), strict=True), key=lambda pair: -pair[1])
        return Identification(ranked[0][0], dict(ranked))


def load(folder: str | Path, device: torch.device | str = "cpu") -> Recogniser:
    """A model folder, ready to use; nothing is downloaded and nothing in it is executed."""
    return Recogniser(load_model(Path(folder)), device)


def _speech_pieces(recordings: list[NDArray[np.float32]]) -> list[_Piece]:
    """Recordings whole, or cut at pauses where they are longer than `LONGEST`."""
    pieces = []
    for owner, waveform in enumerate(recordings):
        times = [(0.0, LONGEST)]
        if len(waveform) > LONGEST * SAMPLE_RATE:
            times = segment(waveform, max_seconds=LONGEST)
        pieces += [_cut(owner, waveform, start, end) for start, end in times]
    return pieces


def _even_pieces(recordings: list[NDArray[np.float32]]) -> list[_Piece]:
    """Recordings in stretches of `LONGEST`, nothing left out: frame n stays at n · 40 ms."""
    return [
        _cut(owner, waveform, start, start + LONGEST)
        for owner, waveform in enumerate(recordings)
        for start in np.arange(0.0, len(waveform) / SAMPLE_RATE, LONGEST).tolist()
    ]


def _cut(owner: int, waveform: NDArray[np.float32], start: float, end: float) -> _Piece:
    samples = waveform[round(start * SAMPLE_RATE) : round(end * SAMPLE_RATE)]
    # A few samples are no frame; silence after them makes one.
    return _Piece(owner, start, np.pad(samples, (0, max(0, SHORTEST - len(samples)))))


def _batches(pieces: list[_Piece]) -> Iterator[list[_Piece]]:
    """Pieces of similar length together, at most `BATCH_SECONDS` of padded audio each."""
    batch: list[_Piece] = []
    for piece in sorted(pieces, key=lambda part: len(part.samples)):
        if batch and len(piece.samples) * (len(batch) + 1) > BATCH_SECONDS * SAMPLE_RATE:
            yield batch
            batch = []
        batch.append(piece)
    if batch:
        yield batch
