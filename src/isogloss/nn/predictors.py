"""Prediction networks of the transducer: the symbols written so far -> a state that waits for audio.

Every network reads a symbol at a time (`step`) or a whole transcript at once (`forward`), with the same
result. Symbol 0 stands before the first symbol.
"""

from abc import ABC, abstractmethod
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from isogloss.config import Config
from isogloss.sequence import Sequence

BEGIN = 0
State = tuple[Tensor, ...]
"""What a network remembers; each tensor begins with the batch axis."""


class Predictor(nn.Module, ABC):
    """Symbols -> states of width P."""

    width: int

    @abstractmethod
    def forward(self, tokens: Sequence) -> Tensor:
        """(B, U) -> (B, U+1, P): position u has read the symbols before u."""

    @abstractmethod
    def start(self, batch: int, device: torch.device) -> State:
        """Before anything was read."""

    @abstractmethod
    def step(self, symbols: Tensor, state: State) -> tuple[Tensor, State]:
        """One symbol each, (B,) -> (B, P); `BEGIN` comes first."""


class LSTMConfig(Config):
    """An LSTM over the whole transcript (Graves 2012)."""

    kind: Literal["lstm"] = "lstm"
    width: int = Field(320, ge=1, description="width of embeddings and cells")
    layers: int = Field(1, ge=1, description="LSTM layers; USM and MAESTRO 2 of 1280")

    def build(self, vocabulary: int) -> "LSTMPredictor":
        return LSTMPredictor(self, vocabulary)


class LSTMPredictor(Predictor):
    """Embedding and LSTM: (B, U) -> (B, U+1, P)."""

    def __init__(self, config: LSTMConfig, vocabulary: int):
        super().__init__()
        self.width = config.width
        self.embedding = nn.Embedding(vocabulary, config.width)
        self.lstm = nn.LSTM(config.width, config.width, config.layers, batch_first=True)

    def forward(self, tokens: Sequence) -> Tensor:
        return self._read(_begun(tokens))[0]

    def start(self, batch: int, device: torch.device) -> State:
        zeros = torch.zeros(batch, self.lstm.num_layers, self.width, device=device)
        return zeros, zeros

    def step(self, symbols: Tensor, state: State) -> tuple[Tensor, State]:
        hidden, cells = (part.transpose(0, 1).contiguous() for part in state)
        output, (hidden, cells) = self._read(symbols[:, None], (hidden, cells))
        return output[:, 0], (hidden.transpose(0, 1), cells.transpose(0, 1))

    def _read(self, symbols: Tensor, state: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, State]:
        values = self.embedding(symbols)
        # Without AVX-512 a processor has no LSTM in bf16; GPUs do.
        with torch.autocast("cpu", enabled=False):
            output, state = self.lstm(values, state)
        return output, state


class StatelessConfig(Config):
    """Only the last symbols (Ghodsi et al. 2020): small, fast, hardly a language model."""

    kind: Literal["stateless"] = "stateless"
    width: int = Field(320, ge=1, description="width of embeddings")
    context: int = Field(2, ge=1, description="number of last symbols used")

    def build(self, vocabulary: int) -> "StatelessPredictor":
        return StatelessPredictor(self, vocabulary)


class StatelessPredictor(Predictor):
    """Embedding, and a depthwise convolution over the last `context` symbols: (B, U) -> (B, U+1, P)."""

    def __init__(self, config: StatelessConfig, vocabulary: int):
        super().__init__()
        self.width = config.width
        self.context = config.context
        self.embedding = nn.Embedding(vocabulary, config.width)
        self.mix = nn.Conv1d(config.width, config.width, config.context, groups=config.width)

    def forward(self, tokens: Sequence) -> Tensor:
        return self._mixed(functional.pad(_begun(tokens), (self.context - 1, 0), value=BEGIN))

    def start(self, batch: int, device: torch.device) -> State:
        return (torch.full((batch, self.context - 1), BEGIN, device=device),)

    def step(self, symbols: Tensor, state: State) -> tuple[Tensor, State]:
        seen = torch.cat([state[0], symbols[:, None]], dim=1)
        return self._mixed(seen)[:, 0], (seen[:, 1:],)

    def _mixed(self, symbols: Tensor) -> Tensor:
        return functional.relu(self.mix(self.embedding(symbols).transpose(1, 2)).transpose(1, 2))


PredictorConfig = Annotated[LSTMConfig | StatelessConfig, Field(discriminator="kind")]


def _begun(tokens: Sequence) -> Tensor:
    """(B, U) -> (B, U+1), `BEGIN` before each and in the padding."""
    return functional.pad(tokens.zero_padding().values, (1, 0), value=BEGIN)
