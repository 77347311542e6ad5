"""Audio as it arrives: encoder states, symbols and words, equal to those of the whole recording.

    samples ─ buffer ─ a chunk's worth ─ features ─ encoder with its past ─ decoder with its past ─> words
"""

import torch
from torch import Tensor

from isogloss.audio.reading import SAMPLE_RATE
from isogloss.decoding.symbols import Symbols
from isogloss.decoding.words import Word, spelled
from isogloss.errors import IsoglossError
from isogloss.model.model import Model
from isogloss.sequence import Sequence

TOGETHER = 200
"""Encoder frames encoded at once where more has arrived: 8 s."""


class SpeechStream:
    """Encoder states of recordings that arrive side by side, as many samples of each at a time.

    The states are those the encoder gives to the whole recordings, to rounding, also for gradients.
    languages: of the recordings, which choose their adapters. Raises IsoglossError for a model that
    needs what has not arrived yet.
    """

    def __init__(self, model: Model, batch: int = 1, languages: list[str | None] | None = None):
        if why := model.config.features.cannot_stream:
            raise IsoglossError(f"This model cannot stream: {why}")
        self.model = model
        self.languages = languages
        self.past = model.encoder.begin()
        self.step = model.encoder.chunk * model.framing.stride
        self.need = model.framing.needed(model.encoder.chunk)
        self.most = max(1, TOGETHER // model.encoder.chunk)
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


class WordStream:
    """The words of one recording as it arrives, by greedy decoding; the same words as of the whole.

    decoder, allowed: as for `Model.decode`. language: what is spoken, which chooses an adapter. Raises
    IsoglossError for a model or decoder that cannot.
    """

    def __init__(
        self,
        model: Model,
        decoder: str | None = None,
        allowed: Symbols | None = None,
        language: str | None = None,
    ):
        if not model.decoder(decoder).streams:
            raise IsoglossError("The attention decoder wants everything before it writes; stream with another.")
        self.model = model
        self.stream = SpeechStream(model, languages=[language])
        self.decoder = model.greedy_decoder(1, decoder, allowed)
        self.draft = self.decoder.drafts[0]
        self.received = 0  # samples
        self.before = 0  # frame after the last symbol of the last word

    @torch.inference_mode()
    def feed(self, samples: Tensor) -> list[Word]:
        """(S,) at 16 kHz -> the words that are complete by now and were not before."""
        self.received += len(samples)
        return self._decode(self.stream.feed(samples[None]), last=False)

    @torch.inference_mode()
    def finish(self) -> list[Word]:
        """The words left when the audio ends."""
        return self._decode(self.stream.finish(), last=True)

    @property
    def partial(self) -> str:
        """What is written of words that are not complete, and may change."""
        assert self.model.tokenizer is not None
        return " ".join(self.model.tokenizer.decode(self.draft.tokens).split())

    def _decode(self, states: Tensor, last: bool) -> list[Word]:
        tokenizer = self.model.tokenizer
        assert tokenizer is not None
        self.decoder.feed(Sequence(states, torch.full((1,), states.shape[1], device=states.device)))
        places = spelled(self.draft.tokens, tokenizer)
        # A word is complete when the next one has begun: symbols may still be added to it.
        complete = len(places) if last else max(0, len(places) - 1)
        spoken: list[Word] = []
        if complete:
            spoken = self.model.words(self.draft.hypothesis(), end=self.received / SAMPLE_RATE, before=self.before)
            self.before = self.draft.frames[places[complete - 1][2]][1]
        self.draft.drop(places[complete][1] if complete < len(places) else len(self.draft.tokens) * last)
        return spoken[:complete]
