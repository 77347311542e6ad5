"""The convolution module of the Conformer, which never sees padding."""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from isogloss.nn.dropout import Dropout
from isogloss.nn.past import Past

ConvolutionNorm = Literal["layer", "group", "batch"]


class ConvolutionModule(nn.Module):
    """LN → pointwise D→2D → GLU → depthwise (kernel K) → norm → Swish → pointwise (arXiv 2005.08100 §2.2).

    A causal one sees the K-1 frames before each and none after.

    The norm is over channels of one frame ("layer") or over groups of channels of one frame
    ("group"), never over time: that mixes padding, speech and text. "batch" is BatchNorm whose statistics stay as
    they were when weights were imported.
    """

    def __init__(
        self,
        width: int,
        kernel: int,
        norm: ConvolutionNorm,
        dropout: float,
        causal: bool = False,
        bias: bool = True,
    ):
        super().__init__()
        self.norm_in = nn.LayerNorm(width)
        self.expand = nn.Linear(width, 2 * width, bias=bias)
        self.depthwise = nn.Conv1d(width, width, kernel, groups=width, bias=bias)
        self.norm = {"layer": nn.LayerNorm, "group": FrameGroupNorm, "batch": FixedBatchNorm}[norm](width)
        self.project = nn.Linear(width, width, bias=bias)
        self.dropout = Dropout(dropout)
        self.before, self.after = (kernel - 1, 0) if causal else ((kernel - 1) // 2, kernel // 2)

    def forward(self, x: Tensor, valid: Tensor, past: Past | None = None) -> Tensor:
        """x: (B, T, D), valid: (B, T) bool -> (B, T, D). past: what came before, if the convolution is causal."""
        x = functional.glu(self.expand(self.norm_in(x)), dim=-1)
        x = x.masked_fill(~valid[..., None], 0.0)
        x = between(x, past, self.before, self.after)
        x = self.depthwise(x.transpose(1, 2)).transpose(1, 2)
        return self.dropout(self.project(functional.silu(self.norm(x))))


def between(x: Tensor, past: Past | None, before: int, after: int = 0) -> Tensor:
    """(B, T, D) with what a convolution sees on both sides: what came before, and zeros where nothing is known."""
    if past is None or past.gated is None:
        x = functional.pad(x, (0, 0, before, after))
    else:
        x = torch.cat([past.gated, x], dim=1)
    if past is not None:
        past.gated = x[:, x.shape[1] - before :]
    return x


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


class FixedBatchNorm(nn.BatchNorm1d):
    """BatchNorm with the statistics that it has, also while training: each frame is scaled and shifted on its own."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        assert self.running_mean is not None and self.running_var is not None
        scale = self.weight * torch.rsqrt(self.running_var + self.eps)
        return (x - self.running_mean) * scale + self.bias
