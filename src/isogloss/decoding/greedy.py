"""Greedy decoding: the best step at every step, of CTC and of the transducer, at once or as states arrive; and of
the attention decoder, which must have all states."""

import copy
from collections.abc import Callable
from functools import cache
from typing import Any, Protocol

import torch
from torch import Tensor

from isogloss.decoding.ctc_beam import placed
from isogloss.decoding.hypothesis import Draft, Hypothesis
from isogloss.decoding.protocols import CTC, AttentionProtocol, TransducerProtocol
from isogloss.decoding.symbols import Symbols, limited
from isogloss.nn.ctc import ctc_best_path
from isogloss.sequence import Sequence
from isogloss.text.tokenizers import BLANK, END

MOST = 10
"""Symbols one frame may write: more is a loop."""
AHEAD = 8
"""Frames looked at together for a transducer's next symbol; most write none."""
Best = Callable[[int], tuple[list[list[int]], list[list[float]]]]
"""A state of the word being written -> the best symbol of each frame, (B, T), and its probability."""


class Greedy(Protocol):
    """Takes the encoder states of a batch, all at once or piece by piece, with the same result."""

    drafts: list[Draft]
    allowed: Symbols | None

    @property
    def head(self) -> Any:
        """What it decodes."""

    def feed(self, states: Sequence) -> None:
        """The next states, (B, T, D)."""


def forked(decoder: Greedy) -> Greedy:
    """A decoder that has taken the same states, and goes on by itself."""
    return copy.deepcopy(decoder, {id(shared): shared for shared in (decoder.head, decoder.allowed)})


def greedy(log_probabilities: Sequence) -> list[Hypothesis]:
    """CTC all at once: (B, T, V) -> B hypotheses."""
    return decoded(GreedyCTC(lambda scores: scores, len(log_probabilities)), log_probabilities)


def decoded(decoder: Greedy, states: Sequence) -> list[Hypothesis]:
    """All at once: (B, T, D) -> B hypotheses."""
    decoder.feed(states)
    return [draft.hypothesis() for draft in decoder.drafts]


class GreedyCTC:
    """The most probable symbol of each frame, runs merged, blanks dropped.

    head: states -> log-probabilities. allowed: which symbols may follow which.
    """

    def __init__(self, head: CTC, batch: int, allowed: Symbols | None = None):
        self.head = head
        self.allowed = allowed
        self.drafts = [Draft() for _ in range(batch)]
        self._previous = [BLANK] * batch
        self._states = [0] * batch  # of the words being written
        self._frames = 0

    def feed(self, states: Sequence) -> None:
        scores = self.head(states).values

        @cache
        def best(state: int) -> tuple[list[list[int]], list[list[float]]]:
            """The best symbol of each frame, (B, T), where the word is in a state; asked for those that are reached."""
            highest, symbols = limited(scores, self.allowed, state).max(dim=-1)
            return symbols.tolist(), highest.exp().tolist()

        for row, length in enumerate(states.lengths.tolist()):
            self._collapse(row, best, length)
        self._frames += states.values.shape[1]

    def _collapse(self, row: int, best: Best, length: int) -> None:
        draft, previous, state = self.drafts[row], self._previous[row], self._states[row]
        symbols, probabilities = best(state)
        for frame in range(length):
            symbol, probability = symbols[row][frame], probabilities[row][frame]
            if symbol != BLANK and symbol == previous:
                draft.hold(self._frames + frame, probability)
            elif symbol != BLANK:
                draft.write(symbol, self._frames + frame, probability)
                if self.allowed is not None:
                    state = self.allowed.step(state, symbol)
                    symbols, probabilities = best(state)
            previous = symbol
        self._previous[row], self._states[row] = previous, state


