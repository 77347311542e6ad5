"""`Recogniser`: a model put to use on audio of any kind and length."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Iterator
from collections.abc import Sequence as ListOf
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, TypedDict, TypeVar, Unpack, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from isogloss.audio.channels import Channel
from isogloss.audio.reading import SAMPLE_RATE, Audio
from isogloss.decoding.beam import Beam
from isogloss.decoding.words import Word
from isogloss.errors import AudioError, IsoglossError
from isogloss.model.engine import Request, encode
from isogloss.model.folder import load_model
from isogloss.model.pieces import GROUP_SECONDS, TOLD_SECONDS, Piece, Recordings
from isogloss.model.rates import repeated, repeats, synchronous_frames
from isogloss.model.released import released_folder
from isogloss.model.results import Identification, LanguageScores, Segment, Transcript, transcript
from isogloss.model.searcher import Searcher
from isogloss.model.streaming import WordStream, word_stream
from isogloss.text.languages import normalise_language

_log = logging.getLogger(__name__)
T = TypeVar("T")
Progress = Callable[[float, float], None]
"""Told the seconds of audio that are done, and those of all together."""
Told = Callable[[int, Segment], None]
"""Told the number of a recording and a segment of it."""
Raise = Literal["raise"]
Return = Literal["return"]
Own = Literal["own"]
"""The way a model's folder says: with the language model in it, else frame by frame."""


class Common(TypedDict, total=False):
    """What every method understands."""

    channel: Channel | list[Channel]
    on_progress: Progress | None


class Constraints(Common, total=False):
    """What else `transcribe` understands."""

    language: str | list[str | None] | None
    decoder: str | list[str | None] | None
    beam: Beam | list[Beam | None] | Own | None
    letters: str | list[str | None] | None
    vad: bool
    on_segment: Told | None


class States(Common, total=False):
    """What else `encode` understands."""

    layer: int | None
    frame_ms: float | None


