"""What a model is without its weights: its configuration, how it takes text, and its sizes and rates."""

from dataclasses import dataclass
from typing import Literal, overload

from pydantic import Field
from torch import Tensor

from isogloss.audio.features import FeaturesConfig
from isogloss.audio.log_mel import LogMelConfig
from isogloss.audio.reading import SAMPLE_RATE
from isogloss.config import Config
from isogloss.encoders.presets import preset
from isogloss.encoders.speech import SpeechEncoderConfig
from isogloss.encoders.text import TextEncoderConfig
from isogloss.errors import IsoglossError
from isogloss.framing import Framing
from isogloss.heads import HeadConfig, Heads, usual_heads
from isogloss.heads.base import Sizes, Target
from isogloss.heads.ctc import CTCConfig
from isogloss.text.processor import TextProcessor


class ModelConfig(Config):
    """Everything needed to rebuild a model's modules, but for the tokenizer's files."""

    features: FeaturesConfig = Field(default_factory=LogMelConfig, description="input of the encoder")
    encoder: SpeechEncoderConfig = Field(default_factory=lambda: preset("tiny"), description="the speech encoder")
    heads: Heads = Field(default_factory=usual_heads, description="heads by name")
    phonemes: tuple[str, ...] = Field((), description="IPA characters that heads of phonemes predict, in order")
    text: TextEncoderConfig | None = Field(None, description="text encoder, whose states enter the speech encoder")
    text_languages: tuple[str, ...] = Field((), description="BCP 47 tags the text encoder knows, in order")
    languages: tuple[str, ...] = Field((), description="BCP 47 tags the model tells apart, in class order")
    alphabets: dict[str, tuple[int, ...]] = Field({}, description="symbols in each language's transcripts")
    weights: Literal["float32", "int8"] = Field(
        "float32", description="weights of linear layers; int8 not for training"
    )
    calibration: tuple[float, float] = Field((1.0, 0.0), description="slope and offset of the words' log-odds")


@dataclass(frozen=True)
class ModelSpec:
    """What a model is without its weights; raises IsoglossError where its parts do not fit together."""

    config: ModelConfig
    processor: TextProcessor

    def __post_init__(self) -> None:
        for name, head in self.config.heads.items():
            blocks = _conditioning(head)
            if not all(1 <= block < self.layers for block in blocks):
                raise IsoglossError(
                    f"model.heads.{name}.conditioning {list(blocks)} must name blocks before the last, "
                    f"1 to {self.layers - 1}."
                )
        if self.entry is not None and self.entry >= self.layers:
            raise IsoglossError(
                f"text.entry {self.entry} leaves no block for text to share; the encoder has "
                f"{self.layers}, choose less."
            )
        if self.entry is not None and self.processor.units == "phonemes" and not self.heads_for("phonemes"):
            raise IsoglossError(
                "text.units: phonemes needs a head that predicts phonemes; add model.heads.phonemes: {}."
            )

    @property
    def bins(self) -> int:
        """Features a frame, F."""
        return self.config.features.width

    @property
    def frame_ms(self) -> float:
        """Milliseconds from one feature frame to the next."""
        return self.config.features.framing.stride * 1000 / SAMPLE_RATE

    @property
    def width(self) -> int:
        """Width of encoder states, D."""
        return self.config.encoder.blocks.width

    @property
    def layers(self) -> int:
        """Blocks of the encoder."""
        return self.config.encoder.blocks.layers

    @property
    def framing(self) -> Framing:
        """From samples of audio to frames of hidden states."""
        return self.config.features.framing.then(self.config.encoder.embed.framing)

    @property
    def stride(self) -> int:
        """Feature frames an encoder frame."""
        return self.config.encoder.embed.framing.stride

    @property
    def frame_seconds(self) -> float:
        """Seconds from one encoder frame to the next."""
        return self.framing.stride / SAMPLE_RATE

    @overload
    def feature_frames(self, samples: int) -> int: ...
    @overload
    def feature_frames(self, samples: Tensor) -> Tensor: ...
    def feature_frames(self, samples: int | Tensor) -> int | Tensor:
        """Feature frames of so many samples."""
        return self.config.features.framing.frames(samples)

    @overload
    def frames(self, samples: int) -> int: ...
    @overload
    def frames(self, samples: Tensor) -> Tensor: ...
    def frames(self, samples: int | Tensor) -> int | Tensor:
        """Encoder frames of so many samples."""
        return self.framing.frames(samples)

    @property
    def vocabulary(self) -> int:
        """Symbols of the tokenizer with the blank, V; 0 without a tokenizer."""
        return self.processor.tokenizer.size if self.processor.tokenizer is not None else 0

    @property
    def units(self) -> int:
        """Units that the text encoder takes, with the blank; 0 without one."""
        return len(self.processor.spelling()) if self.entry is not None else 0

    @property
    def entry(self) -> int | None:
        """Blocks of the encoder that text does not go through; None without a text encoder."""
        has_text = self.config.text is not None and self.processor.tokenizer is not None
        return self.config.text.entry if has_text and self.config.text is not None else None

    @property
    def text_entry(self) -> int:
        """The same; raises IsoglossError without a text encoder."""
        if self.entry is None:
            raise IsoglossError("This model has no text encoder; add model.text: {} to the recipe.")
        return self.entry

    @property
    def languages(self) -> tuple[str, ...]:
        """BCP 47 tags that the model tells apart, in class order."""
        return self.config.languages

    @property
    def text_languages(self) -> tuple[str, ...]:
        """BCP 47 tags that the text encoder knows."""
        return self.config.text_languages

    @property
    def sizes(self) -> Sizes:
        """What heads are built for."""
        return Sizes(
            width=self.width,
            symbols=self.vocabulary,
            phonemes=1 + len(self.config.phonemes) if self.config.phonemes else 0,
            languages=len(self.languages),
            features=self.bins,
            stride=self.stride,
            heads=self.config.heads,
        )

    @property
    def heads(self) -> dict[str, HeadConfig]:
        """The heads that a model has: those with two things or more to tell apart, as are the heads they work with."""
        sizes = self.sizes
        able = {name for name, head in self.config.heads.items() if sizes.of(head.target) > 1}
        return {name: head for name, head in self.config.heads.items() if name in able and able.issuperset(head.beside)}

    def heads_for(self, target: Target) -> tuple[str, ...]:
        """Names of the heads that learn this."""
        return tuple(name for name, head in self.heads.items() if head.target == target)

    def ctc_heads(self, target: Target) -> tuple[str, ...]:
        """Names of the CTC heads that learn this."""
        return tuple(name for name in self.heads_for(target) if self.heads[name].kind == "ctc")

    @property
    def middle(self) -> tuple[int, ...]:
        """Blocks after which CTC is trained beside the last: those it conditions the next on, else the middle one."""
        conditioned = {block for head in self.heads.values() for block in _conditioning(head)}
        return tuple(sorted(conditioned)) or ((self.layers + 1) // 2,)


def _conditioning(head: HeadConfig) -> tuple[int, ...]:
    return head.conditioning if isinstance(head, CTCConfig) else ()
