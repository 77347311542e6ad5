"""The speech encoder: normalised log-mel features -> hidden states at 25 Hz.

    (B, T, F) ── subsampling ×4 ── dropout ── stack of blocks ──> (B, ceil(T/4), D)
"""

from collections.abc import Iterable

from pydantic import Field
from torch import nn

from isogloss.config import Config
from isogloss.encoders.conformer import ConformerConfig
from isogloss.encoders.stack import Between, BlocksConfig, Encoded, Stack
from isogloss.errors import IsoglossError
from isogloss.nn.adapters import AdapterConfig, Adapters, Branch
from isogloss.nn.dropout import Dropout
from isogloss.nn.masks import ChunkContext, Context, FullContext, LocalContext
from isogloss.nn.past import EncoderPast, Past
from isogloss.nn.subsampling import Subsampling
from isogloss.sequence import Sequence


class SpeechEncoderConfig(Config):
    """Subsampler and blocks of a speech encoder."""

    blocks: BlocksConfig = Field(default_factory=ConformerConfig, description="the stack")
    channels: int = Field(32, ge=1, description="channels of the subsampler's convolutions")
    context: Context = Field(default_factory=FullContext, description="which frames a frame may attend to")
    adapters: AdapterConfig | None = Field(None, description="small networks for single languages beside the blocks")
    recompute: bool = Field(False, description="recompute activations in the backward pass to save memory")


class SpeechEncoder(nn.Module):
    """Features of `bins` per frame -> hidden states of `width`."""

    def __init__(self, config: SpeechEncoderConfig, bins: int):
        super().__init__()
        self.blocks = config.blocks
        self.width = config.blocks.width
        self.layers = config.blocks.layers
        self.context: Context = config.context
        self.subsampling = Subsampling(bins, config.channels, self.width)
        self.dropout = Dropout(config.blocks.dropout)
        self.stack = Stack(config.blocks, config.recompute)
        self.adapters: Adapters | None = None
        if config.adapters is not None:
            self._without = config.adapters.after * config.blocks.feeds
            places = config.blocks.layers * config.blocks.feeds - self._without
            if places <= 0:
                raise IsoglossError(
                    f"adapters.after {config.adapters.after} leaves no block for adapters; the encoder has "
                    f"{self.layers}, choose less."
                )
            self.adapters = Adapters(config.adapters, places, self.width)

    def forward(
        self,
        features: Sequence,
        layers: tuple[int, ...] = (),
        past: EncoderPast | None = None,
        languages: Iterable[str | None] | None = None,
        between: Between | None = None,
        until: int | None = None,
    ) -> Encoded:
        """(B, T, F) -> (B, ceil(T/4), D), with the hidden states of `layers` (0 … number of blocks).

        past: from `begin`, where features arrive in pieces; each piece but the last is of 4 · `chunk`
        frames or a multiple of it, and the states are those of the whole. languages: of the utterances,
        which choose their adapters; without them no adapter works. between, until: as of `Stack`.
        """
        states = self.subsampling(features, past.subsampling if past else None).map(self.dropout)
        blocks = past.blocks if past else None
        return self.stack(states, self.context, layers, blocks, self._adapters(languages), between, until=until)

    def go_on(
        self,
        states: Sequence,
        after: int,
        layers: tuple[int, ...] = (),
        languages: Iterable[str | None] | None = None,
        between: Between | None = None,
    ) -> Encoded:
        """What came out of block `after`, (B, T, D), or could have -> (B, T, D); arguments as of `forward`."""
        return self.stack(states, self.context, layers, None, self._adapters(languages), between, after)

    def _adapters(self, languages: Iterable[str | None] | None) -> list[Branch | None] | None:
        if self.adapters is None or languages is None:
            return None
        return [None] * self._without + self.adapters(languages)

    @property
    def chunk(self) -> int:
        """Encoder frames that must be there before the first of them is known."""
        return self.context.size if isinstance(self.context, ChunkContext) else 1

    def begin(self) -> EncoderPast:
        """What is remembered before the first frame; raises IsoglossError for an encoder that looks ahead."""
        context = self.context
        if isinstance(context, ChunkContext):
            keep = context.left_chunks * context.size
        elif isinstance(context, LocalContext) and context.right == 0:
            keep = context.left
        else:
            raise IsoglossError(
                f'This encoder cannot stream: its attention context is "{context.kind}", which looks ahead without '
                "bound; train with encoder.context={kind: chunk, size: 16, left_chunks: 8}."
            )
        if isinstance(self.blocks, ConformerConfig) and not self.blocks.causal:
            raise IsoglossError(
                "This encoder cannot stream: its convolutions look ahead; train with encoder.blocks.causal=true."
            )
        return EncoderPast([Past(keep) for _ in range(self.layers)])
