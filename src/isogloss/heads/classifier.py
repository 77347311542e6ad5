"""Utterance classification: pooled hidden states -> classes (language now, speaker later)."""

from torch import Tensor, nn

from isogloss.nn.pooling import AttentiveStatistics
from isogloss.sequence import Sequence


class Classifier(nn.Module):
    """Attentive statistics pooling, LayerNorm and one linear layer."""

    def __init__(self, width: int, classes: int):
        super().__init__()
        self.pool = AttentiveStatistics(width)
        self.norm = nn.LayerNorm(2 * width)
        self.output = nn.Linear(2 * width, classes)

    def forward(self, states: Sequence) -> Tensor:
        """(B, T, D) -> logits (B, classes)."""
        return self.output(self.norm(self.pool(states)))
