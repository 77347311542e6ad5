"""`Model`: features, encoder, heads and tokenizer together; what is trained, saved and used.

    audio (B, S) ─ features ─ (B, T, F) ─ embed ─ [masks] ─ blocks ─ (B, T', D) ─┬─ ctc ──────> (B, T', V)
                                                            │ after some blocks  ├─ transducer ─> symbol by symbol
    symbols (B, U) ─ text encoder ──────────────────────────┘                    ├─ attention ──> symbol by symbol
                                                                                 └─ language ─> (B, languages)
"""

import copy
from collections.abc import Callable, Iterable
from dataclasses import replace
from math import inf
from typing import Literal, TypeVar

from torch import Tensor, nn

from isogloss.decoding.beam import Beam
from isogloss.decoding.greedy import Greedy, decoded
from isogloss.decoding.hypothesis import Hypothesis
from isogloss.decoding.symbols import Symbols
from isogloss.decoding.words import Calibration, Word, words
from isogloss.encoders.speech import SpeechEncoder
from isogloss.encoders.stack import Between, Encoded
from isogloss.encoders.text import TextEncoder
from isogloss.errors import IsoglossError, did_you_mean
from isogloss.framing import Framing
from isogloss.heads import KINDS
from isogloss.heads.base import Head, SymbolHead
from isogloss.heads.classifier import Classifier
from isogloss.heads.ctc import CTCHead
from isogloss.model.spec import ModelConfig, ModelSpec
from isogloss.nn.int8 import with_floating_weights, with_int8_weights
from isogloss.nn.past import EncoderPast
from isogloss.sequence import Sequence
from isogloss.text.processor import TextProcessor
from isogloss.text.tokenizers import Tokenizer

H = TypeVar("H", bound=Head)

WANTS = {
    "symbols": "model.tokenizer",
    "phonemes": "phonemes in the model's configuration",
    "language": "data in two languages or more",
    "features": "model.tokenizer, as does the decoder it works with",
}
"""What a head of a target cannot do without."""


