"""Transformer block (arXiv 1706.03762), pre-norm, GELU: the control beside the Conformer.

    x ─ +MHSA ─ +FFN ─>        (B, T, D) -> (B, T, D)
"""

from collections.abc import Sequence
from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor, nn

from isogloss.config import Config
from isogloss.nn.adapters import Branch
from isogloss.nn.attention import Position, SelfAttention
from isogloss.nn.dropout import Dropout
from isogloss.nn.feedforward import FeedForward
from isogloss.nn.past import Past


class TransformerConfig(Config):
    """A stack of Transformer blocks."""

    feeds: ClassVar[int] = 1  # feed-forward modules of a block

    kind: Literal["transformer"] = "transformer"
    layers: int = Field(12, ge=1, description="blocks")
    width: int = Field(768, ge=8, description="model width D")
    heads: int = Field(12, ge=1, description="attention heads")
    position: Position = Field("rotary", description="none = the caller adds positions")
    dropout: float = Field(0.1, ge=0, lt=1, description="after every branch")

    def block(self) -> "TransformerBlock":
        """One block of the stack."""
        return TransformerBlock(self)


class TransformerBlock(nn.Module):
    """One Transformer block. Parameters without relative positions: 12 D² + 13 D."""

    def __init__(self, config: TransformerConfig):
        super().__init__()
        self.norm_attention = nn.LayerNorm(config.width)
        self.attention = SelfAttention(config.width, config.heads, config.position)
        self.feed = FeedForward(config.width, config.dropout, nn.GELU)
        self.dropout = Dropout(config.dropout)

    def forward(
        self,
        x: Tensor,
        valid: Tensor,
        mask: Tensor | None,
        past: Past | None = None,
        adapters: Sequence[Branch | None] = (None,),
    ) -> Tensor:
        """x: (B, T, D), mask: (B, 1, T, P+T) bool or None -> (B, T, D). `valid` is not needed.

        past: what the block remembers of P frames before, if audio is encoded as it arrives.
        """
        x = x + self.dropout(self.attention(self.norm_attention(x), mask, past))
        return x + self.feed(x, adapters[0])
