"""Connectionist temporal classification (Graves et al. 2006): hidden states -> symbol posteriors."""

from collections.abc import Callable
from typing import Literal

from pydantic import Field
from torch import Tensor, nn

from isogloss.decoding.beam import Beam
from isogloss.decoding.ctc_beam import ctc_beam
from isogloss.decoding.greedy import Greedy, GreedyCTC
from isogloss.decoding.hypothesis import Hypothesis
from isogloss.decoding.symbols import Symbols
from isogloss.heads.base import BaseHeadConfig, Modules, Sizes, SymbolHead
from isogloss.nn.ctc import ctc_best_path, ctc_loss
from isogloss.sequence import Sequence


class CTCConfig(BaseHeadConfig):
    """A symbol or phoneme for each frame independently."""

    kind: Literal["ctc"] = "ctc"
    target: Literal["symbols", "phonemes"] = Field(
        "symbols", description="what is predicted; phonemes = IPA characters by espeak-ng (extra synthesis)"
    )
    conditioning: tuple[int, ...] = Field(
        (), description="blocks after which its posteriors are fed back to the encoder (self-conditioning)"
    )

    def build(self, sizes: Sizes) -> "CTCHead":
        """An output for each symbol, and for blank."""
        return CTCHead(sizes.width, sizes.of(self.target), self.conditioning)


class CTCHead(SymbolHead):
    """One linear layer to V symbols; symbol 0 is blank.

    conditioning: blocks after which the posteriors are fed back.
    """

    def __init__(self, width: int, vocabulary: int, conditioning: tuple[int, ...] = ()):
        super().__init__()
        self.output = nn.Linear(width, vocabulary)
        self.conditioning = SelfConditioning(width, vocabulary) if conditioning else None
        self.conditioned = conditioning

    def forward(self, states: Sequence) -> Sequence:
        """(B, T, D) -> float32 log-probabilities (B, T, V)."""
        # Zeros in the padding: NaN there would reach the gradient of the weights as 0 · NaN.
        return states.zero_padding().map(lambda values: self.output(values).float().log_softmax(dim=-1))

    def loss(self, states: Sequence, tokens: Sequence) -> Tensor:
        """-log P(tokens) of each utterance, in nats: (B, T, D) and (B, U) -> (B,); 0 where there is no path."""
        return ctc_loss(self(states), tokens)

    def align(self, states: Sequence, tokens: Sequence) -> Tensor:
        """The first frame of each symbol on the best path: (B, T, D), (B, U) -> (B, U) int64, -1 where there is none.
        """
        return ctc_best_path(self(states), tokens)[0][..., 0]

    def greedy(self, batch: int, allowed: Symbols | None = None, heads: Modules | None = None) -> Greedy:
        return GreedyCTC(self, batch, allowed)

    def beam(self, states: Sequence, beam: Beam, heads: Modules | None = None) -> list[list[Hypothesis]]:
        return ctc_beam(self(states), beam)

    def between(self) -> dict[int, Callable[[Tensor], Tensor]]:
        return dict.fromkeys(self.conditioned, self._feed_back)

    def _feed_back(self, states: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        assert self.conditioning is not None
        return self.conditioning(states, self.output(states))


class SelfConditioning(nn.Module):
    """What CTC finds after a block is fed back: x + W softmax(CTC(x)) (Nozaki & Komatsu 2021, eq. 9).

    CTC then no longer decides each frame without the others (arXiv 2104.02724).
    """

    def __init__(self, width: int, vocabulary: int):
        super().__init__()
        self.back = nn.Linear(vocabulary, width)

    def forward(self, states: Tensor, logits: Tensor) -> Tensor:
        """States (B, T, D) and CTC's logits of them (B, T, V) -> (B, T, D)."""
        return states + self.back(logits.float().softmax(dim=-1).to(states.dtype))
