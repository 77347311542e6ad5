"""What every head is: a configuration that says what it learns, and builds it for a model's sizes."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from pydantic import Field
from torch import Tensor, nn

from isogloss.config import Config
from isogloss.decoding.beam import Beam
from isogloss.decoding.greedy import Greedy
from isogloss.decoding.hypothesis import Hypothesis
from isogloss.decoding.symbols import Symbols
from isogloss.sequence import Sequence

Target = Literal["symbols", "phonemes", "language", "features"]
Modules = Mapping[str, nn.Module]
"""The heads of a model, by name."""


class BaseHeadConfig(Config):
    """What the configuration of every head says."""

    kind: str = Field(description="kind of head")
    target: Target = Field(description="what the head predicts")

    @property
    def beside(self) -> dict[str, str]:
        """Names and kinds of the other heads that it works with."""
        return {}

    @abstractmethod
    def build(self, sizes: "Sizes") -> nn.Module:
        """The head, with random weights."""


@dataclass(frozen=True)
class Sizes:
    """What a head is built for.

    width: of encoder states, D. symbols, phonemes: with the blank, V; languages: that are told apart; features: bins
    of a feature frame, F; 0 of what a model has not. stride: feature frames an encoder frame. heads: of the model.
    """

    width: int
    symbols: int = 0
    phonemes: int = 0
    languages: int = 0
    features: int = 0
    stride: int = 1
    heads: Mapping[str, BaseHeadConfig] = field(default_factory=dict)

    def of(self, target: Target) -> int:
        """How many there are of what a head learns."""
        if target == "language":
            return self.languages
        return {"symbols": self.symbols, "phonemes": self.phonemes, "features": self.features}[target]


class Head(nn.Module):
    """Encoder states (B, T, D) -> what is learned."""

    def between(self) -> dict[int, Callable[[Tensor], Tensor]]:
        """What it does to the output of blocks, (B, T, D), before the next one has it, by the number of the block."""
        return {}


class SymbolHead(Head, ABC):
    """A head that writes symbols.

    streams: whether it can while states arrive; otherwise it must have them all.
    allowed: which symbols may follow which; None for any. heads: of the model, by name.
    """

    streams = True

    @abstractmethod
    def loss(self, states: Sequence, tokens: Sequence) -> Tensor:
        """Encoder states (B, T, D) and symbols (B, U) -> (B,), in nats."""

    @abstractmethod
    def greedy(self, batch: int, allowed: Symbols | None = None, heads: Modules | None = None) -> Greedy:
        """What decodes the states of a batch, all at once or as they arrive: the likeliest symbol at every step."""

    @abstractmethod
    def beam(self, states: Sequence, beam: Beam, heads: Modules | None = None) -> list[list[Hypothesis]]:
        """Encoder states (B, T, D) -> for each utterance up to `beam.most` hypotheses, the best first."""
