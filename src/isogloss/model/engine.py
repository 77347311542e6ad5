"""`Engine`: pieces of audio through a model, in batches. It knows no files, so that a server can feed it too.

    pieces of many recordings ── batches of similar length ── encoder ── what each request wants ──> segments
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator
from collections.abc import Sequence as ListOf
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn.functional import pad

from isogloss.decoding.beam import Beam
from isogloss.decoding.hypothesis import Hypothesis
from isogloss.decoding.symbols import Symbols
from isogloss.encoders.stack import Encoded
from isogloss.errors import IsoglossError, did_you_mean
from isogloss.model.model import Model
from isogloss.model.pieces import Piece, batches
from isogloss.model.results import Alternative, Segment
from isogloss.nn.adapters import nearest
from isogloss.sequence import Sequence
from isogloss.text.normalise import normalise

REMEMBERED = 64
"""Languages and sets of letters whose symbols are kept at hand."""


@dataclass(frozen=True)
class Request:
    """How the pieces of one recording are to be written.

    language: BCP 47; only symbols of its transcripts are written. spoken: the language that chooses an adapter, if
    none was given. decoder: the head that writes, by default the first. beam: a search. letters: the only characters
    to be written, beside spaces, as they are or as transcripts have them.
    """

    language: str | None = None
    spoken: str | None = None
    decoder: str | None = None
    beam: Beam | None = None
    letters: str | None = None


class Engine:
    """A model, with adapters of it, on a device.

    Pieces name their request by `owner`. One piece is written as it is among others.
    """

    def __init__(self, model: Model, device: torch.device | str = "cpu", adapted: ListOf[Model] = ()):
        self.model = model.eval().to(device)
        self.device = torch.device(device)
        self.adapted = [other.eval().to(device) for other in adapted]
        self._narrowed = lru_cache(REMEMBERED)(_narrowed)

    def check(self, requests: Iterable[Request]) -> None:
        """Raises IsoglossError for what the model cannot do, before any audio is read."""
        for request in dict.fromkeys(requests):
            model = self.model_for(request)
            model.decoder(request.decoder)
            self.allowed(model, request)

    @torch.inference_mode()
    def identify(self, pieces: ListOf[Piece]) -> Iterator[tuple[Piece, Tensor]]:
        """Each piece with the log-probabilities of the model's languages, (languages,); no adapter takes part."""
        for batch, encoded in encode(self.model, pieces):
            yield from zip(batch, self._language(encoded.final), strict=True)

    @torch.inference_mode()
    def transcribe(
        self, pieces: ListOf[Piece], requests: ListOf[Request]
    ) -> Iterator[tuple[Piece, Segment, Tensor | None]]:
        """Each piece with what is said in it, and the log-probabilities of languages.

        These only of batches in which a language is not given, and where no adapter takes part.
        """
        spoken = [request.language or request.spoken for request in requests]
        models = {owner: self.model_for(requests[owner]) for owner in {piece.owner for piece in pieces}}
        for model in (self.model, *self.adapted):
            own = [piece for piece in pieces if models[piece.owner] is model]
            for batch, encoded in encode(model, own, languages=spoken):
                states = encoded.final
                scores: ListOf[Tensor | None] = [None] * len(batch)
                unknown = any(requests[piece.owner].language is None for piece in batch)
                if unknown and self.identifies and not self.adapts:
                    scores = self._language(states)
                segments = self._written(batch, states, [requests[piece.owner] for piece in batch], model)
                yield from zip(batch, segments, scores, strict=True)

    def model_for(self, request: Request) -> Model:
        """The model whose adapter is nearest to the request's language; the first if none is near."""
        banks = [
            (model, members)
            for model in (self.model, *self.adapted)
            for members in (model.encoder.adapters.groups.values() if model.encoder.adapters is not None else ())
        ]
        place = nearest(request.language or request.spoken, [members for _, members in banks])
        return banks[place][0] if place >= 0 else self.model

    @property
    def identifies(self) -> bool:
        """Whether the model tells languages apart."""
        return bool(self.model.spec.heads_for("language"))

    @property
    def adapts(self) -> bool:
        """Whether there are adapters, so that what is written depends on the language."""
        return any(model.encoder.adapters is not None for model in (self.model, *self.adapted))

    def allowed(self, model: Model, request: Request) -> Symbols:
        """Which symbols a model may write after which; raises IsoglossError for a language that it cannot write."""
        if request.language is None and request.letters is None:
            return model.symbols
        return self._narrowed(model, request.language, request.letters)

    def _language(self, states: Sequence) -> ListOf[Tensor]:
        return list(self.model.identify(states).log_softmax(dim=-1).cpu())

    def _written(
        self, batch: list[Piece], states: Sequence, requests: list[Request], model: Model
    ) -> list[Segment]:
        """What is said in each piece of a batch; those that want the same are decoded together."""
        ranked: list[list[Hypothesis]] = [[] for _ in batch]
        alike: dict[Hashable, list[int]] = {}
        for row, request in enumerate(requests):
            alike.setdefault((request.language, request.decoder, id(request.beam), request.letters), []).append(row)
        for rows in alike.values():
            for row, found in zip(rows, self._decoded(model, _rows(states, rows), requests[rows[0]]), strict=True):
                ranked[row] = found
        phonemes = model.ipa(states) if model.spec.heads_for("phonemes") else [""] * len(batch)
        together = zip(batch, ranked, requests, phonemes, strict=True)
        return [_segment(model, piece, found, request, sounds) for piece, found, request, sounds in together]

    def _decoded(self, model: Model, states: Sequence, request: Request) -> list[list[Hypothesis]]:
        allowed = self.allowed(model, request)
        if request.beam is None:
            return [[hypothesis] for hypothesis in model.decode(states, request.decoder, allowed)]
        return model.search(states, request.beam, request.decoder, allowed)


