"""Dropout that draws eight decisions from each random number."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class Dropout(nn.Module):
    """Inverted dropout with its probability rounded to 1/256, at most 255/256.

    `nn.Dropout` draws one random number an element; on a CPU that costs a small model as much as
    its matrix products. Here one 64-bit draw gives eight bytes, each compared with p·256.
    """

    def __init__(self, probability: float):
        super().__init__()
        self.threshold = min(255, round(probability * 256))

    def forward(self, x: Tensor) -> Tensor:
        """Any shape -> the same shape."""
        if not self.training or self.threshold == 0:
            return x
        words = torch.empty((x.numel() + 7) // 8, dtype=torch.int64, device=x.device)
        draws = words.random_(-(2**63), None).view(torch.uint8)[: x.numel()].view(x.shape)
        scale = 256 / (256 - self.threshold)
        return x * (draws >= self.threshold).to(x.dtype).mul_(scale)

    def extra_repr(self) -> str:
        return f"p={self.threshold / 256:.3f}"


@contextmanager
def evaluating(*modules: nn.Module) -> Iterator[None]:
    """Evaluation mode inside, then each part as it was: what teaches or aligns has no dropout, whatever trains."""
    before = [(part, part.training) for module in modules for part in module.modules()]
    for module in modules:
        module.eval()
    yield
    for part, training in before:
        part.training = training
