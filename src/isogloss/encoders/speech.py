"""The speech encoder: normalised log-mel features -> hidden states at 25 Hz.

    (B, T, F) ── subsampling ×4 ── dropout ── stack of blocks ──> (B, ceil(T/4), D)
"""

from pydantic import Field
from torch import nn

from isogloss.config import Config
from isogloss.encoders.conformer import ConformerConfig
from isogloss.encoders.stack import BlocksConfig, Encoded, Stack
from isogloss.nn.dropout import Dropout
from isogloss.nn.masks import Context, FullContext
from isogloss.nn.subsampling import Subsampling
from isogloss.sequence import Sequence


class SpeechEncoderConfig(Config):
    """Subsampler and blocks of a speech encoder."""

    blocks: BlocksConfig = Field(default_factory=ConformerConfig, description="the stack")
    channels: int = Field(32, ge=1, description="channels of the subsampler's convolutions")
    context: Context = Field(default_factory=FullContext, description="which frames a frame may attend to")
    recompute: bool = Field(False, description="recompute activations in the backward pass to save memory")


class SpeechEncoder(nn.Module):
    """Features of `bins` per frame -> hidden states of `width`."""

    def __init__(self, config: SpeechEncoderConfig, bins: int):
        super().__init__()
        self.width = config.blocks.width
        self.layers = config.blocks.layers
        self.context: Context = config.context
        self.subsampling = Subsampling(bins, config.channels, self.width)
        self.dropout = Dropout(config.blocks.dropout)
        self.stack = Stack(config.blocks, config.recompute)

    def forward(self, features: Sequence, layers: tuple[int, ...] = ()) -> Encoded:
        """(B, T, F) -> (B, ceil(T/4), D), with the hidden states of `layers` (0 … number of blocks)."""
        states = self.subsampling(features).map(self.dropout)
        return self.stack(states, self.context, layers)