@torch.inference_mode()
def encode(
    model: Model, pieces: ListOf[Piece], layers: tuple[int, ...] = (), languages: ListOf[str | None] = ()
) -> Iterator[tuple[list[Piece], Encoded]]:
    """Batches of pieces with their states, (B, T, D).

    layers: whose states are wanted beside those of the last. languages: of each owner, which choose its adapter.
    """
    device, least = next(model.parameters()).device, model.framing.least(1)
    for batch in batches(list(pieces)):
        # A few samples are no frame; silence after them makes one.
        samples = [pad(torch.from_numpy(piece.samples), (0, max(0, least - len(piece.samples)))) for piece in batch]
        tags = [languages[piece.owner] for piece in batch] if languages else None
        yield batch, model.encode(model.features(Sequence.from_list(samples).to(device)), layers, languages=tags)


def _rows(states: Sequence, rows: list[int]) -> Sequence:
    """Some items of a batch, no longer than they must be."""
    if len(rows) == len(states):
        return states
    lengths = states.lengths[rows]
    return Sequence(states.values[rows, : int(lengths.max())], lengths)


def _segment(model: Model, piece: Piece, ranked: list[Hypothesis], request: Request, phonemes: str) -> Segment:
    """The best text of a piece as a segment."""
    language_model = request.beam.language_model if request.beam else None
    calibration = language_model.calibration if language_model else None
    spoken = model.words(ranked[0], piece.start, piece.end, calibration=calibration)
    others = ranked if len(ranked) > 1 else []
    return Segment(
        start=piece.start,
        end=piece.end,
        text=" ".join(word.text for word in spoken),
        words=tuple(spoken),
        confidence=ranked[0].confidence,
        alternatives=tuple(
            Alternative(" ".join(word.text for word in model.words(other)), other.score) for other in others
        ),
        phonemes=phonemes,
        no_speech=piece.no_speech,
    )


def _writing_only(spelling: list[bytes], letters: str, language: str | None) -> set[int]:
    """Ids of the symbols that write nothing but certain letters, as transcripts have them, and spaces."""
    transcribed = set(normalise(letters, language)) - {" "}
    texts = {number: piece.decode("utf-8", errors="replace") for number, piece in enumerate(spelling) if number}
    found = {number for number, text in texts.items() if set(text) <= {" ", *letters, *transcribed}}
    written = {character for number in found for character in texts[number]} - {" "}
    missing = sorted(transcribed - written)
    if missing and any(len(piece) == 1 and piece >= b"\x80" for piece in spelling):
        raise IsoglossError(
            f'The model spells "{"".join(missing)}" in bytes, which are those of other letters too; leave out of '
            "letters what has no symbol of its own."
        )
    if not written:
        known = "".join(sorted({text for text in texts.values() if len(text) == 1 and text.isalpha()}))
        raise IsoglossError(f'The model writes none of the letters "{letters}"; give some of these: {known[:100]}.')
    return found


def _narrowed(model: Model, language: str | None, letters: str | None) -> Symbols:
    """One script a word, of the symbols of a language's transcripts, if one is told, and of certain letters alone."""
    assert model.tokenizer is not None
    spelling, allowed = model.tokenizer.spelling(), None
    if language is not None:
        alphabets = model.config.alphabets
        if language not in alphabets:
            raise IsoglossError(
                f'The model was not taught to write "{language}".{did_you_mean(language, alphabets)} '
                f"It writes: {', '.join(alphabets) or 'nothing'}."
            )
        allowed = set(alphabets[language])
    if letters is not None:
        wanted = _writing_only(spelling, letters, language)
        allowed = wanted if allowed is None else wanted & allowed
    return Symbols.one_script(spelling, allowed).to(next(model.parameters()).device)
