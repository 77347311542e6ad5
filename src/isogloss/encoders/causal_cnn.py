"""Causal convolutions, one after another (the aggregator of wav2vec, arXiv 1904.05862 §2.1, and of vq-wav2vec).

    x ─ convolution over K frames up to this one ─ dropout ─ LayerNorm ─ ReLU ─ + ─ · √½ ─>    (B, T, D) -> (B, T, D)
    └───────────────────────────────────────────────────────────────────────────┘ where `residual` and widths agree

Differs from the paper: its norm is over all frames of a clip as well as over channels, those that follow too. A frame
would then know something of those that it is to predict, and nothing could be encoded as it arrives; here the norm is
over the channels of each frame. Before the first frame stand zeros; the published code repeats the first frame.
"""

from collections.abc import Sequence
from typing import ClassVar, Literal

from pydantic import Field, field_validator
from torch import Tensor, nn
from torch.nn import functional

from isogloss.encoders.without_attention import WithoutAttention
from isogloss.nn.adapters import Branch
from isogloss.nn.convolution import between
from isogloss.nn.dropout import Dropout
from isogloss.nn.past import Past

HALF_POWER = 0.5**0.5
"""What keeps the variance of a sum of two that of each."""


class CausalCNNConfig(WithoutAttention):
    """A stack of causal convolutions; the defaults are those of wav2vec large."""

    alike: ClassVar[bool] = False

    kind: Literal["cnn"] = "cnn"
    kernels: tuple[int, ...] = Field(
        tuple(range(2, 14)), min_length=1, description="frames that each convolution sees, its own and those before it"
    )
    width: int = Field(512, ge=1, description="model width D")
    residual: bool = Field(True, description="add the input of a layer to its output where both have width D")
    dropout: float = Field(0.0, ge=0, lt=1, description="dropout after every convolution")

    @field_validator("kernels")
    @classmethod
    def _check(cls, kernels: tuple[int, ...]) -> tuple[int, ...]:
        if min(kernels) < 1:
            raise ValueError("kernels are 1 or more")
        return kernels

    @property
    def layers(self) -> int:
        """How many convolutions there are."""
        return len(self.kernels)

    def build(self, inputs: int) -> list[nn.Module]:
        """The layers, the first of which takes inputs of any width."""
        widths = [inputs, *[self.width] * (self.layers - 1)]
        return [CausalConvolution(self, *both) for both in zip(widths, self.kernels, strict=True)]


class CausalConvolution(nn.Module):
    """One layer. Parameters: D (E K + 3) for inputs of width E."""

    def __init__(self, config: CausalCNNConfig, inputs: int, kernel: int):
        super().__init__()
        self.before = kernel - 1
        self.convolution = nn.Conv1d(inputs, config.width, kernel)
        self.dropout = Dropout(config.dropout)
        self.norm = nn.LayerNorm(config.width)
        self.residual = config.residual and inputs == config.width

    def forward(
        self,
        x: Tensor,
        valid: Tensor,
        mask: Tensor | None,
        past: Past | None = None,
        adapters: Sequence[Branch | None] = (),
    ) -> Tensor:
        """x: (B, T, E) -> (B, T, D). past: the last inputs before x; the rest is not needed."""
        seen = between(x, past, self.before).transpose(1, 2)
        states = self.dropout(self.convolution(seen).transpose(1, 2))
        states = functional.relu(self.norm(states))
        return (x + states) * HALF_POWER if self.residual else states
