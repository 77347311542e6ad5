"""Conformer block (Gulati et al. 2020, arXiv 2005.08100), pre-norm throughout.

    x ─ +½FFN ─ +MHSA ─ +Conv ─ +½FFN ─ LN ─>        (B, T, D) -> (B, T, D)

Differs from the paper: LayerNorm or GroupNorm per frame instead of BatchNorm (which would see
padding and mix speech with text), and rotary positions by choice.
"""

from collections.abc import Sequence
from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor, nn

from isogloss.config import Config
from isogloss.nn.adapters import Branch
from isogloss.nn.attention import Position, SelfAttention
from isogloss.nn.convolution import ConvolutionModule, ConvolutionNorm
from isogloss.nn.dropout import Dropout
from isogloss.nn.feedforward import FeedForward
from isogloss.nn.past import Past


class ConformerConfig(Config):
    """A stack of Conformer blocks."""

    feeds: ClassVar[int] = 2
    attends: ClassVar[bool] = True
    any_width: ClassVar[bool] = False
    final_norm: ClassVar[bool] = False  # a block ends in a LayerNorm of its own

    kind: Literal["conformer"] = "conformer"
    layers: int = Field(8, ge=1, description="blocks")
    width: int = Field(144, ge=8, description="model width D")
    heads: int = Field(4, ge=1, description="attention heads")
    kernel: int = Field(15, ge=1, description="kernel width K of the depthwise convolution, in frames")
    position: Position = Field(
        "rotary", description="positions in the attention; relative = as in the paper, rotary is faster"
    )
    norm: ConvolutionNorm = Field("layer", description="norm inside the convolution module")
    causal: bool = Field(False, description="the convolution uses no later frames, as streaming requires")
    dropout: float = Field(0.1, ge=0, lt=1, description="dropout after every branch")

    @property
    def cannot_stream(self) -> str | None:
        """Why blocks cannot work on audio as it arrives, and what helps; None where they can."""
        return None if self.causal else "its convolutions look ahead; train with model.encoder.blocks.causal=true."

    def entry(self) -> nn.Module:
        """What is done before the first block: nothing."""
        return nn.Identity()

    def build(self, inputs: int) -> list[nn.Module]:
        """The blocks, one after another."""
        return [ConformerBlock(self) for _ in range(self.layers)]


class ConformerBlock(nn.Module):
    """One Conformer block. Parameters with relative positions: 24 D² + (32 + K) D."""

    def __init__(self, config: ConformerConfig):
        super().__init__()
        width, dropout = config.width, config.dropout
        self.feed_in = FeedForward(width, dropout)
        self.norm_attention = nn.LayerNorm(width)
        self.attention = SelfAttention(width, config.heads, config.position)
        self.convolution = ConvolutionModule(width, config.kernel, config.norm, dropout, config.causal)
        self.feed_out = FeedForward(width, dropout)
        self.norm = nn.LayerNorm(width)
        self.dropout = Dropout(dropout)

    def forward(
        self,
        x: Tensor,
        valid: Tensor,
        mask: Tensor | None,
        past: Past | None = None,
        adapters: Sequence[Branch | None] = (None, None),
    ) -> Tensor:
        """x: (B, T, D), valid: (B, T) bool, mask: (B, 1, T, P+T) bool or None -> (B, T, D).

        past: what the block remembers of P frames before, if audio is encoded as it arrives.
        """
        x = x + 0.5 * self.feed_in(x, adapters[0])
        x = x + self.dropout(self.attention(self.norm_attention(x), mask, past))
        x = x + self.convolution(x, valid, past)
        return self.norm(x + 0.5 * self.feed_out(x, adapters[1]))