class Model(nn.Module):
    """A speech model. Heads exist where there is something to predict: symbols, languages."""

    def __init__(self, config: ModelConfig, tokenizer: Tokenizer | None = None):
        super().__init__()
        self.config = config
        self.tokenizer = tokenizer
        self._symbols: Symbols | None = None
        self.processor = TextProcessor(tokenizer, config.phonemes, config.text.units if config.text else "symbols")
        spec = self.spec
        self.features = config.features.build()
        self.encoder = SpeechEncoder(config.encoder, self.features.width)
        # What writes draws its weights before the text encoder, what classifies after it.
        heads = {name: head.build for name, head in spec.heads.items() if head.target != "language"}
        self.heads = nn.ModuleDict({name: build(spec.sizes) for name, build in heads.items()})
        self.text = None
        if config.text is not None and tokenizer is not None:
            spelling = self.processor.spelling()
            self.text = TextEncoder(config.text, spec.width, spelling, config.text_languages, spec.frame_seconds)
        for name, head in spec.heads.items():
            if head.target == "language":
                self.heads[name] = head.build(spec.sizes)
        if config.weights == "int8":
            with_int8_weights(self)

    @property
    def spec(self) -> ModelSpec:
        """What the model is without its weights."""
        return ModelSpec(self.config, self.processor)

    def head(self, name: str, kind: type[H]) -> H:
        """A head by its name; raises IsoglossError where there is none, or one of another kind."""
        if name not in self.config.heads:
            raise IsoglossError(f'This model has no head "{name}"; add model.heads.{name} to the recipe.')
        config = self.config.heads[name]
        if name not in self.heads:
            raise IsoglossError(f'The head "{name}" of this model was not built: it wants {WANTS[config.target]}.')
        found = self.heads[name]
        if not isinstance(found, kind):
            raise IsoglossError(
                f'The head "{name}" of this model is a {type(found).__name__}, and a {kind.__name__} is wanted; '
                f"set another kind in model.heads.{name} of the recipe, and train again."
            )
        return found

    def quantised(self) -> "Model":
        """The same model with int8 weights, to use and not to train."""
        made = copy.deepcopy(self)
        with_int8_weights(made)
        made.config = self.config.model_copy(update={"weights": "int8"})
        return made

    def trainable(self) -> "Model":
        """The same model with floating-point weights, as rounded as they are: itself if it has no others."""
        if self.config.weights == "float32":
            return self
        made = copy.deepcopy(self)
        with_floating_weights(made)
        made.config = self.config.model_copy(update={"weights": "float32"})
        return made

    def encode(
        self,
        features: Sequence,
        layers: tuple[int, ...] = (),
        past: EncoderPast | None = None,
        languages: Iterable[str | None] | None = None,
    ) -> Encoded:
        """Features (B, T, F) -> hidden states (B, T', D), as the encoder's; self-conditioned if the model is.

        `embed` and `contextualise` in one, for those that have nothing to hide in between.
        """
        return self.encoder(features, layers, past, languages, self._between())

    def check_layer(self, layer: int) -> None:
        """Raise IsoglossError where the encoder has no states of this number: 0 before the first block … the last."""
        if not 0 <= layer <= self.encoder.layers:
            raise IsoglossError(f"The encoder has no layer {layer}; give one from 0 to {self.encoder.layers}.")

    def embed(self, features: Sequence) -> Sequence:
        """Features (B, T, F) -> the states that enter the encoder's blocks, (B, T', D): where masks go."""
        return self.encoder.embed(features)

    def contextualise(
        self,
        states: Sequence,
        after: int = 0,
        until: int | None = None,
        layers: tuple[int, ...] = (),
        languages: Iterable[str | None] | None = None,
    ) -> Encoded:
        """States from `embed`, or of block `after`, (B, T', D) -> hidden states (B, T', D), as `encode` gives."""
        return self.encoder.contextualise(states, after, until, layers, languages, self._between())

    def encode_speech(self, features: Sequence, languages: Iterable[str | None] | None = None) -> Sequence:
        """Features (B, T, F) -> states (B, T', D) after the blocks that only speech goes through: MAESTRO's e_s."""
        return self.contextualise(self.embed(features), until=self.text_encoder.entry, languages=languages).final

    def encode_text(
        self, tokens: Sequence, languages: Iterable[str | None] | None = None, durations: Sequence | None = None
    ) -> Sequence:
        """Symbols (B, U) -> states (B, T, D) as `encode_speech` gives of their speech: MAESTRO's ê_t.

        durations: (B, U+1) frames of the silence before the text and of its symbols; predicted if not given.
        """
        text = self.text_encoder
        read: Sequence = text(text.embed(tokens, languages), durations)
        return read

    def encode_shared(
        self, states: Sequence, layers: tuple[int, ...] = (), languages: Iterable[str | None] | None = None
    ) -> Encoded:
        """What `encode_speech` or `encode_text` gave, (B, T, D) -> hidden states (B, T, D), as `encode` gives."""
        return self.contextualise(states, self.text_encoder.entry, layers=layers, languages=languages)

    @property
    def text_encoder(self) -> TextEncoder:
        """The text encoder; raises IsoglossError where there is none."""
        if self.text is None:
            raise IsoglossError("This model has no text encoder; train one with model.text in the recipe.")
        return self.text

    def _between(self) -> Between | None:
        hooks: dict[int, Callable[[Tensor], Tensor]] = {}
        for head in self.heads.values():
            assert isinstance(head, Head)
            for block, hook in head.between().items():
                hooks[block] = _both(hooks[block], hook) if block in hooks else hook
        return hooks or None

    @property
    def framing(self) -> Framing:
        """From samples of audio to frames of hidden states."""
        return self.spec.framing

    @property
    def frame_seconds(self) -> float:
        """Seconds from one frame of hidden states to the next."""
        return self.spec.frame_seconds

    @property
    def cannot_stream(self) -> str | None:
        """Why audio cannot be encoded as it arrives, and what helps; None where it can."""
        return self.config.features.cannot_stream or self.config.encoder.cannot_stream

    @property
    def decoders(self) -> tuple[str, ...]:
        """The heads that `decode` can use, the default first; none before fine-tuning."""
        spec = self.spec
        return tuple(sorted(spec.heads_for("symbols"), key=lambda name: KINDS.index(spec.heads[name].kind)))

    @property
    def symbols(self) -> Symbols:
        """Which symbols may follow which where nothing else is asked: any, in one script a word."""
        if self.tokenizer is None:
            raise IsoglossError("This model has no tokenizer: it was pre-trained on speech alone; fine-tune it first.")
        device = next(self.parameters()).device
        if self._symbols is None or self._symbols.follows.device != device:
            self._symbols = Symbols.one_script(self.tokenizer.spelling()).to(device)
        return self._symbols

    def decode(self, states: Sequence, decoder: str | None = None, allowed: Symbols | None = None) -> list[Hypothesis]:
        """Encoder states (B, T, D) -> B hypotheses, step by step.

        decoder: one of `decoders`, by default the first. allowed: which symbols may follow which; `symbols` by default.
        """
        return decoded(self.greedy_decoder(len(states), decoder, allowed), states)

    def search(
        self, states: Sequence, beam: Beam, decoder: str | None = None, allowed: Symbols | None = None
    ) -> list[list[Hypothesis]]:
        """Encoder states (B, T, D) -> for each utterance up to `beam.most` hypotheses, the best first."""
        head = self.decoder(decoder)
        beam = replace(beam, allowed=self.symbols if allowed is None else allowed)
        return head.beam(states, beam, dict(self.heads.items()))

    def greedy_decoder(self, batch: int, decoder: str | None = None, allowed: Symbols | None = None) -> Greedy:
        """What decodes the states of a batch, all at once or as they arrive; arguments as for `decode`."""
        head = self.decoder(decoder)
        return head.greedy(batch, self.symbols if allowed is None else allowed, dict(self.heads.items()))

    def decoder(self, name: str | None = None) -> SymbolHead:
        """One of `decoders`, by default the first; raises IsoglossError where there is none of that name."""
        known = self.decoders
        if not known:
            raise IsoglossError("This model has no recogniser: it was pre-trained on speech alone; fine-tune it first.")
        if name is not None and name not in known:
            near = did_you_mean(name, known)
            raise IsoglossError(f'This model has no decoder "{name}".{near} It has: {", ".join(known)}.')
        return self.head(name or known[0], SymbolHead)  # type: ignore[type-abstract]

    def words(
        self,
        hypothesis: Hypothesis,
        start: float = 0.0,
        end: float = inf,
        before: int = 0,
        calibration: tuple[float, float] | None = None,
    ) -> list[Word]:
        """The words of what `decode` found in the audio between `start` and `end`, in seconds.

        before: the frame after the last symbol of the word before. calibration: of their confidence, where they
        were not found greedily.
        """
        if self.tokenizer is None:
            raise IsoglossError("This model has no tokenizer: it was pre-trained on speech alone; fine-tune it first.")
        sure = Calibration(*(calibration or self.config.calibration))
        return words(hypothesis, self.tokenizer, self.frame_seconds, start, end, sure, before)

    def identify(self, states: Sequence) -> Tensor:
        """Encoder states (B, T, D) -> logits of the languages of the configuration, (B, languages)."""
        names = self.spec.heads_for("language")
        if not names:
            raise IsoglossError("This model does not identify languages; fine-tune it on more than one first.")
        return self.head(names[0], Classifier)(states)

    def ipa(self, states: Sequence) -> list[str]:
        """What is said, in the International Phonetic Alphabet, decoded step by step from states (B, T, D)."""
        found = decoded(self.ctc_head("phonemes").greedy(len(states)), states)
        return [self.processor.ipa(path.tokens) for path in found]

    def ctc_head(self, target: Literal["symbols", "phonemes"] = "symbols") -> CTCHead:
        """The first CTC head that predicts this; raises IsoglossError where there is none."""
        if not (names := self.spec.ctc_heads(target)):
            raise IsoglossError(f"This model has no CTC head for {target}; train one with model.heads in the recipe.")
        return self.head(names[0], CTCHead)


def _both(first: Callable[[Tensor], Tensor], second: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    return lambda states: second(first(states))
