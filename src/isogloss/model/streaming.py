"""Audio as it arrives: encoder states, symbols and words.

    samples ─ buffer ─ a chunk's worth ─ features ─ encoder with its past ─ decoder with its past ─> words

These equal those of the whole recording. An encoder that wants the whole recording has windows of it instead, each
encoded anew, and the decoder takes from each the states that have enough of what comes after them:

              final before          final now     context after
    ··········|── left ──|─────────────|─ cut ─|── right ──|              encoded every hop
                                    in a pause between symbols, so that two windows cannot both write one, or neither
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from isogloss.audio.reading import SAMPLE_RATE
from isogloss.decoding.greedy import forked
from isogloss.decoding.symbols import Symbols
from isogloss.decoding.words import Word, spelled
from isogloss.errors import IsoglossError
from isogloss.model.model import Model
from isogloss.sequence import Sequence

TOGETHER = 8.0
"""Seconds encoded at once where more has arrived."""
PAUSE = 0.1
"""Seconds from a cut to the next symbol that are enough: times of symbols differ less between two windows."""


class SpeechStream:
    """Encoder states of recordings that arrive side by side, as many samples of each at a time.

    The states are those the encoder gives to the whole recordings, to rounding, also for gradients.
    languages: of the recordings, which choose their adapters. Raises IsoglossError for a model that
    needs what has not arrived yet.
    """

    def __init__(self, model: Model, batch: int = 1, languages: list[str | None] | None = None):
        if why := model.cannot_stream:
            raise IsoglossError(f"This model cannot stream: {why}")
        self.model = model
        self.languages = languages
        self.past = model.encoder.begin()
        self.step = model.encoder.chunk * model.framing.stride
        self.need = model.framing.needed(model.encoder.chunk)
        self.most = max(1, int(TOGETHER * SAMPLE_RATE) // self.step)
        self.samples = torch.zeros(batch, 0, device=next(model.parameters()).device)

    @property
    def latency(self) -> float:
        """Seconds from a sound to the states that know of it, at most, without the time of computing."""
        return self.need / SAMPLE_RATE

    def feed(self, samples: Tensor) -> Tensor:
        """(B, S) at 16 kHz -> the states that are known by now, (B, t, D); t may be 0."""
        waiting = torch.cat([self.samples, samples], dim=1)
        states = [samples.new_zeros(len(samples), 0, self.model.encoder.width)]
        while (ready := (waiting.shape[1] - self.need) // self.step + 1) > 0:
            count = min(ready, self.most)
            states.append(self._encoded(waiting[:, : self.need + (count - 1) * self.step]))
            waiting = waiting[:, count * self.step :]
        self.samples = waiting
        return torch.cat(states, dim=1)

    def finish(self) -> Tensor:
        """The states of what is left, (B, t, D)."""
        return self._encoded(self.samples)

    def _encoded(self, samples: Tensor) -> Tensor:
        lengths = torch.full((len(samples),), samples.shape[1], device=samples.device)
        features = self.model.features(Sequence(samples, lengths))
        encoded = self.model.encode(features, past=self.past, languages=self.languages).final
        return encoded.values[:, : int(encoded.lengths[0])]


class WordStream(ABC):
    """The words of one recording as it arrives, by greedy decoding; `word_stream` makes the one that fits a model.

    decoder, allowed: as for `Model.decode`. exact: whether the words are those of the whole recording. Raises
    IsoglossError for a decoder that cannot.
    """

    exact: ClassVar[bool]

    def __init__(self, model: Model, decoder: str | None = None, allowed: Symbols | None = None):
        if not model.decoder(decoder).streams:
            raise IsoglossError("The attention decoder wants everything before it writes; stream with another.")
        self.model = model
        with torch.inference_mode():  # what a decoder begins with must not be part of a graph, or it cannot be forked
            self.decoder = model.greedy_decoder(1, decoder, allowed)
        self.draft = self.decoder.drafts[0]
        self.received = 0  # samples
        self.before = 0  # frame after the last symbol of the last word

    @property
    @abstractmethod
    def latency(self) -> float:
        """Seconds from a sound to the symbols that it is written with, at most, without the time of computing."""

    @abstractmethod
    def feed(self, samples: Tensor) -> list[Word]:
        """(S,) at 16 kHz -> the words that are complete by now and were not before."""

    @abstractmethod
    def finish(self) -> list[Word]:
        """The words left when the audio ends."""

    @property
    def partial(self) -> str:
        """What is written of words that are not complete, and may change."""
        return self._text(self.draft.tokens)

    def _text(self, tokens: list[int]) -> str:
        assert self.model.tokenizer is not None
        return " ".join(self.model.tokenizer.decode(tokens).split())

    def _decode(self, states: Tensor, last: bool) -> list[Word]:
        """The words that more states, (1, t, D), complete."""
        tokenizer = self.model.tokenizer
        assert tokenizer is not None
        self.decoder.feed(_sequence(states))
        places = spelled(self.draft.tokens, tokenizer)
        # A word is complete when the next one has begun: symbols may still be added to it.
        complete = len(places) if last else max(0, len(places) - 1)
        spoken: list[Word] = []
        if complete:
            spoken = self.model.words(self.draft.hypothesis(), end=self.received / SAMPLE_RATE, before=self.before)
            self.before = self.draft.frames[places[complete - 1][2]][1]
        self.draft.drop(places[complete][1] if complete < len(places) else len(self.draft.tokens) * last)
        return spoken[:complete]


class ExactWordStream(WordStream):
    """The same words as of the whole recording.

    language: what is spoken, which chooses an adapter. Raises IsoglossError for a model that cannot stream.
    """

    exact = True

    def __init__(
        self,
        model: Model,
        decoder: str | None = None,
        allowed: Symbols | None = None,
        language: str | None = None,
    ):
        super().__init__(model, decoder, allowed)
        self.stream = SpeechStream(model, languages=[language])

    @property
    def latency(self) -> float:
        """The look-ahead of the encoder, in seconds."""
        return self.stream.latency

    @torch.inference_mode()
    def feed(self, samples: Tensor) -> list[Word]:
        """(S,) at 16 kHz -> the words that are complete by now and were not before."""
        self.received += len(samples)
        return self._decode(self.stream.feed(samples[None]), last=False)

    @torch.inference_mode()
    def finish(self) -> list[Word]:
        """The words left when the audio ends."""
        return self._decode(self.stream.finish(), last=True)


@dataclass(frozen=True)
class Window:
    """What is encoded at once, in seconds.

    hop: from one window to the next. left: of what is final already. right: of the newest audio that only the states
    before it know; nothing in it is final. Measured by benchmarks/windows.py.
    """

    left: float = 6.0
    hop: float = 1.0
    right: float = 1.0

    def __post_init__(self) -> None:
        if not (self.hop > 0 and self.left >= 0 and self.right >= 0):
            raise IsoglossError(f"A window needs a hop above 0 s and contexts of 0 s or more, and has {self}.")


class WindowedWordStream(WordStream):
    """Nearly the words of the whole recording, of an encoder that wants the whole: from windows of it.

    A window has `left + right + 2 hop` seconds at most, so that memory does not grow, and computing is that share of
    what encoding everything once takes. language: what is spoken, which chooses an adapter.
    """

    exact = False

    def __init__(
        self,
        model: Model,
        decoder: str | None = None,
        allowed: Symbols | None = None,
        language: str | None = None,
        window: Window = Window(),
    ):
        super().__init__(model, decoder, allowed)
        self.languages = [language]
        self.stride = model.framing.stride
        frames = [round(seconds * SAMPLE_RATE / self.stride) for seconds in (window.left, window.hop, window.right)]
        self.left, self.hop, self.right = frames[0], max(1, frames[1]), frames[2]
        self.pause = max(1, round(PAUSE * SAMPLE_RATE / self.stride))
        self.samples = torch.zeros(0, device=next(model.parameters()).device)
        self.begin = 0  # the frame at which the samples begin
        self.final = 0  # frames that have been decoded for good
        self.ahead = ""

    @property
    def latency(self) -> float:
        """The right context and two hops, in seconds: until the next window, and back to a pause."""
        return (self.right + 2 * self.hop) * self.stride / SAMPLE_RATE

    @property
    def partial(self) -> str:
        """What is written of words that are not complete or have too little audio behind them, and may change."""
        return self.ahead

    @torch.inference_mode()
    def feed(self, samples: Tensor) -> list[Word]:
        """(S,) at 16 kHz -> the words that are complete by now and were not before; the same whatever the pieces."""
        self.samples = torch.cat([self.samples, samples])
        return [word for size in self._due() for word in self._window(self.samples[:size])]

    @torch.inference_mode()
    def finish(self) -> list[Word]:
        """The words left when the audio ends."""
        self.received = self.begin * self.stride + len(self.samples)
        spoken = self._decode(self._encoded(self.samples), last=True)
        self.ahead = ""
        return spoken

    def _due(self) -> Iterator[int]:
        """For each window that is due the samples it has, of those in memory."""
        hop = self.hop * self.stride
        while len(self.samples) >= (size := self.received + hop - self.begin * self.stride):
            self.received += hop
            yield size

    def _window(self, samples: Tensor) -> list[Word]:
        """The words that are complete after the next window, (S,)."""
        states = self._encoded(samples)
        cut = self._cut(states)
        spoken = self._decode(states[:, :cut], last=False)
        rest = forked(self.decoder)
        rest.feed(_sequence(states[:, cut:]))
        self.ahead = self._text(rest.drafts[0].tokens)
        self.final += cut
        dropped = max(0, self.final - self.left - self.begin)
        self.begin += dropped
        self.samples = self.samples[dropped * self.stride :]
        return spoken

    def _cut(self, states: Tensor) -> int:
        """How many of the states that are not final, (1, t, D), become so: up to a pause in the last hop that may."""
        latest = states.shape[1] - self.right
        if latest <= 0:
            return 0
        whole = forked(self.decoder)
        whole.feed(_sequence(states))
        symbols = [(first - self.final, after - self.final) for first, after in whole.drafts[0].frames]

        def room(cut: int) -> int:
            return min([self.pause, *(cut - after if after <= cut else first - cut for first, after in symbols)])

        return max(range(max(0, latest - self.hop), latest + 1), key=lambda cut: (room(cut), cut))

    def _encoded(self, samples: Tensor) -> Tensor:
        """Samples (S,) from `begin` on -> their states from `final` on, (1, t, D)."""
        if not len(samples):
            return samples.new_zeros(1, 0, self.model.encoder.width)
        samples = torch.nn.functional.pad(samples, (0, max(0, self.model.framing.least(1) - len(samples))))
        features = self.model.features(_sequence(samples[None]))
        encoded = self.model.encode(features, languages=self.languages).final
        return encoded.values[:, self.final - self.begin : int(encoded.lengths[0])]


def word_stream(
    model: Model, decoder: str | None = None, allowed: Symbols | None = None, language: str | None = None
) -> WordStream:
    """The words of one recording as it arrives: exact if the model can, else from windows; arguments as of these."""
    kind = WindowedWordStream if model.cannot_stream else ExactWordStream
    return kind(model, decoder, allowed, language)


def _sequence(values: Tensor) -> Sequence:
    """All of one recording, (1, T, …)."""
    return Sequence(values, torch.full((1,), values.shape[1], device=values.device))
