"""Quasi-recurrent layers (Bradbury et al. 2016, arXiv 1611.01576): the layer on top of PASE+'s convolutions.

    x (B, T, E) ─ this frame and the last ─ linear ─> z, f, o (B, T, H) ─ pooling ─> h ─ linear ─ + ─ norm ─> (B, T, D)
    └─ the last D features, which the layers below have left for the output ──────────────────────┘

    c_t = f_t c_{t-1} + (1 - f_t) z_t,  h_t = o_t c_t        z = tanh(…), f and o = σ(…): fo-pooling, a window of 2

Nothing of a step depends on the last one's state but a product and a sum, so that all frames are computed at once in
log T steps. Without `hidden` there is no recurrence but one linear layer, as on top of PASE.

Differs from PASE+: the norm at the end, which has no parameters there either, is over the channels of a frame and not
over the batch.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import layer_norm, pad

from isogloss.encoders.without_attention import WithoutAttention
from isogloss.errors import IsoglossError
from isogloss.nn.adapters import Branch
from isogloss.nn.dropout import Dropout
from isogloss.nn.past import Past


class QRNNConfig(WithoutAttention):
    """A stack of quasi-recurrent layers; the defaults are PASE+'s."""

    kind: Literal["qrnn"] = "qrnn"
    layers: int = Field(1, ge=1, description="layers")
    width: int = Field(256, ge=1, description="model width D; PASE 100")
    hidden: int = Field(512, ge=0, description="width H of the recurrence; 0 = linear layers without it, as in PASE")
    skip: bool = Field(True, description="add the last D features to the output of the first layer; PASE false")
    dropout: float = Field(0.0, ge=0, lt=1, description="dropout before what is added")

    def build(self, inputs: int) -> list[nn.Module]:
        """The layers, the first of which takes inputs of any width; raises IsoglossError for too few to skip."""
        if self.skip and inputs <= self.width:
            raise IsoglossError(
                f"encoder.blocks.skip adds the last {self.width} features to the output, and there are only {inputs}; "
                f"set features to {{kind: sincnet, skips: {self.width}}}, or skip to false."
            )
        return [QRNNBlock(self, *((inputs, self.skip) if not n else (self.width, False))) for n in range(self.layers)]


class QRNNBlock(nn.Module):
    """One layer. Parameters of the first, without those features: 3 H (2 E + 1) + D (H + 1) for inputs of width E."""

    def __init__(self, config: QRNNConfig, inputs: int, skip: bool):
        super().__init__()
        self.width, self.skip = config.width, skip
        inputs -= config.width * skip
        self.residual = inputs == config.width and not skip
        self.gates = nn.Linear(2 * inputs, 3 * config.hidden) if config.hidden else None
        self.project = nn.Linear(config.hidden or inputs, config.width)
        self.dropout = Dropout(config.dropout)

    def forward(
        self,
        x: Tensor,
        valid: Tensor,
        mask: Tensor | None,
        past: Past | None = None,
        adapters: Sequence[Branch | None] = (),
    ) -> Tensor:
        """x: (B, T, E) -> (B, T, D). past: the frame before, and the state there; the rest is not needed."""
        below = x[..., : -self.width] if self.skip else x
        states = below if self.gates is None else self._recurrent(self.gates, below, past)
        states = self.dropout(self.project(states))
        if self.skip or self.residual:
            states = states + x[..., -self.width :]
        return layer_norm(states, (self.width,))

    def _recurrent(self, gates: nn.Linear, x: Tensor, past: Past | None) -> Tensor:
        """(B, T, E) -> (B, T, H)."""
        before, state = past.state if past is not None and past.state is not None else (None, None)
        shifted = pad(x[:, :-1], (0, 0, 1, 0)) if before is None else torch.cat([before, x[:, :-1]], dim=1)
        z, f, o = gates(torch.cat([shifted, x], dim=-1)).to(gates.weight.dtype).chunk(3, dim=-1)
        f = f.sigmoid()
        states = recurrence(f, (1 - f) * z.tanh(), state)
        if past is not None:
            past.state = (x[:, -1:], states[:, -1:])
        return o.sigmoid() * states


def recurrence(factors: Tensor, inputs: Tensor, state: Tensor | None = None) -> Tensor:
    """c_t = factors_t · c_{t-1} + inputs_t, of all frames at once: (B, T, H), (B, T, H) -> (B, T, H).

    state: c before the first frame, (B, 1, H); zero if there is none. After k rounds each frame has taken in 2^k.
    """
    if state is not None:
        inputs = torch.cat([inputs[:, :1] + factors[:, :1] * state, inputs[:, 1:]], dim=1)
    distance = 1
    while distance < inputs.shape[1]:
        inputs = torch.addcmul(inputs, factors, pad(inputs[:, :-distance], (0, 0, distance, 0)))
        factors = factors * pad(factors[:, :-distance], (0, 0, distance, 0), value=1.0)
        distance *= 2
    return inputs
