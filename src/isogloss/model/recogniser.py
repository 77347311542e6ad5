"""`Recogniser`: a model put to use on audio of any kind and length."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
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
from isogloss.decoding.beam import Beam
from isogloss.decoding.hotwords import Hotwords
from isogloss.decoding.hypothesis import Hypothesis
from isogloss.decoding.words import Word, words
from isogloss.errors import IsoglossError, did_you_mean
from isogloss.model.folder import load_model
from isogloss.model.model import Decoder, Model
from isogloss.model.streaming import WordStream
from isogloss.sequence import Sequence
from isogloss.text.ngram import load_ngram
from isogloss.text.tokenizers import digest

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
    """What is said in one recording, and in which language.

    probabilities: languages by falling probability; empty where the language was told, no speech
    was found or the model does not identify languages.
    """

    text: str
    language: str | None
    probabilities: dict[str, float]
    seconds: float
    segments: tuple[Segment, ...]

    def plain(self) -> dict[str, Any]:
        """As plain data for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Identification:
    """Languages by falling probability; None and empty where no speech was found."""

    language: str | None
    probabilities: dict[str, float]

    def plain(self) -> dict[str, Any]:
        """As plain data for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class _Piece:
    """A stretch of one recording that is encoded at once."""

    owner: int
    start: float
    end: float
    samples: NDArray[np.float32]


class Recogniser:
    """Transcribes, identifies and encodes; made by `isogloss.load(folder)`.

    Every method takes one recording or a list of them, each a path, bytes of a file, a NumPy array
    or a tensor (mono at 16 kHz), or a pair (array, sample rate), and returns one result or a list.
    """

    def __init__(self, model: Model, device: torch.device | str = "cpu", folder: Path | None = None):
        self.model = model.eval().to(device)
        self.device = torch.device(device)
        self.folder = folder

    @property
    def languages(self) -> tuple[str, ...]:
        """The languages the model tells apart."""
        return self.model.config.languages

    @torch.inference_mode()
    def transcribe(
        self,
        audio: Audio | list[Audio],
        *,
        language: str | None = None,
        decoder: Decoder | None = None,
        beam: Beam | None = None,
    ) -> Any:
        """What is said: a `Transcript`, or a list of them.

        language: a BCP 47 tag the model knows; only symbols of that language's transcripts are
        then written, and the language is not guessed. decoder: which head writes, one of
        `model.decoders`; by default the first. beam: a search, made by `beam`.
        """
        if not isinstance(audio, list):
            return self.transcribe([audio], language=language, decoder=decoder, beam=beam)[0]
        allowed = self._allowed(language)
        recordings = [as_waveform(item) for item in audio]
        segments: list[list[Segment]] = [[] for _ in recordings]
        votes = _Votes(len(recordings), self.languages)
        for pieces, states in self._encoded(_speech_pieces(recordings)):
            hypotheses = self.model.decode(states, decoder, allowed, beam)
            for piece, found in zip(pieces, self._segments(pieces, hypotheses), strict=True):
                if found.text:
                    segments[piece.owner].append(found)
            if self.model.language is not None and language is None:
                votes.add(pieces, self.model.language(states))
        return [
            _transcript(waveform, found, language, probabilities)
            for waveform, found, probabilities in zip(recordings, segments, votes.counted(), strict=True)
        ]

    def beam(
        self,
        width: int = 8,
        *,
        language_model: Path | None = None,
        weight: float = 0.5,
        bonus: float = 0.5,
        hotwords: ListOf[str] = (),
        hotword_bonus: float = 1.5,
    ) -> Beam:
        """A search for `transcribe`: slower than deciding frame by frame, and it may know the language.

        width: texts that go on from frame to frame. language_model: a folder made by `isogloss lm` for
        this model, of this weight; bonus: nats a symbol, against its wish for short texts. hotwords: words
        likelier to be said than the model thinks, by so many nats a symbol.
        """
        if width < 1:
            raise IsoglossError(f"A beam of {width} holds nothing; give 1 or more.")
        given = None
        if language_model is not None:
            if self.folder is None:
                raise IsoglossError("A language model needs a recogniser that was loaded from a folder.")
            given = load_ngram(language_model, digest(self.folder))
        words = [self.model.tokens(word) for word in hotwords]
        for word, tokens in zip(hotwords, words, strict=True):
            if not tokens:
                raise IsoglossError(f'The hotword "{word}" has no letters.')
        favoured = Hotwords(words, hotword_bonus) if words else None
        return Beam(width, language_model=given, weight=weight, bonus=bonus if given else 0.0, hotwords=favoured)

    def listen(
        self,
        pieces: Iterable[NDArray[np.float32]],
        *,
        language: str | None = None,
        decoder: Decoder | None = None,
    ) -> Iterator[Word]:
        """Each word of one recording as soon as the next has begun, while the recording arrives.

        pieces: samples at 16 kHz, (S,) each. The words are those of `transcribe` on the whole, as far
        as that does not cut it at pauses; see `WordStream`. Raises IsoglossError for a model that
        needs what has not arrived yet.
        """
        stream = WordStream(self.model, decoder, self._allowed(language))
        for samples in pieces:
            yield from stream.feed(torch.from_numpy(samples).to(self.device))
        yield from stream.finish()

    @torch.inference_mode()
    def identify(self, audio: Audio | list[Audio]) -> Any:
        """Which language is spoken: an `Identification`, or a list of them."""
        if not isinstance(audio, list):
            return self.identify([audio])[0]
        if self.model.language is None:
            raise IsoglossError("This model does not identify languages; fine-tune it on more than one first.")
        recordings = [as_waveform(item) for item in audio]
        votes = _Votes(len(recordings), self.languages)
        for pieces, states in self._encoded(_speech_pieces(recordings)):
            votes.add(pieces, self.model.language(states))
        return [Identification(next(iter(found), None), found) for found in votes.counted()]

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

    def _segments(self, pieces: ListOf[_Piece], hypotheses: list[Hypothesis]) -> list[Segment]:
        assert self.model.tokenizer is not None
        found = []
        for piece, hypothesis in zip(pieces, hypotheses, strict=True):
            spoken = words(hypothesis, self.model.tokenizer, self.model.frame_seconds, piece.start, piece.end)
            found.append(
                Segment(
                    start=piece.start,
                    end=piece.end,
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


def load(folder: str | Path, device: torch.device | str = "cpu") -> Recogniser:
    """A model folder, ready to use; nothing is downloaded and nothing in it is executed."""
    return Recogniser(load_model(Path(folder)), device, Path(folder))


class _Votes:
    """Which language each recording is in: its pieces vote by their length; silence between them has no vote."""

    def __init__(self, recordings: int, languages: tuple[str, ...]):
        self.languages = languages
        self.scores = torch.zeros(recordings, len(languages))
        self.heard = torch.zeros(recordings)

    def add(self, pieces: list[_Piece], logits: Tensor) -> None:
        """logits: (pieces, languages)."""
        for piece, score in zip(pieces, logits.log_softmax(dim=-1).cpu(), strict=True):
            self.scores[piece.owner] += score * len(piece.samples)
            self.heard[piece.owner] += len(piece.samples)

    def counted(self) -> list[dict[str, float]]:
        """Languages by falling probability, a dictionary a recording; empty where nothing voted."""
        shares = (self.scores / self.heard.clamp(min=1)[:, None]).softmax(dim=-1).tolist()
        ranked = [sorted(zip(self.languages, row, strict=True), key=lambda pair: -pair[1]) for row in shares]
        return [dict(row) if heard else {} for row, heard in zip(ranked, self.heard.tolist(), strict=True)]


def _transcript(
    waveform: NDArray[np.float32], found: list[Segment], told: str | None, probabilities: dict[str, float]
) -> Transcript:
    ordered = tuple(sorted(found, key=lambda part: part.start))
    return Transcript(
        text=" ".join(part.text for part in ordered),
        language=told or next(iter(probabilities), None),
        probabilities=probabilities,
        seconds=len(waveform) / SAMPLE_RATE,
        segments=ordered,
    )


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
    end = start + len(samples) / SAMPLE_RATE
    # A few samples are no frame; silence after them makes one.
    return _Piece(owner, start, end, np.pad(samples, (0, max(0, SHORTEST - len(samples)))))


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
