"""What decoding asks of a head, so that any head that offers it can be decoded; heads/ has ours.

CTC is asked for log-probabilities alone: any function of states (B, T, D) -> (B, T, V) will do.
"""

from collections.abc import Callable
from typing import Any, Protocol

from torch import Tensor

from isogloss.nn.predictors import State
from isogloss.sequence import Sequence

CTC = Callable[[Sequence], Sequence]
"""States (B, T, D) -> log-probabilities (B, T, V)."""


class TransducerProtocol(Protocol):
    """A frame and the symbols so far, both of width J -> the next symbol or blank."""

    @property
    def audio(self) -> Callable[[Tensor], Tensor]:
        """Encoder states (…, D) -> (…, J)."""

    def begin(self, batch: int) -> tuple[Tensor, State]:
        """Before the first symbol: (B, J) and what is remembered."""

    def step(self, symbols: Tensor, state: State) -> tuple[Tensor, State]:
        """One more symbol each, (B,) -> (B, J) and what is remembered."""

    def predict(self, tokens: Sequence) -> Tensor:
        """Whole texts at once, (B, U) -> (B, U+1, J): place u has read the symbols before u."""

    def join(self, audio: Tensor, text: Tensor) -> Tensor:
        """(…, J) twice, broadcast against each other -> float32 log-probabilities (…, V)."""


class AttentionProtocol(Protocol):
    """The whole utterance and the symbols so far -> the next symbol or the end."""

    def begin(self, states: Sequence, remember: bool = True) -> Any:
        """States (B, T, D) -> what is remembered before the first symbol; with `remember`, also while it writes."""

    def step(self, symbols: Tensor, remembered: Any) -> Tensor:
        """One more symbol each, (B,), `END` first -> log-probabilities of the next, (B, V)."""

    def following(self, prefixes: Tensor, remembered: Any) -> Tensor:
        """Prefixes of one utterance's text, (n, U), `END` first -> log-probabilities of the next symbol, (n, V)."""
