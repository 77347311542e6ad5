"""Transformer blocks with GELU: pre-norm, the control beside the Conformer, or post-norm (arXiv 1706.03762).

    pre     x ─ +MHSA(LN) ─ +FFN(LN) ─>                LayerNorm after the last block        wav2vec 2.0 large
    post    LN ─ x ─ +MHSA ─ LN ─ +FFN ─ LN ─>         LayerNorm before the first block      wav2vec 2.0 base, BERT

(B, T, D) -> (B, T, D). Positions are in the attention, or convolutions add them before the first block, or both.

Differs from wav2vec 2.0: no dropout on attention weights, which would force the slow path that materialises them.
"""

from collections.abc import Sequence
from typing import ClassVar, Literal

from pydantic import Field, model_validator
from torch import Tensor, nn

from isogloss.config import Config
from isogloss.nn.adapters import BlockAdapter, Branch
from isogloss.nn.attention import SelfAttention
from isogloss.nn.dropout import Dropout
from isogloss.nn.feedforward import FeedForward
from isogloss.nn.past import Past
from isogloss.nn.position import BucketedPosition, ConvolutionalPosition, DeepConvolutionalPosition


class ConvolutionalPositionConfig(Config):
    """Convolutions that add positions before the first block; the defaults are those of wav2vec 2.0.

    data2vec has five of kernel 19, with LayerNorm.
    """

    kernel: int = Field(128, ge=1, description="kernel width K, in frames")
    groups: int = Field(16, ge=1, description="groups of channels")
    layers: int = Field(1, ge=1, description="convolutions, one after another")
    norm: Literal["weight", "layer"] = Field(
        "weight", description="normalisation: of the weights of a single convolution, or of the output of each"
    )

    @model_validator(mode="after")
    def _check(self) -> "ConvolutionalPositionConfig":
        if self.layers > 1 and self.norm == "weight":
            raise ValueError(f"layers {self.layers} wants norm: layer")
        return self

    def build(self, width: int) -> ConvolutionalPosition | DeepConvolutionalPosition:
        """The convolutions, for states of a width."""
        if self.norm == "weight":
            return ConvolutionalPosition(width, self.kernel, self.groups)
        return DeepConvolutionalPosition(width, self.kernel, self.groups, self.layers)


class TransformerConfig(Config):
    """A stack of Transformer blocks."""

    feeds: ClassVar[int] = 1
    attends: ClassVar[bool] = True
    alike: ClassVar[bool] = True
    any_width: ClassVar[bool] = False

    kind: Literal["transformer"] = "transformer"
    layers: int = Field(12, ge=1, description="blocks")
    width: int = Field(768, ge=8, description="model width D")
    heads: int = Field(12, ge=1, description="attention heads")
    norm: Literal["pre", "post"] = Field("pre", description="LayerNorm before each branch, or after its sum")
    position: Literal["rotary", "relative", "gated", "none"] = Field(
        "rotary", description="positions in the attention; gated = a bias of buckets of distances, as in WavLM"
    )
    buckets: int = Field(320, ge=4, multiple_of=4, description="buckets of distances, where position is gated")
    max_distance: int = Field(800, ge=2, description="frames from which on gated positions know no difference")
    convolution: ConvolutionalPositionConfig | None = Field(
        None, description="convolutional positions before the first block: {}"
    )
    adapter: int | None = Field(
        None, ge=1, description="inner width of an adapter behind every block, as MMS has for each language"
    )
    dropout: float = Field(0.1, ge=0, lt=1, description="dropout after every branch")
    layer_drop: float = Field(0.0, ge=0, lt=1, description="probability that training leaves a block out")

    @model_validator(mode="after")
    def _check(self) -> "TransformerConfig":
        if self.adapter is not None and self.norm == "post":
            raise ValueError(f"adapter {self.adapter} wants norm: pre")
        return self

    @property
    def final_norm(self) -> bool:
        """Whether a LayerNorm follows the last block; one that is post-norm ends in its own."""
        return self.norm == "pre"

    @property
    def cannot_stream(self) -> str | None:
        """Why blocks cannot work on audio as it arrives, and what helps; None where they can."""
        if self.convolution is not None:
            return "its convolutional positions look ahead; train with model.encoder.blocks.convolution=null."
        return None

    def entry(self) -> nn.Module | None:
        """What is done before the first block."""
        return None if self.convolution is None and self.norm == "pre" else TransformerEntry(self)

    def bias_of_positions(self) -> BucketedPosition | None:
        """What all blocks add to the scores of their attention."""
        return BucketedPosition(self.heads, self.buckets, self.max_distance) if self.position == "gated" else None

    def build(self, inputs: int) -> list[nn.Module]:
        """The blocks, one after another."""
        kind = TransformerBlock if self.norm == "pre" else PostNormBlock
        return [kind(self) for _ in range(self.layers)]


class TransformerEntry(nn.Module):
    """Convolutional positions, and the LayerNorm that post-norm blocks expect: (B, T, D) -> (B, T, D)."""

    def __init__(self, config: TransformerConfig):
        super().__init__()
        self.positions = None if config.convolution is None else config.convolution.build(config.width)
        self.norm = nn.LayerNorm(config.width) if config.norm == "post" else nn.Identity()
        self.dropout = Dropout(config.dropout)

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        if self.positions is not None:
            x = x + self.positions(x, valid)
        return self.dropout(self.norm(x))


class TransformerBlock(nn.Module):
    """One pre-norm block. Parameters without relative positions: 12 D² + 13 D."""

    def __init__(self, config: TransformerConfig):
        super().__init__()
        self.norm_attention = nn.LayerNorm(config.width)
        self.attention = SelfAttention(config.width, config.heads, config.position)
        self.feed = FeedForward(config.width, config.dropout, nn.GELU)
        self.dropout = Dropout(config.dropout)
        self.adapter = nn.Identity() if config.adapter is None else BlockAdapter(config.width, config.adapter)

    def forward(
        self,
        x: Tensor,
        valid: Tensor,
        mask: Tensor | None,
        past: Past | None = None,
        adapters: Sequence[Branch | None] = (None,),
        bias: Tensor | None = None,
    ) -> Tensor:
        """x: (B, T, D), mask: (B, 1, T, P+T) bool or None -> (B, T, D). `valid` is not needed.

        past: what the block remembers of P frames before, if audio is encoded as it arrives. bias: (H, T, P+T).
        """
        x = x + self.dropout(self.attention(self.norm_attention(x), mask, past, bias))
        adapted: Tensor = self.adapter(x + self.feed(x, adapters[0]))
        return adapted


class PostNormBlock(nn.Module):
    """One post-norm block, with as many parameters."""

    def __init__(self, config: TransformerConfig):
        super().__init__()
        self.attention = SelfAttention(config.width, config.heads, config.position)
        self.norm_attention = nn.LayerNorm(config.width)
        self.feed = FeedForward(config.width, config.dropout, nn.GELU, norm_first=False)
        self.norm = nn.LayerNorm(config.width)
        self.dropout = Dropout(config.dropout)

    def forward(
        self,
        x: Tensor,
        valid: Tensor,
        mask: Tensor | None,
        past: Past | None = None,
        adapters: Sequence[Branch | None] = (None,),
        bias: Tensor | None = None,
    ) -> Tensor:
        """(B, T, D) -> (B, T, D); arguments as of `TransformerBlock`."""
        x = self.norm_attention(x + self.dropout(self.attention(x, mask, past, bias)))
        return self.norm(x + self.feed(x, adapters[0]))
