"""`Model`: front end, encoder, heads and tokenizer together; what is trained, saved and used.

    audio (B, S) ─ frontend ─ (B, T, F) ─ encoder ─ (B, T/4, D) ─┬─ ctc ──────> (B, T/4, V)
                                           │ after some blocks   ├─ transducer ─> symbol by symbol
    symbols (B, U) ─ text encoder ─────────┘                     ├─ attention ──> symbol by symbol
                                                                 └─ language ─> (B, languages)
"""

import copy
from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from math import inf
from typing import Literal

import torch
from pydantic import Field
from torch import nn

from isogloss.config import Config
from isogloss.data.synthesis import phonemes
from isogloss.decoding.attention_beam import attention_beam
from isogloss.decoding.beam import Beam
from isogloss.decoding.ctc_beam import ctc_beam
from isogloss.decoding.greedy import Greedy, GreedyAttention, GreedyCTC, GreedyTransducer, decoded, greedy
from isogloss.decoding.hypothesis import Hypothesis
from isogloss.decoding.symbols import Symbols
from isogloss.decoding.transducer_beam import transducer_beam
from isogloss.decoding.words import Calibration, Word, words
from isogloss.encoders.presets import preset
from isogloss.encoders.speech import SpeechEncoder, SpeechEncoderConfig
from isogloss.encoders.stack import Between, Encoded
from isogloss.encoders.text import TextEncoder, TextEncoderConfig
from isogloss.errors import IsoglossError, did_you_mean
from isogloss.heads.attention import AttentionConfig, AttentionDecoder
from isogloss.heads.classifier import Classifier
from isogloss.heads.ctc import CTCHead, SelfConditioning
from isogloss.heads.speech import SpeechDecoder, SpeechDecoderConfig
from isogloss.heads.transducer import TransducerConfig, TransducerHead
from isogloss.model.frontend import Frontend, FrontendConfig
from isogloss.nn.int8 import with_int8_weights
from isogloss.nn.past import EncoderPast
from isogloss.nn.subsampling import FACTOR
from isogloss.sequence import Sequence
from isogloss.text.normalise import normalise
from isogloss.text.tokenizers import Tokenizer

Decoder = Literal["transducer", "ctc", "attention"]


class ModelConfig(Config):
    """Everything needed to rebuild a model's modules, but for the tokenizer's files."""

    frontend: FrontendConfig = Field(default_factory=FrontendConfig, description="features and normalisation")
    encoder: SpeechEncoderConfig = Field(default_factory=lambda: preset("tiny"), description="the speech encoder")
    transducer: TransducerConfig | None = Field(None, description="a transducer beside the CTC head")
    attention: AttentionConfig | None = Field(None, description="an attention decoder beside the CTC head")
    speech: SpeechDecoderConfig | None = Field(None, description="what makes the attention decoder write speech too")
    conditioning: tuple[int, ...] = Field((), description="blocks after which CTC's symbols are told to the next")
    phonemes: tuple[str, ...] = Field((), description="IPA characters that a second CTC head writes, in order")
    text: TextEncoderConfig | None = Field(None, description="a text encoder, whose states enter the speech encoder")
    text_languages: tuple[str, ...] = Field((), description="BCP 47 tags the text encoder knows, in order")
    languages: tuple[str, ...] = Field((), description="BCP 47 tags the model tells apart, in class order")
    alphabets: dict[str, tuple[int, ...]] = Field({}, description="symbols in each language's transcripts")
    weights: Literal["float32", "int8"] = Field("float32", description="of linear layers; int8 to use only")
    calibration: tuple[float, float] = Field((1.0, 0.0), description="slope and offset of the words' log-odds")


