"""What a recogniser answers: transcripts of recordings and the languages spoken in them."""

from __future__ import annotations

from collections.abc import Sequence as ListOf
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from isogloss.decoding.words import Word
from isogloss.model.pieces import Piece


@dataclass(frozen=True)
class Alternative:
    """What might have been said, and the score that a beam search ranked it by, in nats."""

    text: str
    score: float


@dataclass(frozen=True)
class Segment:
    """A stretch of speech; times in seconds from the start of the audio.

    alternatives: the likeliest texts, the best first, where a beam was asked for more than one. phonemes: how it
    sounds, in the International Phonetic Alphabet, where the model writes that too. no_speech: the probability that
    nobody speaks in it; None where that was not looked for.
    """

    start: float
    end: float
    text: str
    words: tuple[Word, ...]
    confidence: float
    alternatives: tuple[Alternative, ...] = ()
    phonemes: str = ""
    no_speech: float | None = None


@dataclass(frozen=True)
class Transcript:
    """What is said in one recording, and in which language.

    probabilities: languages by falling probability; empty where the language was told, no speech
    was found or the model does not identify languages. no_speech: the probability that nobody speaks;
    None where that was not looked for.
    """

    text: str
    language: str | None
    probabilities: dict[str, float]
    seconds: float
    segments: tuple[Segment, ...]
    no_speech: float | None = None

    @property
    def words(self) -> list[Word]:
        """The words of all segments."""
        return [word for part in self.segments for word in part.words]

    def plain(self) -> dict[str, Any]:
        """As plain data for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Identification:
    """Languages by falling probability; None and empty where no speech was found. no_speech: as of a transcript."""

    language: str | None
    probabilities: dict[str, float]
    no_speech: float | None = None

    def plain(self) -> dict[str, Any]:
        """As plain data for JSON."""
        return asdict(self)


class LanguageScores:
    """Which language each recording is in: the mean of what its pieces say, weighted by their length."""

    def __init__(self, recordings: int, languages: ListOf[str]):
        self.languages = languages
        self._scores = torch.zeros(recordings, len(languages))
        self._samples = torch.zeros(recordings)

    def add(self, piece: Piece, scores: Tensor) -> None:
        """scores: (languages,) log-probabilities."""
        self._scores[piece.owner] += scores * len(piece.samples)
        self._samples[piece.owner] += len(piece.samples)

    def probabilities(self) -> list[dict[str, float]]:
        """Languages by falling probability, a dictionary a recording; empty where nothing was added."""
        shares = (self._scores / self._samples.clamp(min=1)[:, None]).softmax(dim=-1).tolist()
        ranked = [sorted(zip(self.languages, row, strict=True), key=lambda pair: -pair[1]) for row in shares]
        return [dict(row) if samples else {} for row, samples in zip(ranked, self._samples.tolist(), strict=True)]


def transcript(
    seconds: float,
    segments: ListOf[Segment],
    language: str | None,
    probabilities: dict[str, float],
    no_speech: float | None,
) -> Transcript:
    """The segments of a recording in order. language: if it was told."""
    ordered = tuple(sorted(segments, key=lambda part: part.start))
    return Transcript(
        text=" ".join(part.text for part in ordered),
        language=language or next(iter(probabilities), None),
        probabilities=probabilities,
        seconds=seconds,
        segments=ordered,
        no_speech=no_speech,
    )
