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

from isogloss.audio.reading import Audio
from isogloss.decoding.beam import Beam
from isogloss.decoding.hotwords import Hotwords
from isogloss.decoding.hypothesis import Hypothesis
from isogloss.decoding.symbols import Symbols
from isogloss.decoding.words import Word
from isogloss.errors import IsoglossError, did_you_mean
from isogloss.model.folder import load_model
from isogloss.model.model import Model
from isogloss.model.pieces import Piece, Recordings, batches
from isogloss.model.streaming import WordStream
from isogloss.nn.adapters import nearest
from isogloss.sequence import Sequence
from isogloss.text.ngram import NGram, load_ngram
from isogloss.text.tokenizers import digest


@dataclass(frozen=True)
class Alternative:
    """What might have been said, and the score that a beam search ranked it by, in nats."""

    text: str
    score: float


@dataclass(frozen=True)
class Segment:
    """A stretch of speech; times in seconds from the start of the audio.

    alternatives: the likeliest texts, the best first, where a beam was asked for more than one. phonemes: how it
    sounds, in the International Phonetic Alphabet, where the model writes that too.
    """

    start: float
    end: float
    text: str
    words: tuple[Word, ...]
    confidence: float
    alternatives: tuple[Alternative, ...] = ()
    phonemes: str = ""


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

    @property
    def words(self) -> list[Word]:
        """The words of all segments."""
        return [word for part in self.segments for word in part.words]

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


