"""Best-path CTC decoding with times."""

from dataclasses import dataclass

from torch import Tensor

from isogloss.heads.ctc import BLANK
from isogloss.sequence import Sequence


@dataclass(frozen=True)
class Hypothesis:
    """A decoded token sequence.

    tokens: symbol ids. frames: (first, last + 1) encoder frames of each symbol's run.
    confidence: mean probability of the best symbol over the frames where it is not blank.
    """

    tokens: list[int]
    frames: list[tuple[int, int]]
    confidence: float


def greedy(log_probabilities: Sequence) -> list[Hypothesis]:
    """The most probable symbol of each frame, runs merged, blanks dropped. (B, T, V) -> B hypotheses."""
    best, symbols = log_probabilities.values.max(dim=-1)
    best, symbols = best.exp().cpu(), symbols.cpu()
    lengths = log_probabilities.lengths.tolist()
    return [_collapse(symbols[i, :n], best[i, :n]) for i, n in enumerate(lengths)]


def _collapse(symbols: Tensor, probability: Tensor) -> Hypothesis:
    tokens: list[int] = []
    frames: list[tuple[int, int]] = []
    previous = BLANK
    for frame, symbol in enumerate(symbols.tolist()):
        if symbol == previous and symbol != BLANK:
            frames[-1] = (frames[-1][0], frame + 1)
        elif symbol != BLANK:
            tokens.append(symbol)
            frames.append((frame, frame + 1))
        previous = symbol
    spoken = probability[symbols != BLANK]
    return Hypothesis(tokens, frames, float(spoken.mean()) if len(spoken) else 0.0)