class Recogniser(Searcher):
    """Transcribes, identifies and encodes; made by `isogloss.load(folder)`.

    Every method takes one recording or a list of them, each a path, bytes of a file, a NumPy array
    or a tensor (mono at 16 kHz), or a pair (array, sample rate), and returns one result or a list.

    What all of them understand: channel, of several channels the one to use, counted from 1, or "mix", their mean.
    errors: "raise" the first AudioError, or "return" them in the places of the recordings that could not be read.
    on_progress: told the seconds of audio done, and all. vad: only where somebody speaks; else everything is taken for
    speech. What is one value for all may be a list with a value for each recording: language, decoder, beam,
    letters, channel.
    """

    @property
    def languages(self) -> tuple[str, ...]:
        """The languages the model tells apart."""
        return self.model.config.languages

    @overload
    def transcribe(
        self, audio: list[Audio], *, errors: Return, **how: Unpack[Constraints]
    ) -> list[Transcript | AudioError]: ...
    @overload
    def transcribe(
        self, audio: list[Audio], *, errors: Raise = "raise", **how: Unpack[Constraints]
    ) -> list[Transcript]: ...
    @overload
    def transcribe(self, audio: Audio, *, errors: Raise = "raise", **how: Unpack[Constraints]) -> Transcript: ...
    def transcribe(
        self,
        audio: Any,
        *,
        language: Any = None,
        decoder: Any = None,
        beam: Any = "own",
        letters: Any = None,
        vad: bool = True,
        channel: Any = "mix",
        errors: Raise | Return = "raise",
        on_progress: Progress | None = None,
        on_segment: Told | None = None,
    ) -> Any:
        """What is said: a `Transcript`, or a list of them.

        language: a BCP 47 tag, a code or a name of a language the model knows; only symbols of that language's
        transcripts are then written, and the language is not guessed. decoder: which head writes, one of
        `model.decoders`; by default the first. beam: a search, made by `beam`, or None to decide frame by frame; by
        default `search()`. letters: the only characters to be written, beside spaces. on_segment: told of the segments
        of each recording in order, every minute of what is said.
        """
        if not isinstance(audio, list):
            constraints = {"language": language, "decoder": decoder, "beam": beam, "letters": letters}
            constraints |= {"vad": vad, "on_progress": on_progress, "on_segment": on_segment}
            return self.transcribe([audio], channel=channel, **constraints)[0]
        beam = self.search() if beam == "own" else beam
        requests = self._requests(len(audio), language, decoder, beam, letters)
        recordings = _opened(audio, channel, errors)
        scores = LanguageScores(len(audio), self.languages)
        unknown = {owner for owner, request in enumerate(requests) if request.language is None}
        if unknown and self.engine.identifies and self.engine.adapts:
            # Only who knows the language can choose an adapter, so the audio is encoded twice.
            self._identify(recordings, scores, vad, _half(on_progress, 0), unknown)
            guesses = [next(iter(found), None) for found in scores.probabilities()]
            requests = [replace(request, spoken=guess) for request, guess in zip(requests, guesses, strict=True)]
            on_progress = _half(on_progress, 1)
        segments: list[list[Segment]] = [[] for _ in audio]
        told = GROUP_SECONDS if on_segment is None else TOLD_SECONDS
        for group, advance in self._groups(recordings, vad, on_progress, told):
            written: list[tuple[int, Segment]] = []
            for piece, segment, found in self.engine.transcribe(group, requests):
                if segment.text:
                    written.append((piece.owner, segment))
                if found is not None:
                    scores.add(piece, found)
                advance(piece)
            for owner, segment in sorted(written, key=lambda pair: pair[1].start):
                segments[owner].append(segment)
                if on_segment is not None:
                    on_segment(owner, segment)
        about = zip(requests, scores.probabilities(), segments, recordings.seconds, recordings.no_speech, strict=True)
        return _results(
            recordings,
            errors,
            [
                transcript(seconds, said, request.language, {} if request.language else probabilities, no_speech)
                for request, probabilities, said, seconds, no_speech in about
            ],
        )

    @overload
    def identify(
        self, audio: list[Audio], *, errors: Return, vad: bool = True, **how: Unpack[Common]
    ) -> list[Identification | AudioError]: ...
    @overload
    def identify(
        self, audio: list[Audio], *, errors: Raise = "raise", vad: bool = True, **how: Unpack[Common]
    ) -> list[Identification]: ...
    @overload
    def identify(
        self, audio: Audio, *, errors: Raise = "raise", vad: bool = True, **how: Unpack[Common]
    ) -> Identification: ...
    def identify(
        self,
        audio: Any,
        *,
        vad: bool = True,
        channel: Any = "mix",
        errors: Raise | Return = "raise",
        on_progress: Progress | None = None,
    ) -> Any:
        """Which language is spoken: an `Identification`, or a list of them."""
        if not isinstance(audio, list):
            return self.identify([audio], vad=vad, channel=channel, on_progress=on_progress)[0]
        if not self.engine.identifies:
            raise IsoglossError("This model does not identify languages; fine-tune it on more than one first.")
        recordings = _opened(audio, channel, errors)
        scores = LanguageScores(len(audio), self.languages)
        self._identify(recordings, scores, vad, on_progress, range(len(audio)))
        about = zip(scores.probabilities(), recordings.no_speech, strict=True)
        found = [Identification(next(iter(shares), None), shares, no_speech) for shares, no_speech in about]
        return _results(recordings, errors, found)

    @overload
    def encode(self, audio: list[Audio], *, errors: Return, **how: Unpack[States]) -> list[Tensor | AudioError]: ...
    @overload
    def encode(self, audio: list[Audio], *, errors: Raise = "raise", **how: Unpack[States]) -> list[Tensor]: ...
    @overload
    def encode(self, audio: Audio, *, errors: Raise = "raise", **how: Unpack[States]) -> Tensor: ...
    def encode(
        self,
        audio: Any,
        *,
        layer: int | None = None,
        frame_ms: float | None = None,
        channel: Any = "mix",
        errors: Raise | Return = "raise",
        on_progress: Progress | None = None,
    ) -> Any:
        """Hidden states of everything, speech or not: a tensor (T, D), or a list of them.

        layer: 0 for the input of the first block … the number of blocks; by default the last, after its norm.
        frame_ms: 10 for as many states as there are log-mel frames of 10 ms: each is repeated as long as it lasts.
        """
        if not isinstance(audio, list):
            return self.encode([audio], layer=layer, frame_ms=frame_ms, channel=channel, on_progress=on_progress)[0]
        if layer is not None:
            self.model.check_layer(layer)
        spec = self.model.spec
        times = 1 if frame_ms is None else repeats(spec, frame_ms)
        recordings = _opened(audio, channel, errors)
        parts: list[list[tuple[float, Tensor]]] = [[] for _ in audio]
        for group, advance in self._groups(recordings, False, on_progress):
            for pieces, encoded in encode(self.model, group, () if layer is None else (layer,)):
                states = encoded.final if layer is None else encoded.layers[layer]
                for piece, item in zip(pieces, states.unpad(), strict=True):
                    parts[piece.owner].append((piece.start, item.cpu()))
                    advance(piece)
        ordered = [[item for _, item in sorted(part, key=lambda pair: pair[0])] for part in parts]
        found = [torch.cat(part) if part else torch.zeros(0) for part in ordered]
        if frame_ms is not None:
            samples = [round(seconds * SAMPLE_RATE) for seconds in recordings.seconds]
            frames = [synchronous_frames(spec, frame_ms, count) for count in samples]
            found = [repeated(states, times, count) for states, count in zip(found, frames, strict=True)]
        return _results(recordings, errors, found)

    def stream(
        self, pieces: Iterable[NDArray[np.float32]], *, language: str | None = None, decoder: str | None = None
    ) -> Iterator[Word]:
        """Each word of one recording as soon as the next has begun, while the recording arrives.

        pieces: samples at 16 kHz, (S,) each. The words are those of `transcribe` on the whole, as far
        as that does not cut it at pauses; nearly so where the model needs what has not arrived yet, which
        is logged with the latency. See `word_stream`.
        """
        words = self.word_stream(language=language, decoder=decoder)
        if not words.exact:
            _log.warning(
                "This model cannot stream exactly: %s Words come from overlapping windows of the recording instead; "
                "a sound is written at most %.1f s after it was made.",
                words.model.cannot_stream,
                words.latency,
            )
        for samples in pieces:
            yield from words.feed(torch.from_numpy(samples).to(self.engine.device))
        yield from words.finish()

    def word_stream(self, *, language: str | None = None, decoder: str | None = None) -> WordStream:
        """What one recording is fed to as it arrives: it gives words that are final, and in `partial` the others."""
        (request,) = self._requests(1, language, decoder, None, None)
        model = self.engine.model_for(request)
        return word_stream(model, decoder, self.engine.allowed(model, request), request.language)

    @property
    def unsure_of(self) -> list[str]:
        """Languages that it writes each in its own way, by adapters, and cannot tell apart; none if it can."""
        if not self.engine.adapts or self.engine.identifies:
            return []
        models = (self.model, *self.engine.adapted)
        banks = [model.encoder.adapters for model in models if model.encoder.adapters is not None]
        known = sorted({tag for bank in banks for members in bank.groups.values() for tag in members})
        return known if len(known) > 1 else []

    def _requests(self, count: int, language: Any, decoder: Any, beam: Any, letters: Any) -> list[Request]:
        """One for each recording; raises IsoglossError for what the model cannot do."""
        told = {"language": language, "decoder": decoder, "beam": beam, "letters": letters}
        columns = [_each(count, name, value) for name, value in told.items()]
        rows = [dict(zip(told, row, strict=True)) for row in zip(*columns, strict=True)]
        # What is asked of all recordings can be wrong where there is none.
        rows = rows or [{name: None if isinstance(value, list) else value for name, value in told.items()}]
        for row in rows:
            row["language"] = None if row["language"] is None else normalise_language(row["language"])
        asked = [Request(**row) for row in rows]
        self.engine.check(asked)
        return asked[:count]

    def _identify(
        self,
        recordings: Recordings,
        scores: LanguageScores,
        vad: bool,
        on_progress: Progress | None,
        owners: Collection[int],
    ) -> None:
        """Let the model without adapters say which languages are spoken in the recordings of these numbers."""
        for group, advance in self._groups(recordings, vad, on_progress):
            for piece, found in self.engine.identify([piece for piece in group if piece.owner in owners]):
                scores.add(piece, found)
                advance(piece)

    def _groups(
        self, recordings: Recordings, vad: bool, on_progress: Progress | None, seconds: float = GROUP_SECONDS
    ) -> Iterator[tuple[list[Piece], Callable[[Piece], None]]]:
        """Groups of so many seconds of pieces, each with a function that is to be told of every piece that is done."""
        progress = on_progress or (lambda done, total: None)
        before = 0.0
        groups = recordings.speech(seconds) if vad else recordings.even(self.model.framing, seconds)
        for group in groups:
            yield group, _advance(group, before, recordings, progress)
            before = recordings.done
        progress(recordings.total, recordings.total)