class Model(nn.Module):
    """A speech model. Heads exist where there is something to predict: symbols, languages."""

    def __init__(self, config: ModelConfig, tokenizer: Tokenizer | None = None):
        super().__init__()
        self.config = config
        self.tokenizer = tokenizer
        self.frontend = Frontend(config.frontend)
        self.encoder = SpeechEncoder(config.encoder, self.frontend.bins)
        width = self.encoder.width
        self.ctc = CTCHead(width, tokenizer.size) if tokenizer else None
        self.phonemes = CTCHead(width, 1 + len(config.phonemes)) if config.phonemes else None
        self._pronounced: dict[tuple[str, str], list[int]] = {}
        self.transducer = (
            TransducerHead(config.transducer, width, tokenizer.size) if config.transducer and tokenizer else None
        )
        self.attention = (
            AttentionDecoder(config.attention, width, tokenizer.size) if config.attention and tokenizer else None
        )
        self.speech = None
        if config.speech and config.attention and tokenizer:
            self.speech = SpeechDecoder(config.speech, width, config.attention.width, self.frontend.bins)
        self.conditioning = SelfConditioning(width, tokenizer.size) if config.conditioning and tokenizer else None
        if not all(1 <= block < self.encoder.layers for block in config.conditioning):
            raise IsoglossError(
                f"conditioning {list(config.conditioning)} must name blocks before the last, "
                f"1 to {self.encoder.layers - 1}."
            )
        self.text = None
        if config.text and tokenizer:
            pronounced = config.text.units == "phonemes"
            if pronounced and not config.phonemes:
                raise IsoglossError("text.units: phonemes needs a head that writes phonemes; set model.phonemes: true.")
            spelling = [b"", *(symbol.encode() for symbol in config.phonemes)] if pronounced else tokenizer.spelling()
            self.text = TextEncoder(config.text, width, spelling, config.text_languages)
            if config.text.entry >= self.encoder.layers:
                raise IsoglossError(
                    f"text.entry {config.text.entry} leaves no block for text to share; the encoder has "
                    f"{self.encoder.layers}, choose less."
                )
        self.language = Classifier(width, len(config.languages)) if config.languages else None
        if config.weights == "int8":
            with_int8_weights(self)

    def quantised(self) -> "Model":
        """The same model with int8 weights, to use and not to train."""
        made = copy.deepcopy(self)
        with_int8_weights(made)
        made.config = self.config.model_copy(update={"weights": "int8"})
        return made

    def encode(
        self,
        features: Sequence,
        layers: tuple[int, ...] = (),
        past: EncoderPast | None = None,
        languages: Iterable[str | None] | None = None,
    ) -> Encoded:
        """Features (B, T, F) -> hidden states (B, T/4, D), as the encoder's; self-conditioned if the model is."""
        return self.encoder(features, layers, past, languages, self._between())

    def encode_speech(self, features: Sequence, languages: Iterable[str | None] | None = None) -> Sequence:
        """Features (B, T, F) -> states (B, T/4, D) after the blocks that only speech goes through: MAESTRO's e_s."""
        return self.encoder(features, languages=languages, between=self._between(), until=self.text_encoder.entry).final

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
        return self.encoder.go_on(states, self.text_encoder.entry, layers, languages, self._between())

    @property
    def text_encoder(self) -> TextEncoder:
        """The text encoder; raises IsoglossError where there is none."""
        if self.text is None:
            raise IsoglossError("This model has no text encoder; train one with model.text in the recipe.")
        return self.text

    def _between(self) -> Between | None:
        if self.conditioning is None:
            return None
        return dict.fromkeys(self.config.conditioning, partial(self.conditioning, head=self.ctc))

    @property
    def frame_seconds(self) -> float:
        """Seconds from one encoder frame to the next."""
        return FACTOR * self.frontend.frame_ms / 1000

    @property
    def decoders(self) -> tuple[Decoder, ...]:
        """What `decode` can read the states with, the default first; none before fine-tuning."""
        heads: dict[Decoder, nn.Module | None] = {
            "transducer": self.transducer,
            "ctc": self.ctc,
            "attention": self.attention,
        }
        return tuple(name for name, head in heads.items() if head is not None)

    def decode(
        self, states: Sequence, decoder: Decoder | None = None, allowed: Symbols | None = None
    ) -> list[Hypothesis]:
        """Encoder states (B, T, D) -> B hypotheses, step by step.

        decoder: one of `decoders`, by default the first. allowed: which symbols may follow which.
        """
        return decoded(self.greedy_decoder(len(states), decoder, allowed), states)

    def search(
        self, states: Sequence, beam: Beam, decoder: Decoder | None = None, allowed: Symbols | None = None
    ) -> list[list[Hypothesis]]:
        """Encoder states (B, T, D) -> for each utterance up to `beam.most` hypotheses, the best first."""
        decoder, beam = self._decoder(decoder), replace(beam, allowed=allowed)
        assert self.ctc is not None
        if decoder == "transducer" and self.transducer is not None:
            return transducer_beam(self.transducer, states, beam)
        if decoder == "attention" and self.attention is not None:
            return attention_beam(self.attention, self.ctc, states, beam)
        return ctc_beam(self.ctc(states), beam)

    def greedy_decoder(self, batch: int, decoder: Decoder | None = None, allowed: Symbols | None = None) -> Greedy:
        """What reads the states of a batch, all at once or as they arrive; arguments as for `decode`."""
        decoder = self._decoder(decoder)
        assert self.ctc is not None
        if decoder == "transducer" and self.transducer is not None:
            return GreedyTransducer(self.transducer, batch, allowed)
        if decoder == "attention" and self.attention is not None:
            return GreedyAttention(self.attention, self.ctc, batch, allowed)
        return GreedyCTC(self.ctc, batch, allowed)

    def _decoder(self, asked: Decoder | None) -> Decoder:
        """The decoder asked for, by default the first."""
        if not self.decoders:
            raise IsoglossError("This model has no recogniser: it was pre-trained on speech alone; fine-tune it first.")
        if asked is not None and asked not in self.decoders:
            near = did_you_mean(asked, self.decoders)
            raise IsoglossError(f'This model has no decoder "{asked}".{near} It has: {", ".join(self.decoders)}.')
        return asked or self.decoders[0]

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

    def tokens(self, text: str, language: str | None = None) -> list[int]:
        """A transcript as the symbols the heads predict, after normalisation."""
        if self.tokenizer is None:
            raise IsoglossError("This model has no tokenizer: it was pre-trained on speech alone; fine-tune it first.")
        return self.tokenizer.encode(normalise(text, language))

    def written(self, texts: Iterable[str | None], languages: Iterable[str | None]) -> Sequence:
        """Transcripts as the symbols the heads predict, (B, U) int64; None is an empty one."""
        rows = [self.tokens(text or "", tag) for text, tag in zip(texts, languages, strict=True)]
        return Sequence.from_list([torch.tensor(row, dtype=torch.int64) for row in rows])

    def pronounced(self, texts: Iterable[str | None], languages: Iterable[str | None]) -> Sequence:
        """Transcripts as phonemes, (B, P) int64; those that no head writes are left out.

        Raises IsoglossError for a language whose rules espeak-ng does not know, and for none.
        """
        said = [(normalise(text or "", tag), tag or "und") for text, tag in zip(texts, languages, strict=True)]
        if any(tag == "und" for _, tag in said):
            raise IsoglossError("This model reads text as it is pronounced; say in which language it is (--language).")
        ids = {symbol: number for number, symbol in enumerate(self.config.phonemes, start=1)}
        new: dict[str, list[str]] = {}
        for text, tag in dict.fromkeys(said):
            if (text, tag) not in self._pronounced:
                new.setdefault(tag, []).append(text)
        for tag, group in new.items():
            for text, line in zip(group, phonemes(group, tag), strict=True):
                self._pronounced[text, tag] = [ids[symbol] for symbol in line if symbol in ids]
        return Sequence.from_list([torch.tensor(self._pronounced[key], dtype=torch.int64) for key in said])

    def ipa(self, states: Sequence) -> list[str]:
        """What is said, in the International Phonetic Alphabet, read off states (B, T, D) step by step."""
        if self.phonemes is None:
            raise IsoglossError("This model writes no phonemes; train one with model.phonemes: true.")
        return [self.spelled(path.tokens) for path in greedy(self.phonemes(states))]

    def spelled(self, phonemes: Iterable[int]) -> str:
        """Phonemes in the International Phonetic Alphabet."""
        return "".join(self.config.phonemes[phoneme - 1] for phoneme in phonemes)

    def units(self, texts: Iterable[str | None], languages: Iterable[str | None]) -> Sequence:
        """Texts as the text encoder takes them, (B, U) int64: phonemes, or what the heads predict."""
        assert self.config.text is not None
        return (self.pronounced if self.config.text.units == "phonemes" else self.written)(texts, languages)

    @property
    def unit_head(self) -> CTCHead:
        """The CTC head that writes the units of the text encoder."""
        assert self.config.text is not None and self.ctc is not None
        return self.phonemes if self.config.text.units == "phonemes" and self.phonemes is not None else self.ctc

    def unit_name(self, unit: int) -> str:
        """A unit of the text encoder as it is spelled."""
        assert self.config.text is not None and self.tokenizer is not None
        if self.config.text.units == "phonemes":
            return self.config.phonemes[unit - 1]
        return self.tokenizer.decode([unit])

    def language_index(self, tag: str) -> int:
        """The class of a language."""
        try:
            return self.config.languages.index(tag)
        except ValueError:
            known = ", ".join(self.config.languages)
            near = did_you_mean(tag, self.config.languages)
            raise IsoglossError(f'The model does not know the language "{tag}".{near} It knows: {known}.') from None
