"""Connectionist temporal classification (Graves et al. 2006): hidden states -> symbol posteriors."""

from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional

from isogloss.sequence import Sequence

BLANK = 0


class CTCHead(nn.Module):
    """One linear layer to V symbols; symbol 0 is blank."""

    def __init__(self, width: int, vocabulary: int):
        super().__init__()
        self.output = nn.Linear(width, vocabulary)

    def forward(self, states: Sequence) -> Sequence:
        """(B, T, D) -> float32 log-probabilities (B, T, V)."""
        # Zeros in the padding: NaN there would reach the gradient of the weights as 0 · NaN.
        return states.zero_padding().map(lambda values: self.output(values).float().log_softmax(dim=-1))


class SelfConditioning(nn.Module):
    """What a block writes is told to the blocks after it: x + W softmax(CTC(x)) (Nozaki & Komatsu 2021, eq. 9).

    CTC then no longer decides each frame without the others (arXiv 2104.02724).
    """

    def __init__(self, width: int, vocabulary: int):
        super().__init__()
        self.back = nn.Linear(vocabulary, width)

    def forward(self, states: Tensor, head: CTCHead) -> Tensor:
        """(B, T, D) -> (B, T, D); the head is the one that reads the last layer."""
        return states + self.back(head.output(states).float().softmax(dim=-1).to(states.dtype))


def ctc_loss(log_probabilities: Sequence, tokens: Sequence) -> Tensor:
    """-log P(tokens) of each utterance, in nats: (B, T, V) and (B, U) -> (B,).

    An utterance with fewer frames than `frames_needed` has no path; its loss is zero here, and
    whoever calls counts it (the preflight refuses such data before training).
    """
    return functional.ctc_loss(
        log_probabilities.values.transpose(0, 1),
        tokens.values,
        log_probabilities.lengths,
        tokens.lengths,
        blank=BLANK,
        reduction="none",
        zero_infinity=True,
    )


def frames_needed(tokens: list[int]) -> int:
    """Frames the shortest CTC path takes: one a symbol and a blank between equal neighbours."""
    return len(tokens) + sum(a == b for a, b in pairwise(tokens))


def infeasible(frames: Tensor, tokens: Sequence) -> Tensor:
    """(B,) bool, True where an utterance has fewer frames than its shortest path needs."""
    values = tokens.values
    inside = tokens.valid[:, 1:]
    repeats = ((values[:, 1:] == values[:, :-1]) & inside).sum(dim=1)
    return frames < tokens.lengths + repeats
