"""The convolution module of the Conformer, which never sees padding."""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from isogloss.nn.dropout import Dropout

ConvolutionNorm = Literal["layer", "group"]


class ConvolutionModule(nn.Module):
    """LN → pointwise D→2D → GLU → depthwise (kernel K) → norm → Swish → pointwise (arXiv 2005.08100 §2.2).

    The norm is over channels of one frame ("layer") or over groups of channels of one frame
    ("group"), never BatchNorm or statistics over time: those mix padding, speech and text.
    """

    def __init__(self, width: int, kernel: int, norm: ConvolutionNorm, dropout: float):
        super().__init__()
        self.norm_in = nn.LayerNorm(width)
        self.expand = nn.Linear(width, 2 * width)
        self.depthwise = nn.Conv1d(width, width, kernel, groups=width)
        self.norm = nn.LayerNorm(width) if norm == "layer" else FrameGroupNorm(width)
        self.project = nn.Linear(width, width)
        self.dropout = Dropout(dropout)
        self.padding = ((kernel - 1) // 2, kernel // 2)

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        """x: (B, T, D), valid: (B, T) bool -> (B, T, D)."""
        x = functional.glu(self.expand(self.norm_in(x)), dim=-1)
        x = x.masked_fill(~valid[..., None], 0.0)
        x = self.depthwise(functional.pad(x.transpose(1, 2), self.padding)).transpose(1, 2)
        return self.dropout(self.project(functional.silu(self.norm(x))))


class FrameGroupNorm(nn.Module):
    """GroupNorm over groups of channels within each frame, so that time steps stay apart."""

    def __init__(self, width: int, groups: int = 8):
        super().__init__()
        self.groups = groups
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        flat = x.reshape(-1, x.shape[-1], 1)
        return functional.group_norm(flat, self.groups, self.weight, self.bias).view_as(x)
