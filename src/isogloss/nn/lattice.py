"""The transducer's lattice: sums and best paths over all alignments of U symbols with T frames.

    (t, u) ── blank(t, u) ──> (t+1, u)      node (t, u): at frame t, with u symbols emitted
       │
    label(t, u)                             a path leads from (0, 0) to (T, U); its last arc is the
       v                                    blank of (T-1, U)          (Graves 2012, arXiv 1211.3711)
    (t, u+1)

A diagonal t + u = d depends on the one before it alone, so that all utterances, forward and backward
together, take T + U short vector steps. The lattice has no vocabulary and is small: it is summed in
float64, in which posteriors of hour-long alignments are still exact.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

Lengths = tuple[Tensor, Tensor]
"""Frames (B,) and symbols (B,) of each utterance, int64."""


@dataclass(frozen=True)
class Posteriors:
    """Sums over all paths.

    log_likelihood: (B,) float64, -inf where no path has a probability. blank, label: (B, T, U+1) float64,
    the probability that a path takes the arc; zero outside the lattice and where there is no path.
    """

    log_likelihood: Tensor
    blank: Tensor
    label: Tensor

    @property
    def node(self) -> Tensor:
        """γ(t, u), (B, T, U+1): the probability that a path goes through the node."""
        return self.blank + self.label


@cache
def kernels_for(device: torch.device) -> ModuleType | None:
    """nn/kernels.py where it runs: on a GPU, with Triton, which comes with torch there."""
    if device.type != "cuda" or find_spec("triton") is None:
        return None
    from isogloss.nn import kernels

    return kernels


def forward_backward(blank: Tensor, label: Tensor, lengths: Lengths) -> Posteriors:
    """Log-probabilities of the arcs, both (B, T, U+1) -> likelihood and posteriors; outside any graph.

    label[:, :, U] and everything after the lengths may hold anything, also NaN.
    """
    with torch.no_grad():
        if gpu := kernels_for(blank.device):
            return Posteriors(*gpu.forward_backward(blank, label, lengths))
        shape = blank.shape
        stay, move = _diagonals(blank, label, lengths)
        start, end = _ends(stay, lengths[1])
        # Backward in time and in symbols, the backward sums obey the recursion of the forward ones.
        stays = torch.cat([stay, stay.flip(0, 2)], dim=1)
        moves = torch.cat([_shifted(move), move.flip(0, 2)], dim=1)
        sums = _recur(torch.cat([start, end.flip(1)]), stays, moves)
        alpha, beta = sums.split(shape[0], dim=1)
        beta = beta.flip(0, 2)
        total = torch.logsumexp(alpha[-1] + end, dim=1)
        possible = total.isfinite()
        scaled = alpha[:-1] - torch.where(possible, total, 0.0)[:, None]
        ahead = torch.cat([beta[1:, :, 1:], torch.full_like(beta[1:, :, :1], -torch.inf)], dim=2)
        arcs = torch.stack([scaled + stay + beta[1:], scaled + move + ahead]).exp()
        arcs = torch.where(possible[:, None], arcs, 0.0)
        blanks, labels = (_rows(part, shape, lengths) for part in arcs)
        return Posteriors(total, blanks, labels)


def best_path(blank: Tensor, label: Tensor, lengths: Lengths) -> tuple[Tensor, Tensor]:
    """Viterbi: (B, T, U+1) twice -> the frame that writes each symbol, (B, U) int64, and log P, (B,) float64.

    Frames never fall from symbol to symbol; they are -1 after the symbols' lengths, and everywhere
    where there is no path. Of equally good paths the one that writes later is taken.
    """
    with torch.no_grad():
        stay, move = _diagonals(blank, label, lengths)
        start, end = _ends(stay, lengths[1])
        moved = _shifted(move)
        best = _recur(start, stay, moved, torch.maximum)
        arrived = best[:-1, :, :-1] + moved[:, :, 1:] > best[:-1, :, 1:] + stay[:, :, 1:]
        total = (best[-1] + end).amax(dim=1)
        symbols = torch.where(total.isfinite(), lengths[1], 0).cpu().numpy()
        frames = np.full((len(symbols), end.shape[1] - 1), -1)
        rows = np.arange(len(symbols))
        steps = list(enumerate(arrived.cpu().numpy())) if frames.size else []
        for step, moves in reversed(steps):
            latest = symbols - 1
            took = (latest >= 0) & moves[rows, latest]
            frames[rows[took], latest[took]] = step - latest[took]
            symbols = symbols - took
        return torch.from_numpy(frames).to(blank.device), total


class _LogLikelihood(torch.autograd.Function):
    """(B, T, U+1) twice -> log P (B,), whose gradient by each arc is the arc's posterior."""

    @staticmethod
    def forward(ctx: Any, blank: Tensor, label: Tensor, frames: Tensor, symbols: Tensor) -> Tensor:
        found = forward_backward(blank, label, (frames, symbols))
        ctx.save_for_backward(found.blank.to(blank.dtype), found.label.to(label.dtype))
        return found.log_likelihood.to(blank.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None, None]:
        blank, label = ctx.saved_tensors
        gradient = gradient[:, None, None]
        return gradient * blank, gradient * label, None, None


