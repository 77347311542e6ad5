"""CTC's lattice: the loss, whether there is any path, and the best one, which says where each symbol is.

The states of an utterance are blank, y_1, blank, y_2, … y_U, blank. From frame to frame a path stays, goes
one state on, or two: past the blank between different symbols (Graves et al. 2006, eq. 6-8, with the maximum
in place of the sum for the best path). Symbol 0 is the blank, as in every tokenizer.
"""

from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from isogloss.sequence import Sequence
from isogloss.text.tokenizers import BLANK


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


def ctc_best_path(log_probabilities: Sequence, tokens: Sequence) -> tuple[Tensor, Tensor]:
    """Viterbi: (B, T, V) and (B, U) -> spans (B, U, 2) int64 and log P of the path, (B,) float64.

    A span is the first frame that says the symbol and the one after the last. Spans are -1 after the
    symbols' lengths, and everywhere where too few frames leave no path; log P is then -inf.
    """
    with torch.no_grad():
        written = tokens.zero_padding().values
        states = torch.stack([torch.full_like(written, BLANK), written], dim=2).flatten(1)
        states = functional.pad(states, (0, 1), value=BLANK)  # (B, 2U+1)
        values = log_probabilities.values.double()
        emitted = values.gather(2, states[:, None].expand(-1, values.shape[1], -1)).transpose(0, 1)
        skips = functional.pad((states[:, 2:] != states[:, :-2]) & (states[:, 2:] != BLANK), (2, 0))
        moves, best = _search(emitted, skips, log_probabilities.lengths)
        # A path ends in the last symbol or in the blank after it.
        ends = (2 * tokens.lengths[:, None] - torch.tensor([0, 1], device=states.device)).clamp(min=0)
        score, choice = best.gather(1, ends).max(dim=1)
        last = ends.gather(1, choice[:, None])[:, 0]
        lengths = torch.where(score.isfinite(), log_probabilities.lengths, 0)
        path = _traced(moves, last.cpu().numpy(), lengths.cpu().numpy())
        spans = _spans(path, tokens, lengths.cpu().numpy())
        return torch.from_numpy(spans).to(states.device), score


def _search(emitted: Tensor, skips: Tensor, lengths: Tensor) -> tuple[NDArray[np.int8], Tensor]:
    """(T, B, S) -> by how many states each is reached, (T, B, S), and the scores (B, S) at each utterance's end."""
    frames, batch, states = emitted.shape
    reached = emitted.new_full((3, batch, states), -torch.inf)
    best = emitted.new_full((batch, states), -torch.inf)
    best[:, 0] = 0.0  # before the first frame a path stands on the first blank: it may stay there or go on
    moves = torch.zeros(emitted.shape, dtype=torch.int8, device=emitted.device)
    for frame in range(frames):
        reached[0] = best
        reached[1, :, 1:] = best[:, :-1]
        reached[2, :, 2:] = best[:, :-2].where(skips[:, 2:], -torch.inf)
        arrived, moves[frame] = reached.max(dim=0)
        best = torch.where((frame < lengths)[:, None], arrived + emitted[frame], best)
    return moves.cpu().numpy(), best


def _traced(moves: NDArray[np.int8], last: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """The state of each frame, (B, T), back from the last one."""
    frames, batch, _ = moves.shape
    path = np.zeros((batch, frames), dtype=np.int64)
    rows, state = np.arange(batch), last
    for frame in range(frames - 1, -1, -1):
        path[:, frame] = state
        state = state - np.where(frame < lengths, moves[frame, rows, state], 0)
    return path


def _spans(path: NDArray[np.int64], tokens: Sequence, lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """The frames in which each symbol's state is; states never fall along a path."""
    spans = np.full((*tokens.values.shape, 2), -1)
    for row, (symbols, frames) in enumerate(zip(tokens.lengths.tolist(), lengths.tolist(), strict=True)):
        if frames:
            own = 2 * np.arange(symbols) + 1
            for column, side in enumerate(("left", "right")):
                spans[row, :symbols, column] = np.searchsorted(path[row, :frames], own, side)  # type: ignore[call-overload]
    return spans
