"""Lightweight convolution (Wu et al. 2019, arXiv 1901.10430 §3): one softmax-normalised kernel for many channels.

    x ─ LN ─ D→2D ─ GLU ─ Σ_k softmax(w_h)_k x_{t+k} ─ D→D ─ dropout        a residual branch, (B, T, D) -> (B, T, D)

Head h of H holds D/H channels and a kernel w_h of K weights: a convolution of H·K parameters that can only average.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from isogloss.nn.dropout import Dropout
from isogloss.nn.feedforward import FeedForward


class LightweightConvolution(nn.Module):
    """The branch above; frames of padding count as zeros."""

    def __init__(self, width: int, heads: int, kernel: int, dropout: float):
        super().__init__()
        if width % heads:
            raise ValueError(f"width {width} does not divide into {heads} heads")
        self.share = width // heads
        self.norm = nn.LayerNorm(width)
        self.expand = nn.Linear(width, 2 * width)
        self.weight = nn.Parameter(torch.randn(heads, kernel) * kernel**-0.5)
        self.project = nn.Linear(width, width)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        """x: (B, T, D), valid: (B, T) bool -> (B, T, D)."""
        gated = functional.glu(self.expand(self.norm(x)), dim=-1).masked_fill(~valid[..., None], 0.0)
        kernel = self.weight.softmax(dim=-1).repeat_interleave(self.share, dim=0)[:, None]
        reach = kernel.shape[-1]
        padded = functional.pad(gated, (0, 0, (reach - 1) // 2, reach // 2)).transpose(1, 2)
        mixed = functional.conv1d(padded, kernel.to(padded.dtype), groups=len(kernel))
        return self.dropout(self.project(mixed.transpose(1, 2)))


class LightweightBlock(nn.Module):
    """Convolution and feed-forward network, each on a residual branch (Parallel Tacotron, arXiv 2010.11439 §2.1)."""

    def __init__(self, width: int, heads: int, kernel: int, dropout: float):
        super().__init__()
        self.convolution = LightweightConvolution(width, heads, kernel, dropout)
        self.feed = FeedForward(width, dropout, nn.ReLU)

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        """x: (B, T, D), valid: (B, T) bool -> (B, T, D)."""
        x = x + self.convolution(x, valid)
        return x + self.feed(x)