def log_likelihood(blank: Tensor, label: Tensor, lengths: Lengths) -> Tensor:
    """log P of each utterance, differentiable once: (B, T, U+1) twice -> (B,)."""
    return _LogLikelihood.apply(blank, label, *lengths)


def expected_cost(blank: Tensor, label: Tensor, cost: Tensor, lengths: Lengths) -> Tensor:
    """The mean cost of writing a symbol where the alignment writes it (ASTRA, arXiv 2406.06664), (B,).

    Σ γ c / Σ γ over the label arcs, with posteriors γ outside the graph: only the costs c, (B, T, U+1), get a
    gradient. 0 where nothing is written or there is no path. With a single possible path this is the mean
    cost along it, as of a Viterbi alignment.
    """
    weight = forward_backward(blank, label, lengths).label.to(cost.dtype)
    return (weight * torch.where(weight > 0, cost, 0.0)).sum(dim=(1, 2)) / lengths[1].clamp(min=1)


def weighted_cost(blank: Tensor, label: Tensor, cost: Tensor, lengths: Lengths) -> Tensor:
    """-log E_π exp(-Σ c) over the alignments π with their probabilities: the soft form of ASTRA, (B,).

    Costs are added to the label arcs as if they were log-probabilities, so that the gradient reaches the
    alignment too: it moves to where writing is cheap. 0 where there is no path. (B, T, U+1) three times,
    differentiable once.
    """
    plain, priced = log_likelihood(blank, label, lengths), log_likelihood(blank, label - cost, lengths)
    return torch.where(priced.isfinite(), plain - priced, 0.0)


def _diagonals(blank: Tensor, label: Tensor, lengths: Lengths) -> tuple[Tensor, Tensor]:
    """Arcs by diagonal, (D, B, U+1) float64 with D = T + U; [d, b, u] leaves node (d - u, u).

    What is not in the lattice is -inf; but a path that has reached its end waits there for the longer
    ones, by blanks of probability one.
    """
    batch, frames, width = blank.shape
    diagonals = torch.arange(frames + width - 1, device=blank.device)[:, None]
    column = torch.arange(width, device=blank.device)
    time = diagonals - column  # (D, U+1)
    index = time.clamp(0, frames - 1).expand(batch, -1, -1)
    frame_counts, symbol_counts = (length[:, None, None] for length in lengths)
    inside = (time >= 0) & (time < frame_counts)
    last = column == symbol_counts
    stay = torch.where(inside & (column <= symbol_counts), blank.double().gather(1, index), -torch.inf)
    stay = torch.where(last & (time >= frame_counts), 0.0, stay)
    move = torch.where(inside & (column < symbol_counts), label.double().gather(1, index), -torch.inf)
    return stay.transpose(0, 1).contiguous(), move.transpose(0, 1).contiguous()


def _ends(stay: Tensor, symbols: Tensor) -> tuple[Tensor, Tensor]:
    """Log-weights of first and last nodes, (B, U+1) each: 0 at u = 0 and at u = U, -inf elsewhere."""
    column = torch.arange(stay.shape[2], device=stay.device)
    nowhere = stay.new_full(stay.shape[1:], -torch.inf)
    return nowhere.masked_fill(column == 0, 0.0), nowhere.masked_fill(column == symbols[:, None], 0.0)


def _shifted(move: Tensor) -> Tensor:
    """Label arcs at the node they lead to instead of the one they leave."""
    return torch.cat([torch.full_like(move[:, :, :1], -torch.inf), move[:, :, :-1]], dim=2)


def _recur(
    start: Tensor, stay: Tensor, moved: Tensor, join: Callable[..., Tensor] = torch.logaddexp
) -> Tensor:
    """s_{d+1}[u] = join(s_d[u] + stay_d[u], s_d[u-1] + moved_d[u]): (B, U+1), (D, B, U+1) twice -> (D+1, B, U+1)."""
    steps, batch, width = stay.shape
    sums = stay.new_full((steps + 1, batch, width + 1), -torch.inf)
    sums[0, :, 1:] = start
    here, before = sums[:, :, 1:].unbind(), sums[:, :, :-1].unbind()
    one, other = torch.empty_like(start), torch.empty_like(start)
    for step, (staying, moving) in enumerate(zip(stay.unbind(), moved.unbind(), strict=True)):
        torch.add(here[step], staying, out=one)
        torch.add(before[step], moving, out=other)
        join(one, other, out=here[step + 1])
    return sums[:, :, 1:]


def _rows(diagonals: Tensor, shape: torch.Size, lengths: Lengths) -> Tensor:
    """(D, B, U+1) by diagonal -> (B, T, U+1) by frame, zero outside the lattice."""
    batch, frames, width = shape
    time = torch.arange(frames, device=diagonals.device)[:, None]
    column = torch.arange(width, device=diagonals.device)
    rows = diagonals.transpose(0, 1).gather(1, (time + column).expand(batch, -1, -1))
    frame_counts, symbol_counts = (length[:, None, None] for length in lengths)
    return torch.where((time < frame_counts) & (column <= symbol_counts), rows, 0.0)
