"""Features -> the states that enter the blocks. Between the two is where masks go.

    subsampling    (B, T, F) ─ two convolutions ─ linear ─ dropout ─> (B, ceil(T/4), D)     log-mel to 25 Hz
    projection     (B, T, F) ─ LayerNorm ─ linear ─ dropout ───────> (B, T, D)              wav2vec 2.0
                   of several frames side by side                    (B, ⌊T/n⌋, D)          w2v-BERT 2.0
    convolutions   (B, T, F) ─ convolutions over time ─ + positions > (B, ⌈T/2⌉, D)          Whisper
    identity       (B, T, F) ──────────────────────────────────────> (B, T, F)              APC
    gumbel, nearest    (B, T, F) ─ a codeword for each ────────────> (B, T, F)              vq-wav2vec (quantised.py)

Each has the `width` of what comes out and its `framing`, and gives one frame of padding where there is none at all. A
configuration says in `cannot_stream` why audio cannot be taken as it arrives, and what helps; None where it can. And
in `keeps_width` whether what comes out is as wide as the features.
"""

from typing import Annotated, ClassVar, Literal

from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from isogloss.config import Config
from isogloss.encoders.blocks import BlocksConfig
from isogloss.encoders.quantised import GumbelConfig, NearestConfig
from isogloss.framing import Framing
from isogloss.nn.dropout import Dropout
from isogloss.nn.past import SubsamplingPast
from isogloss.nn.position import sinusoids
from isogloss.nn.subsampling import Subsampling, not_empty, stack
from isogloss.sequence import Sequence


class SubsamplingConfig(Config):
    """Two convolutions of stride 2 over time and frequency: a quarter of the frames."""

    cannot_stream: ClassVar[str | None] = None
    keeps_width: ClassVar[bool] = False

    kind: Literal["subsampling"] = "subsampling"
    channels: int = Field(32, ge=1, description="channels of both convolutions")

    @property
    def framing(self) -> Framing:
        """From frames of features to those that enter the blocks."""
        return Subsampling.framing

    def build(self, inputs: int, blocks: BlocksConfig) -> Subsampling:
        """From features of width `inputs` to the width of the blocks."""
        return Subsampling(inputs, self.channels, blocks.width, blocks.dropout)


class ProjectionConfig(Config):
    """A linear layer for every frame, or for several side by side."""

    cannot_stream: ClassVar[str | None] = None
    keeps_width: ClassVar[bool] = False

    kind: Literal["projection"] = "projection"
    norm: bool = Field(True, description="LayerNorm before the projection")
    stack: int = Field(1, ge=1, description="frames side by side that become one; a rest at the end is left out")
    dropout: float = Field(0.1, ge=0, lt=1, description="dropout after the projection")

    @property
    def framing(self) -> Framing:
        """From frames of features to those that enter the blocks."""
        return Framing() if self.stack == 1 else Framing(((self.stack, self.stack, 0),))

    def build(self, inputs: int, blocks: BlocksConfig) -> "Projection":
        """From features of width `inputs` to the width of the blocks."""
        return Projection(self, inputs, blocks.width)


class ConvolutionsConfig(Config):
    """Convolutions over time with GELU, and sinusoidal positions; the defaults are those of Whisper."""

    cannot_stream: ClassVar[str | None] = (
        "it counts positions from the beginning of a recording; train with model.encoder.embed={kind: subsampling}."
    )
    keeps_width: ClassVar[bool] = False

    kind: Literal["convolutions"] = "convolutions"
    kernel: int = Field(3, ge=1, description="width of every convolution, frames; odd")
    strides: tuple[int, ...] = Field((1, 2), min_length=1, description="stride of each convolution")

    @property
    def framing(self) -> Framing:
        """From frames of features to those that enter the blocks."""
        return Framing(tuple((self.kernel, stride, self.kernel // 2) for stride in self.strides))

    def build(self, inputs: int, blocks: BlocksConfig) -> "Convolutions":
        """From features of width `inputs` to the width of the blocks."""
        return Convolutions(self, inputs, blocks.width)


class IdentityConfig(Config):
    """Features as they are."""

    cannot_stream: ClassVar[str | None] = None
    keeps_width: ClassVar[bool] = True

    kind: Literal["identity"] = "identity"

    @property
    def framing(self) -> Framing:
        """From frames of features to those that enter the blocks."""
        return Identity.framing

    def build(self, inputs: int, blocks: BlocksConfig) -> "Identity":
        """Nothing to build but what remembers the width."""
        return Identity(inputs)


EmbedConfig = Annotated[
    SubsamplingConfig | ProjectionConfig | ConvolutionsConfig | IdentityConfig | GumbelConfig | NearestConfig,
    Field(discriminator="kind"),
]


class Projection(nn.Module):
    """LayerNorm, linear, dropout: (B, T, F) -> (B, ⌊T/n⌋, D)."""

    def __init__(self, config: ProjectionConfig, inputs: int, width: int):
        super().__init__()
        self.width = width
        self.framing = config.framing
        inputs *= config.stack
        self.norm = nn.LayerNorm(inputs) if config.norm else nn.Identity()
        self.project = nn.Linear(inputs, width)
        self.dropout = Dropout(config.dropout)

    def forward(self, features: Sequence, past: SubsamplingPast | None = None) -> Sequence:
        lengths = self.framing.frames(features.lengths)
        frames = self.framing.frames(features.values.shape[1])
        stacked = Sequence(stack(features, self.framing.stride)[:, :frames], lengths)
        return not_empty(stacked.zero_padding()).map(self._projected)

    def _projected(self, x: Tensor) -> Tensor:
        return self.dropout(self.project(self.norm(x)))


class Convolutions(nn.Module):
    """Convolutions with GELU, then sinusoidal positions: (B, T, F) -> (B, T', D). Padding is zeroed before each."""

    def __init__(self, config: ConvolutionsConfig, inputs: int, width: int):
        super().__init__()
        self.width = width
        self.framing = config.framing
        widths = [inputs] + [width] * len(config.strides)
        self.convolutions = nn.ModuleList(
            nn.Conv1d(before, after, config.kernel, stride, config.kernel // 2)
            for before, after, stride in zip(widths, widths[1:], config.strides, strict=False)
        )

    def forward(self, features: Sequence, past: SubsamplingPast | None = None) -> Sequence:
        states = not_empty(features)
        for convolution, window in zip(self.convolutions, self.framing.layers, strict=True):
            values = functional.gelu(convolution(states.zero_padding().values.transpose(1, 2))).transpose(1, 2)
            states = Sequence(values, Framing((window,)).frames(states.lengths))
        return states.map(lambda x: x + sinusoids(x.shape[1], self.width, x.device).to(x.dtype))


class Identity(nn.Module):
    """(B, T, F) -> (B, T, F)."""

    framing = Framing()

    def __init__(self, width: int):
        super().__init__()
        self.width = width

    def forward(self, features: Sequence, past: SubsamplingPast | None = None) -> Sequence:
        return not_empty(features)
