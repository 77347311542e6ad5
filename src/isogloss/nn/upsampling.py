"""From units to frames: three ways to stretch a text to the length of its speech.

    repeat    frame t of unit u is V_u                      Parallel Tacotron, arXiv 2010.11439 §2.3; MAESTRO
    gaussian  Σ_u w_tu V_u, w ∝ exp(-(t - c_u)² / 2σ_u²)    non-attentive Tacotron, arXiv 2010.04301 §3.2
    learned   Σ_u w_tu V_u + Σ_u w_tu A C_tu                Parallel Tacotron 2, arXiv 2103.14574 §2.2

c_u is the middle of unit u. In the learned form w and C are small networks of how far frame t is from the
start and the end of unit u; ours begins as `repeat`: the network's part of the weight is zero at first, and what
it is added to falls by `STEEP` with every frame outside the unit.

Durations are whole numbers and get no gradient: they are learned from alignments (Parallel Tacotron 2 learns them
through the weights instead). To each frame is added a learned vector of its place inside its unit, counted in frames.
"""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from isogloss.sequence import Sequence

Upsampling = Literal["repeat", "gaussian", "learned"]
PLACES = 32
"""Frames into a unit that have a vector of their own; later ones share the last."""
STEEP = 20.0


class Upsampler(nn.Module):
    """Units (B, U, D) with durations (B, U) -> frames (B, T, D), T their sum."""

    def __init__(self, kind: Upsampling, width: int, channels: int = 8):
        super().__init__()
        self.kind = kind
        self.place = nn.Embedding(PLACES, width)
        nn.init.normal_(self.place.weight, std=0.02)
        if kind == "gaussian":
            self.spread = nn.Linear(width, 1)
        if kind == "learned":
            self.near = nn.Conv1d(width, channels, 3, padding=1)
            self.weigh = _Distances(channels, 1)
            self.shift = _Distances(channels, 2)
            self.mix = nn.Linear(2, width, bias=False)
            for last in (self.weigh.output, self.mix):
                nn.init.zeros_(last.weight)

    def forward(self, units: Sequence, durations: Sequence) -> Sequence:
        """(B, U, D) and whole durations (B, U) -> (B, T, D)."""
        lengths = durations.zero_padding().values
        ends = lengths.cumsum(dim=1)
        frames = ends[:, -1]
        time = torch.arange(int(frames.max()), device=ends.device)
        # The unit of a frame is the first that ends after it.
        owner = torch.searchsorted(ends, time.expand(len(ends), -1).contiguous(), right=True)
        owner = owner.clamp(max=ends.shape[1] - 1)
        place = time - (ends - lengths).gather(1, owner)
        values = units.zero_padding().values
        if self.kind == "repeat":
            mixed = values.gather(1, owner[..., None].expand(-1, -1, values.shape[-1]))
        else:
            mixed = self._mixed(units.with_values(values), time + 0.5, ends, lengths)
        return Sequence(mixed + self.place(place.clamp(0, PLACES - 1)).to(mixed.dtype), frames)

    def _mixed(self, units: Sequence, time: Tensor, ends: Tensor, lengths: Tensor) -> Tensor:
        """Frames as weighted sums of units, (B, T, D). time: (T,) the middles of the frames."""
        since = time[:, None] - (ends - lengths)[:, None]  # (B, T, U)
        until = ends[:, None] - time[:, None]
        if self.kind == "gaussian":
            sigma = functional.softplus(self.spread(units.values))[..., 0] + 0.1
            scores = -(((since - until) / 2) ** 2) / (2 * sigma[:, None] ** 2)
        else:
            near = self.near(units.values.transpose(1, 2)).transpose(1, 2)
            scores = self.weigh(since, until, near)[..., 0] - STEEP * torch.relu(-torch.minimum(since, until))
        # Finite: a text without any unit must not turn into NaN.
        scores = scores.masked_fill(~units.valid[:, None], torch.finfo(scores.dtype).min)
        weights = scores.softmax(dim=-1).to(units.values.dtype)
        mixed = weights @ units.values
        if self.kind == "learned":
            mixed = mixed + self.mix(torch.einsum("btu,btuc->btc", weights, self.shift(since, until, near)))
        return mixed


class _Distances(nn.Module):
    """How a frame stands to a unit: distances to its start and end, and what it is, (B, T, U) -> (B, T, U, out)."""

    def __init__(self, channels: int, out: int, hidden: int = 16):
        super().__init__()
        self.distance = nn.Linear(2, hidden)
        self.unit = nn.Linear(channels, hidden, bias=False)
        self.output = nn.Linear(hidden, out, bias=False)

    def forward(self, since: Tensor, until: Tensor, near: Tensor) -> Tensor:
        """since, until: (B, T, U) frames; near: (B, U, C) -> (B, T, U, out)."""
        # Compressed, for a text may last thousands of frames.
        distance = torch.stack([since, until], dim=-1)
        distance = distance.sign() * distance.abs().log1p()
        return self.output(functional.silu(self.distance(distance.to(near.dtype)) + self.unit(near)[:, None]))