class GreedyAttention:
    """The likeliest symbol after those written, until the end; with all states at once, in `feed`.

    Writes no more symbols than there are frames. The frames of the symbols are those of CTC's best path
    through them; where CTC has none, they are spread evenly. allowed: which symbols may follow which.
    """

    def __init__(self, head: AttentionProtocol, ctc: CTC, batch: int, allowed: Symbols | None = None):
        self.head = head
        self.ctc = ctc
        self.allowed = allowed
        self.drafts = [Draft() for _ in range(batch)]

    def feed(self, states: Sequence) -> None:
        symbols, probabilities = self._written(states)
        lengths = (symbols == END).int().argmax(dim=1)
        spans, _ = ctc_best_path(self.ctc(states), Sequence(symbols, lengths))
        frames = states.lengths.tolist()
        for row, (draft, length) in enumerate(zip(self.drafts, lengths.tolist(), strict=True)):
            draft.tokens = symbols[row, :length].tolist()
            draft.frames, draft.interpolated = placed(spans[row, :length].tolist(), frames[row])
            draft.held = [[probability] for probability in probabilities[row, :length].tolist()]

    def _written(self, states: Sequence) -> tuple[Tensor, Tensor]:
        """Symbols up to an `END` at the latest after the last frame, (B, U+1), and their probabilities."""
        writing = self.head.begin(states)
        symbols = torch.full_like(states.lengths, END)
        ended = torch.zeros_like(states.lengths, dtype=torch.bool)
        within = torch.zeros_like(states.lengths)  # states of the words being written
        written: list[Tensor] = []
        scores: list[Tensor] = []
        while not ended.all():
            best, symbols = limited(self.head.step(symbols, writing), self.allowed, within).max(dim=-1)
            within = within if self.allowed is None else self.allowed.after[within, symbols]
            ended = ended | (symbols == END) | (len(written) >= states.lengths)
            symbols = torch.where(ended, END, symbols)
            written.append(symbols)
            scores.append(best.exp())
        return torch.stack(written, dim=1), torch.stack(scores, dim=1)


class GreedyTransducer:
    """The best arc of each node.

    Loops over symbols and not over frames (label-looping; Xu et al. 2024, arXiv 2406.06220): the state
    of the predictor changes with a symbol only, so that each utterance is searched some frames ahead
    for its next one. allowed: which symbols may follow which.
    """

    def __init__(self, head: TransducerProtocol, batch: int, allowed: Symbols | None = None):
        self.head = head
        self.allowed = allowed
        self.drafts = [Draft() for _ in range(batch)]
        self._text, self._state = head.begin(batch)
        self._within = torch.zeros(batch, dtype=torch.int64, device=self._text.device)  # states of words being written
        self._frames = 0

    def feed(self, states: Sequence) -> None:
        audio = self.head.audio(states.zero_padding().values)
        lengths = states.lengths
        time = torch.zeros_like(lengths)
        here = torch.zeros_like(lengths)  # symbols written at this frame
        while len(rows := (time < lengths).nonzero()[:, 0]):
            symbols, scores, writes = self._ahead(audio, rows, time[rows], lengths[rows])
            writes[:, 0] &= here[rows] < MOST
            found, first = writes.any(dim=1), writes.int().argmax(dim=1)
            # Nothing found: look on behind the frames that were looked at. Found: stay at that frame.
            time[rows] += torch.where(found, first, AHEAD)
            here[rows] = torch.where(found & (first == 0), here[rows], 0) + found
            rows, first = rows[found], first[found, None]
            self._write(rows, time[rows], symbols[found].gather(1, first)[:, 0], scores[found].gather(1, first)[:, 0])
        self._frames += states.values.shape[1]

    def _ahead(self, audio: Tensor, rows: Tensor, time: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The best symbols of the next frames of these utterances, their scores, and where they are to be written."""
        frames = time[:, None] + torch.arange(AHEAD, device=time.device)
        inside = frames < lengths[:, None]
        scores = self.head.join(audio[rows[:, None], frames.clamp(max=audio.shape[1] - 1)], self._text[rows, None])
        best, symbols = limited(scores, self.allowed, self._within[rows, None]).max(dim=-1)
        return symbols, best, (symbols != BLANK) & inside

    def _write(self, rows: Tensor, frames: Tensor, symbols: Tensor, scores: Tensor) -> None:
        if not len(rows):
            return
        found = zip(rows.tolist(), symbols.tolist(), frames.tolist(), scores.exp().tolist(), strict=True)
        for row, symbol, frame, probability in found:
            self.drafts[row].write(symbol, self._frames + frame, probability)
        if self.allowed is not None:
            self._within[rows] = self.allowed.after[self._within[rows], symbols]
        text, state = self.head.step(symbols, tuple(part[rows] for part in self._state))
        self._text = self._text.index_copy(0, rows, text)
        self._state = tuple(old.index_copy(0, rows, new) for old, new in zip(self._state, state, strict=True))