class Recogniser:
    """Transcribes, identifies and encodes; made by `isogloss.load(folder)`.

    Every method takes one recording or a list of them, each a path, bytes of a file, a NumPy array
    or a tensor (mono at 16 kHz), or a pair (array, sample rate), and returns one result or a list.
    """

    def __init__(
        self,
        model: Model,
        device: torch.device | str = "cpu",
        folder: Path | None = None,
        adapted: ListOf[Model] = (),
    ):
        self.model = model.eval().to(device)
        self.device = torch.device(device)
        self.folder = folder
        self.adapted = [other.eval().to(device) for other in adapted]
        self._symbols: dict[tuple[Model, str | None], Symbols] = {}

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
        decoder: str | None = None,
        beam: Beam | None = None,
    ) -> Any:
        """What is said: a `Transcript`, or a list of them.

        language: a BCP 47 tag the model knows; only symbols of that language's transcripts are
        then written, and the language is not guessed. decoder: which head writes, one of
        `model.decoders`; by default the first. beam: a search, made by `beam`.
        """
        if not isinstance(audio, list):
            return self.transcribe([audio], language=language, decoder=decoder, beam=beam)[0]
        self._allowed(self._model_for(language), language)  # an unknown language is told before any work
        known = beam.language_model if beam else None
        recordings = Recordings(audio)
        segments: list[list[Segment]] = [[] for _ in audio]
        votes = _Votes(len(audio), self.languages)
        if language is None and self._adapts:
            # Only who knows the language can choose an adapter, so the audio is encoded twice.
            self._vote(recordings, votes)
        spoken = [language or next(iter(found), None) for found in votes.counted()]
        for group in recordings.speech():
            for model, own in self._by_model(group, spoken):
                allowed = self._allowed(model, language)
                for batch, states in self._encoded(own, model, spoken):
                    if beam is None:
                        ranked = [[hypothesis] for hypothesis in model.decode(states, decoder, allowed)]
                    else:
                        ranked = model.search(states, beam, decoder, allowed)
                    for piece, found in zip(batch, _segments(batch, states, ranked, model, known), strict=True):
                        if found.text:
                            segments[piece.owner].append(found)
                    if self._identifies and language is None and not self._adapts:
                        votes.add(batch, model.identify(states))
        return [
            _transcript(seconds, found, language, probabilities)
            for seconds, found, probabilities in zip(recordings.seconds, segments, votes.counted(), strict=True)
        ]

    def beam(
        self,
        width: int = 8,
        *,
        most: int = 1,
        language_model: Path | None = None,
        weight: float = 0.5,
        bonus: float = 0.5,
        hotwords: ListOf[str] = (),
        hotword_bonus: float = 1.5,
    ) -> Beam:
        """A search for `transcribe`: slower than deciding frame by frame, and it may know the language.

        width: texts that go on from step to step; most: texts to return. language_model: a folder made by
        `isogloss lm` for this model, of this weight; bonus: nats a symbol, against its wish for short texts.
        hotwords: words likelier to be said than the model thinks, by so many nats a symbol.
        """
        if width < 1:
            raise IsoglossError(f"A beam of {width} holds nothing; give 1 or more.")
        given = None
        if language_model is not None:
            if self.folder is None:
                raise IsoglossError("A language model needs a recogniser that was loaded from a folder.")
            if any(other.tokenizer is not self.model.tokenizer for other in self.adapted):
                raise IsoglossError("A language model knows the symbols of one model; leave out adapters with others.")
            given = load_ngram(language_model, digest(self.folder))
        words = [self.model.processor.tokens(word) for word in hotwords]
        for word, tokens in zip(hotwords, words, strict=True):
            if not tokens:
                raise IsoglossError(f'The hotword "{word}" has no letters.')
        favoured = Hotwords(words, hotword_bonus) if words else None
        bonus = bonus if given else 0.0
        return Beam(width, most=most, language_model=given, weight=weight, bonus=bonus, hotwords=favoured)

    def listen(
        self,
        pieces: Iterable[NDArray[np.float32]],
        *,
        language: str | None = None,
        decoder: str | None = None,
    ) -> Iterator[Word]:
        """Each word of one recording as soon as the next has begun, while the recording arrives.

        pieces: samples at 16 kHz, (S,) each. The words are those of `transcribe` on the whole, as far
        as that does not cut it at pauses; see `WordStream`. Raises IsoglossError for a model that
        needs what has not arrived yet.
        """
        model = self._model_for(language)
        stream = WordStream(model, decoder, self._allowed(model, language), language)
        for samples in pieces:
            yield from stream.feed(torch.from_numpy(samples).to(self.device))
        yield from stream.finish()

    @torch.inference_mode()
    def identify(self, audio: Audio | list[Audio]) -> Any:
        """Which language is spoken: an `Identification`, or a list of them."""
        if not isinstance(audio, list):
            return self.identify([audio])[0]
        if not self._identifies:
            raise IsoglossError("This model does not identify languages; fine-tune it on more than one first.")
        votes = _Votes(len(audio), self.languages)
        self._vote(Recordings(audio), votes)
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
        parts: list[list[tuple[float, Tensor]]] = [[] for _ in audio]
        for group in Recordings(audio).even():
            for pieces, states in self._encoded(group, self.model, layer=layer):
                for piece, item in zip(pieces, states.unpad(), strict=True):
                    parts[piece.owner].append((piece.start, item.cpu()))
        return [torch.cat([item for _, item in sorted(part, key=lambda p: p[0])]) for part in parts]

    def _encoded(
        self,
        pieces_to_encode: list[Piece],
        model: Model,
        spoken: ListOf[str | None] = (),
        layer: int | None = None,
    ) -> Iterator[tuple[list[Piece], Sequence]]:
        """The states of pieces, in batches; with the adapters of the languages spoken by each piece's owner."""
        for pieces in batches(pieces_to_encode):
            audio = Sequence.from_list([torch.from_numpy(piece.samples) for piece in pieces]).to(self.device)
            languages = [spoken[piece.owner] for piece in pieces] if spoken else None
            encoded = model.encode(model.features(audio), () if layer is None else (layer,), languages=languages)
            yield pieces, encoded.final if layer is None else encoded.layers[layer]

    def _vote(self, recordings: Recordings, votes: _Votes) -> None:
        """Let the model without adapters say which languages are spoken, if it tells any apart."""
        if self._identifies:
            for group in recordings.speech():
                for batch, states in self._encoded(group, self.model):
                    votes.add(batch, self.model.identify(states))

    @property
    def unsure_of(self) -> list[str]:
        """Languages that it writes each in its own way, by adapters, and cannot tell apart; none if it can."""
        if not self._adapts or self._identifies:
            return []
        banks = [model.encoder.adapters for model in (self.model, *self.adapted) if model.encoder.adapters is not None]
        known = sorted({tag for bank in banks for members in bank.groups.values() for tag in members})
        return known if len(known) > 1 else []

    @property
    def _identifies(self) -> bool:
        return bool(self.model.spec.heads_for("language"))

    @property
    def _adapts(self) -> bool:
        return any(model.encoder.adapters is not None for model in (self.model, *self.adapted))

    def _model_for(self, language: str | None) -> Model:
        """The model whose adapter is nearest to the language; the first if none is near."""
        banks = [
            (model, members)
            for model in (self.model, *self.adapted)
            for members in (model.encoder.adapters.groups.values() if model.encoder.adapters is not None else ())
        ]
        place = nearest(language, [members for _, members in banks])
        return banks[place][0] if place >= 0 else self.model

    def _by_model(
        self, pieces: list[Piece], spoken: ListOf[str | None]
    ) -> Iterator[tuple[Model, list[Piece]]]:
        """Each model with the pieces it is to write."""
        models = [self._model_for(language) for language in spoken]
        for model in (self.model, *self.adapted):
            own = [piece for piece in pieces if models[piece.owner] is model]
            if own:
                yield model, own

    def _allowed(self, model: Model, language: str | None) -> Symbols | None:
        """What a model may write after what: letters of one script a word, and only those of a language that is known.

        None for a model that does not recognise.
        """
        alphabets = model.config.alphabets
        if language is not None and language not in alphabets:
            raise IsoglossError(
                f'The model was not taught to write "{language}".{did_you_mean(language, alphabets)} '
                f"It writes: {', '.join(alphabets) or 'nothing'}."
            )
        if model.tokenizer is None:
            return None
        if (model, language) not in self._symbols:
            letters = None if language is None else alphabets[language]
            self._symbols[model, language] = Symbols.one_script(model.tokenizer.spelling(), letters).to(self.device)
        return self._symbols[model, language]


