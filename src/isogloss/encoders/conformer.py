"""Conformer block (Gulati et al. 2020, arXiv 2005.08100), pre-norm throughout.

    x ─ +½FFN ─ +MHSA ─ +Conv ─ +½FFN ─ LN ─>        (B, T, D) -> (B, T, D)

Differs from the paper: LayerNorm or GroupNorm per frame instead of BatchNorm (which would see
padding and mix speech with text), and other positions by choice. wav2vec 2.0's and w2v-BERT 2.0's have no biases in the
convolution module; the former has BatchNorm, whose statistics stay fixed, and a LayerNorm after the last block.
"""

from collections.abc import Sequence
from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor, nn

from isogloss.config import Config
from isogloss.nn.adapters import Branch
from isogloss.nn.attention import SelfAttention
from isogloss.nn.convolution import ConvolutionModule, ConvolutionNorm
from isogloss.nn.dropout import Dropout
from isogloss.nn.feedforward import FeedForward
from isogloss.nn.past import Past


class ConformerConfig(Config):
    """A stack of Conformer blocks."""

    feeds: ClassVar[int] = 2
    attends: ClassVar[bool] = True
    alike: ClassVar[bool] = True
    any_width: ClassVar[bool] = False

    kind: Literal["conformer"] = "conformer"
    layers: int = Field(8, ge=1, description="blocks")
    width: int = Field(144, ge=8, description="model width D")
    heads: int = Field(4, ge=1, description="attention heads")
    kernel: int = Field(15, ge=1, description="kernel width K of the depthwise convolution, in frames")
    position: Literal["rotary", "rotary_inputs", "relative", "relative_key", "none"] = Field(
        "rotary",
        description="positions in the attention; relative = as in the paper, rotary is faster, relative_key = w2v-BERT "
        "2.0, rotary_inputs = wav2vec 2.0's Conformer",
    )
    left_max: int = Field(64, ge=0, description="frames before from which on relative_key knows no difference")
    right_max: int = Field(8, ge=0, description="frames after from which on relative_key knows no difference")
    norm: ConvolutionNorm = Field(
        "layer", description="norm inside the convolution module; batch = with fixed statistics, of imported weights"
    )
    bias: bool = Field(True, description="biases in the convolution module")
    causal: bool = Field(False, description="the convolution uses no later frames, as streaming requires")
    final_norm: bool = Field(False, description="a LayerNorm after the last block, besides that in which it ends")
    dropout: float = Field(0.1, ge=0, lt=1, description="dropout after every branch")
    layer_drop: float = Field(0.0, ge=0, lt=1, description="probability that training leaves a block out")

    @property
    def cannot_stream(self) -> str | None:
        """Why blocks cannot work on audio as it arrives, and what helps; None where they can."""
        if self.position == "rotary_inputs":
            return "its positions are counted from the beginning; train with model.encoder.blocks.position=rotary."
        return None if self.causal else "its convolutions look ahead; train with model.encoder.blocks.causal=true."

    def entry(self) -> None:
        """What is done before the first block: nothing."""

    def bias_of_positions(self) -> None:
        """What all blocks add to the scores of their attention: nothing."""

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
        self.attention = SelfAttention(width, config.heads, config.position, (config.left_max, config.right_max))
        self.convolution = ConvolutionModule(width, config.kernel, config.norm, dropout, config.causal, config.bias)
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
