"""Greedy decoding of the transducer, all utterances of a batch together."""

import torch
from torch import Tensor

from isogloss.decoding.greedy import Hypothesis
from isogloss.heads.transducer import TransducerHead
from isogloss.nn.predictors import BEGIN
from isogloss.sequence import Sequence

MOST = 10
"""Symbols one frame may write: more is a loop."""
AHEAD = 8
"""Frames looked at together for the next symbol; most write none."""


class _Writing:
    """One utterance of a batch."""

    def __init__(self) -> None:
        self.tokens: list[int] = []
        self.frames: list[tuple[int, int]] = []
        self.scores: list[float] = []

    def write(self, symbol: int, frame: int, score: float) -> None:
        self.tokens.append(symbol)
        self.frames.append((frame, frame + 1))
        self.scores.append(score)

    def hypothesis(self) -> Hypothesis:
        probability = torch.tensor(self.scores).exp().mean().item() if self.scores else 0.0
        return Hypothesis(self.tokens, self.frames, probability)


def greedy_transducer(head: TransducerHead, states: Sequence, allowed: Tensor | None = None) -> list[Hypothesis]:
    """The best arc of each node, step by step: (B, T, D) -> B hypotheses.

    Loops over symbols and not over frames (label-looping; Xu et al. 2024, arXiv 2406.06220): the state
    of the predictor changes with a symbol only, so that each utterance is searched some frames ahead
    for its next one. allowed: (V,) bool, the symbols that may be written, blank among them.
    """
    batch, lengths, device = len(states), states.lengths, states.device
    audio = head.audio(states.zero_padding().values)
    text, state = head.read(torch.full((batch,), BEGIN, device=device), head.predictor.start(batch, device))
    text = text.clone()
    state = tuple(part.clone() for part in state)
    written = [_Writing() for _ in range(batch)]
    time = torch.zeros_like(lengths)
    here = torch.zeros_like(lengths)  # symbols written at this frame
    ahead = torch.arange(AHEAD, device=device)
    while True:
        rows = (time < lengths).nonzero()[:, 0]
        if not len(rows):
            return [utterance.hypothesis() for utterance in written]
        frames = time[rows, None] + ahead
        inside = frames < lengths[rows, None]
        scores = head.join(audio[rows[:, None], frames.clamp(max=audio.shape[1] - 1)], text[rows, None])
        if allowed is not None:
            scores = scores.masked_fill(~allowed, -torch.inf)
        best, symbols = scores.max(dim=-1)
        writes = (symbols != 0) & inside
        writes[:, 0] &= here[rows] < MOST
        found = writes.any(dim=1)
        first = writes.int().argmax(dim=1)
        # Nothing found: look on behind the frames that were looked at. Found: stay at that frame.
        time[rows] += torch.where(found, first, AHEAD)
        here[rows] = torch.where(found, torch.where(first > 0, 1, here[rows] + 1), 0)
        rows, first, best, symbols = rows[found], first[found], best[found], symbols[found]
        if not len(rows):
            continue
        symbols = symbols.gather(1, first[:, None])[:, 0]
        best = best.gather(1, first[:, None])[:, 0]
        for row, symbol, frame, score in zip(
            rows.tolist(), symbols.tolist(), time[rows].tolist(), best.tolist(), strict=True
        ):
            written[row].write(symbol, frame, score)
        text[rows], changed = head.read(symbols, tuple(part[rows] for part in state))
        for part, new in zip(state, changed, strict=True):
            part[rows] = new
