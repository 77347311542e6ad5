"""Recurrent layers, one after another, that see nothing of what follows (the encoder of APC, arXiv 1904.03240).

    x ─ GRU or LSTM ─ dropout ─ + ─>        (B, T, D) -> (B, T, D); the sum where widths agree
    └───────────────────────────┘

The dropout is missing in the last layer, as in APC's published code.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from isogloss.encoders.without_attention import WithoutAttention
from isogloss.nn.adapters import Branch
from isogloss.nn.dropout import Dropout
from isogloss.nn.past import Past


class RecurrentConfig(WithoutAttention):
    """A stack of recurrent layers; the defaults are APC's."""

    kind: Literal["rnn"] = "rnn"
    cell: Literal["gru", "lstm"] = Field("gru", description="cell of every layer")
    layers: int = Field(3, ge=1, description="layers")
    width: int = Field(512, ge=1, description="model width D")
    residual: bool = Field(True, description="add the input of a layer to its output where both have width D")
    dropout: float = Field(0.1, ge=0, lt=1, description="dropout after every layer but the last")

    def build(self, inputs: int) -> list[nn.Module]:
        """The layers, the first of which takes inputs of any width."""
        widths = [inputs, *[self.width] * (self.layers - 1)]
        dropouts = [*[self.dropout] * (self.layers - 1), 0.0]
        return [RecurrentBlock(self, *both) for both in zip(widths, dropouts, strict=True)]


class RecurrentBlock(nn.Module):
    """One layer. Parameters of a GRU: 3 D (E + D + 2) for inputs of width E."""

    def __init__(self, config: RecurrentConfig, inputs: int, dropout: float):
        super().__init__()
        kind = {"gru": nn.GRU, "lstm": nn.LSTM}[config.cell]
        self.cell = kind(inputs, config.width, batch_first=True)
        self.dropout = Dropout(dropout)
        self.residual = config.residual and inputs == config.width

    def forward(
        self,
        x: Tensor,
        valid: Tensor,
        mask: Tensor | None,
        past: Past | None = None,
        adapters: Sequence[Branch | None] = (),
    ) -> Tensor:
        """x: (B, T, E) -> (B, T, D). past: what the layer remembers of the frames before; the rest is not needed."""
        # Without AVX-512 a processor has no recurrence in bf16; GPUs do.
        with torch.autocast("cpu", enabled=False):
            states, state = self.cell(x.to(self.cell.weight_ih_l0.dtype), past.state if past else None)
        if past is not None:
            past.state = state
        states = self.dropout(states)
        return x + states if self.residual else states