def load(folder: str | Path, device: torch.device | str = "cpu", adapters: ListOf[str | Path] = ()) -> Recogniser:
    """A model folder, ready to use; nothing is downloaded and nothing in it is executed.

    adapters: folders of adapters of this very model; each recording is then written by the one that
    was made for its language, else for a language of the same family, else by the model itself.
    """
    base = Path(folder)
    model = load_model(base).to(device)
    return Recogniser(model, device, base, [load_model(Path(other), (base, model)) for other in adapters])


def _segments(
    pieces: ListOf[Piece],
    states: Sequence,
    ranked: list[list[Hypothesis]],
    model: Model,
    language_model: NGram | None,
) -> list[Segment]:
    """The best text of each piece as a segment."""
    found = []
    calibration = language_model.calibration if language_model else None
    sounds = model.ipa(states) if model.spec.heads_for("phonemes") else [""] * len(pieces)
    for piece, hypotheses, phonemes in zip(pieces, ranked, sounds, strict=True):
        spoken = model.words(hypotheses[0], piece.start, piece.end, calibration=calibration)
        texts = [(" ".join(w.text for w in model.words(other)), other.score) for other in hypotheses]
        found.append(
            Segment(
                start=piece.start,
                end=piece.end,
                text=" ".join(word.text for word in spoken),
                words=tuple(spoken),
                confidence=hypotheses[0].confidence,
                alternatives=tuple(Alternative(*pair) for pair in texts) if len(texts) > 1 else (),
                phonemes=phonemes,
            )
        )
    return found


class _Votes:
    """Which language each recording is in: its pieces vote by their length; silence between them has no vote."""

    def __init__(self, recordings: int, languages: tuple[str, ...]):
        self.languages = languages
        self.scores = torch.zeros(recordings, len(languages))
        self.heard = torch.zeros(recordings)

    def add(self, pieces: list[Piece], logits: Tensor) -> None:
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
    seconds: float, found: list[Segment], told: str | None, probabilities: dict[str, float]
) -> Transcript:
    ordered = tuple(sorted(found, key=lambda part: part.start))
    return Transcript(
        text=" ".join(part.text for part in ordered),
        language=told or next(iter(probabilities), None),
        probabilities=probabilities,
        seconds=seconds,
        segments=ordered,
    )
