"""Utterance classification: pooled hidden states -> classes (language now, speaker later)."""

from typing import Literal

from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from isogloss.heads.base import BaseHeadConfig, Head, Sizes
from isogloss.nn.pooling import AttentiveStatistics
from isogloss.sequence import Sequence


class ClassifierConfig(BaseHeadConfig):
    """The language of an utterance, among those of the data."""

    kind: Literal["classifier"] = "classifier"
    target: Literal["language"] = "language"

    def build(self, sizes: Sizes) -> "Classifier":
        """A class for each language."""
        return Classifier(sizes.width, sizes.of(self.target))


class Classifier(Head):
    """Attentive statistics pooling, LayerNorm and one linear layer."""

    def __init__(self, width: int, classes: int):
        super().__init__()
        self.pool = AttentiveStatistics(width)
        self.norm = nn.LayerNorm(2 * width)
        self.output = nn.Linear(2 * width, classes)

    def forward(self, states: Sequence) -> Tensor:
        """(B, T, D) -> logits (B, classes)."""
        return self.output(self.norm(self.pool(states)))

    def loss(self, states: Sequence, classes: Tensor) -> Tensor:
        """Cross-entropy in nats: (B, T, D) and classes (B,) int64 -> (B,)."""
        return cross_entropy(self(states), classes, reduction="none")
