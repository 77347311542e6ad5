"""The speech encoder: features -> hidden states.

    (B, T, F) ── embed ──> (B, T', D) ── [masks] ── contextualise: a stack of blocks ──> (B, T', D)

`embed` and `contextualise` one after the other are `forward`. What hides a part of the input from the blocks does so
between the two: wav2vec 2.0 puts its mask vector there.
"""

from collections.abc import Iterable

from pydantic import Field, model_validator
from torch import nn

from isogloss.config import Config
from isogloss.encoders.blocks import BlocksConfig
from isogloss.encoders.conformer import ConformerConfig
from isogloss.encoders.embed import EmbedConfig, SubsamplingConfig
from isogloss.encoders.stack import Between, Encoded, Stack
from isogloss.errors import IsoglossError
from isogloss.framing import Framing
from isogloss.nn.adapters import AdapterConfig, Adapters, Branch
from isogloss.nn.masks import Context, FullContext
from isogloss.nn.past import EncoderPast, Past
from isogloss.sequence import Sequence


class SpeechEncoderConfig(Config):
    """The embedding of features and the stack of blocks."""

    embed: EmbedConfig = Field(
        default_factory=SubsamplingConfig, description="from features to the input of the blocks"
    )
    blocks: BlocksConfig = Field(default_factory=ConformerConfig, description="the stack of blocks")
    context: Context = Field(default_factory=FullContext, description="which frames a frame may attend to")
    adapters: AdapterConfig | None = Field(None, description="adapters beside the blocks")
    recompute: bool = Field(False, description="recompute activations in the backward pass to save memory")

    @model_validator(mode="after")
    def _check(self) -> "SpeechEncoderConfig":
        if not self.blocks.attends and self.context.kind != "full":
            raise ValueError(f"{self.blocks.kind} blocks have no attention for context {self.context.kind} to limit")
        return self

    @property
    def cannot_stream(self) -> str | None:
        """Why audio cannot be encoded as it arrives, and what helps; None where it can."""
        if self.blocks.attends and self.context.history is None:
            return (
                f'its attention context is "{self.context.kind}", which looks ahead without bound; '
                "train with model.encoder.context={kind: chunk, size: 16, left_chunks: 8}."
            )
        return self.embed.cannot_stream or self.blocks.cannot_stream


class SpeechEncoder(nn.Module):
    """Features of width `inputs` -> hidden states of `width`."""

    def __init__(self, config: SpeechEncoderConfig, inputs: int):
        super().__init__()
        self.config = config
        self.width = config.blocks.width
        self.layers = config.blocks.layers
        self.embed = config.embed.build(inputs, config.blocks)
        self.stack = Stack(config.blocks, config.recompute, self.embed.width)
        self.adapters = _adapters(config)

    def forward(
        self,
        features: Sequence,
        layers: tuple[int, ...] = (),
        past: EncoderPast | None = None,
        languages: Iterable[str | None] | None = None,
        between: Between | None = None,
        until: int | None = None,
    ) -> Encoded:
        """(B, T, F) -> (B, T', D): `embed`, then `contextualise`, with its arguments.

        past: from `begin`, where features arrive in pieces; each piece but the last makes `chunk` frames or
        a multiple of it, and the states are those of the whole.
        """
        states = self.embed(features, past.embed if past else None)
        return self.contextualise(states, 0, until, layers, languages, between, past)

    def contextualise(
        self,
        states: Sequence,
        after: int = 0,
        until: int | None = None,
        layers: tuple[int, ...] = (),
        languages: Iterable[str | None] | None = None,
        between: Between | None = None,
        past: EncoderPast | None = None,
    ) -> Encoded:
        """What came out of `embed`, or of block `after`, (B, T, D), or could have -> (B, T, D).

        until: the last block, whose output is then final as it is. layers: hidden states to return as well,
        0 … number of blocks. languages: of the utterances, which choose their adapters; without them no adapter
        works. between: what is done to the outputs of blocks. past: from `begin`, as in `forward`.
        """
        branches: list[Branch | None] | None = None
        if self.adapters is not None and languages is not None:
            last = self.adapters(languages)
            branches = [None] * (self.layers * self.stack.feeds - len(last)) + last
        blocks = past.blocks if past else None
        return self.stack(states, self.config.context, layers, blocks, branches, between, after, until)

    @property
    def framing(self) -> Framing:
        """From frames of features to those of the hidden states."""
        return self.embed.framing

    @property
    def chunk(self) -> int:
        """Frames of hidden states that must be there before the first of them is known."""
        return self.config.context.chunk

    def begin(self) -> EncoderPast:
        """What is remembered before the first frame; raises IsoglossError for an encoder that looks ahead."""
        if why := self.config.cannot_stream:
            raise IsoglossError(f"This encoder cannot stream: {why}")
        return EncoderPast([Past(self.config.context.history or 0) for _ in range(self.layers)])


def _adapters(config: SpeechEncoderConfig) -> Adapters | None:
    """The bank of adapters that a configuration asks for."""
    if config.adapters is None:
        return None
    blocks, after = config.blocks, config.adapters.after
    if not blocks.feeds:
        raise IsoglossError(f"Adapters stand beside feed-forward modules, of which {blocks.kind} blocks have none.")
    if after >= blocks.layers:
        raise IsoglossError(
            f"adapters.after {after} leaves no block for adapters; the encoder has {blocks.layers}, choose less."
        )
    return Adapters(config.adapters, (blocks.layers - after) * blocks.feeds, blocks.width)
