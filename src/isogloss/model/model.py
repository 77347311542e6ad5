"""`Model`: front end, encoder, heads and tokenizer together; what is trained, saved and used.

    audio (B, S) ─ frontend ─ (B, T, F) ─ encoder ─ (B, T/4, D) ─┬─ ctc ──────> (B, T/4, V)
                                                                 ├─ transducer ─> symbol by symbol
                                                                 ├─ attention ──> symbol by symbol
                                                                 └─ language ─> (B, languages)
"""

from typing import Literal

from pydantic import Field
from torch import Tensor, nn

from isogloss.config import Config
from isogloss.decoding.beam import Beam, beam_search
from isogloss.decoding.greedy import Greedy, GreedyAttention, GreedyCTC, GreedyTransducer, decoded
from isogloss.decoding.hypothesis import Hypothesis
from isogloss.encoders.presets import preset
from isogloss.encoders.speech import SpeechEncoder, SpeechEncoderConfig
from isogloss.errors import IsoglossError, did_you_mean
from isogloss.heads.attention import AttentionConfig, AttentionDecoder
from isogloss.heads.classifier import Classifier
from isogloss.heads.ctc import CTCHead
from isogloss.heads.transducer import TransducerConfig, TransducerHead
from isogloss.model.frontend import Frontend, FrontendConfig
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
    languages: tuple[str, ...] = Field((), description="BCP 47 tags the model tells apart, in class order")
    alphabets: dict[str, tuple[int, ...]] = Field({}, description="symbols in each language's transcripts")


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
        self.transducer = (
            TransducerHead(config.transducer, width, tokenizer.size) if config.transducer and tokenizer else None
        )
        self.attention = (
            AttentionDecoder(config.attention, width, tokenizer.size) if config.attention and tokenizer else None
        )
        self.language = Classifier(width, len(config.languages)) if config.languages else None

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
        self,
        states: Sequence,
        decoder: Decoder | None = None,
        allowed: Tensor | None = None,
        beam: Beam | None = None,
    ) -> list[Hypothesis]:
        """Encoder states (B, T, D) -> B hypotheses.

        decoder: one of `decoders`, by default the first. allowed: (V,) bool, the symbols that may be
        written, blank among them. beam: search over CTC instead of deciding frame by frame.
        """
        if beam is not None:
            if decoder not in (None, "ctc") or self.ctc is None:
                raise IsoglossError("A beam searches over CTC only; take the decoder ctc, or no beam.")
            return [found[0] for found in beam_search(self.ctc(states), beam, allowed, most=1)]
        return decoded(self.reader(len(states), decoder, allowed), states)

    def reader(self, batch: int, decoder: Decoder | None = None, allowed: Tensor | None = None) -> Greedy:
        """What reads the states of a batch, all at once or as they arrive; arguments as for `decode`."""
        if not self.decoders:
            raise IsoglossError("This model has no recogniser: it was pre-trained on speech alone; fine-tune it first.")
        if decoder is not None and decoder not in self.decoders:
            near = did_you_mean(decoder, self.decoders)
            raise IsoglossError(f'This model has no decoder "{decoder}".{near} It has: {", ".join(self.decoders)}.')
        decoder = decoder or self.decoders[0]
        assert self.ctc is not None
        if decoder == "transducer" and self.transducer is not None:
            return GreedyTransducer(self.transducer, batch, allowed)
        if decoder == "attention" and self.attention is not None:
            return GreedyAttention(self.attention, self.ctc, batch, allowed)
        return GreedyCTC(self.ctc, batch, allowed)

    def tokens(self, text: str, language: str | None = None) -> list[int]:
        """A transcript as the symbols the heads predict, after normalisation."""
        if self.tokenizer is None:
            raise IsoglossError("This model has no tokenizer: it was pre-trained on speech alone; fine-tune it first.")
        return self.tokenizer.encode(normalise(text, language))

    def language_index(self, tag: str) -> int:
        """The class of a language."""
        try:
            return self.config.languages.index(tag)
        except ValueError:
            known = ", ".join(self.config.languages)
            near = did_you_mean(tag, self.config.languages)
            raise IsoglossError(f'The model does not know the language "{tag}".{near} It knows: {known}.') from None