def load(
    folder: str | Path | None = None, device: torch.device | str = "cpu", adapters: ListOf[str | Path] = ()
) -> Recogniser:
    """A model folder, ready to use; nothing is downloaded and nothing in it is executed.

    folder: by default that of the released model, if it is installed. adapters: folders of adapters of this very
    model; each recording is then written by the one that was made for its language, else for a language of the same
    family, else by the model itself.
    """
    base = released_folder() if folder is None else Path(folder)
    model = load_model(base).to(device)
    return Recogniser(model, device, base, [load_model(Path(other), (base, model)) for other in adapters])


def _each(count: int, name: str, value: Any) -> list[Any]:
    """A value for each recording."""
    if not isinstance(value, list):
        return [value] * count
    if len(value) != count:
        raise IsoglossError(f"{count} recordings have {len(value)} values of {name}; give one, or one for each.")
    return value


def _opened(audio: list[Audio], channel: Any, errors: Raise | Return) -> Recordings:
    recordings = Recordings(audio, channels=_each(len(audio), "channel", channel))
    if errors == "raise" and recordings.errors:
        raise recordings.errors[min(recordings.errors)]
    return recordings


def _half(on_progress: Progress | None, number: int) -> Progress | None:
    """Progress of the first (0) or second (1) of two passes over the same audio, as that of both."""
    if on_progress is None:
        return None
    return lambda done, total: on_progress((number * total + done) / 2, total)


def _advance(
    group: list[Piece], done: float, recordings: Recordings, progress: Progress
) -> Callable[[Piece], None]:
    """Adds up the pieces of a group; what lies between them is done with them."""
    share = (recordings.done - done) / sum(piece.end - piece.start for piece in group)

    def advance(piece: Piece) -> None:
        nonlocal done
        done += share * (piece.end - piece.start)
        progress(done, recordings.total)

    return advance


def _results(recordings: Recordings, errors: Raise | Return, found: list[T]) -> list[T | AudioError]:
    """What was found, or why a recording could not be read."""
    if errors == "raise" and recordings.errors:
        raise recordings.errors[min(recordings.errors)]
    return [recordings.errors.get(owner, result) for owner, result in enumerate(found)]
