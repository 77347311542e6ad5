"""The transducer's lattice and loss as Triton kernels, for GPUs; lattice.py and transducer.py say what they compute.

The lattice: one program an utterance goes through its frames with all U+1 nodes of a frame in registers. Along u,
    α(t, u) = logaddexp(α(t, u-1) + label(t, u-1), α(t-1, u) + blank(t-1, u))
is a linear recurrence in the semiring (logaddexp, +), which an associative scan does in log U steps; β is the same
from the other end. The loss: one program a node reads its V logits once, and once more for their gradient.

Every function takes what its namesake on the CPU takes, on any device Triton runs on.
"""

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

NOWHERE: tl.constexpr = tl.constexpr(-1e30)
"""Instead of -inf, of which differences are NaN."""


@triton.jit
def _logaddexp(x, y):
    return tl.maximum(x, y) + tl.log(1.0 + tl.exp(-tl.abs(x - y)))


@triton.jit
def _compose(factor, term, next_factor, next_term):
    """x -> logaddexp(x + factor, term), and then the same with the next ones."""
    return factor + next_factor, _logaddexp(term + next_factor, next_term)


@triton.jit
def _alpha(blank, label, alpha, totals, frames, symbols, most, width, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    frame_count, symbol_count = tl.load(frames + row), tl.load(symbols + row)
    u = tl.arange(0, BLOCK)
    inside = u <= symbol_count
    arriving = tl.where(u == 0, 0.0, NOWHERE).to(tl.float64)
    for t in range(frame_count):
        place = (row * most + t) * width + u
        move = tl.load(label + place - 1, mask=inside & (u > 0), other=NOWHERE)
        _, here = tl.associative_scan((tl.maximum(move, NOWHERE), arriving), 0, _compose)
        tl.store(alpha + place, here, mask=inside)
        arriving = here + tl.maximum(tl.load(blank + place, mask=inside, other=NOWHERE), NOWHERE)
    tl.store(totals + row, tl.sum(tl.where(u == symbol_count, arriving, 0.0), axis=0))


@triton.jit
def _posteriors(blank, label, alpha, totals, blanks, labels, frames, symbols, most, width, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    frame_count, symbol_count = tl.load(frames + row), tl.load(symbols + row)
    total = tl.load(totals + row)
    total = tl.where(total > NOWHERE / 2, total, -NOWHERE)  # no path: nothing is likely below
    u = tl.arange(0, BLOCK)
    inside = u <= symbol_count
    after = tl.where(u == symbol_count, 0.0, NOWHERE).to(tl.float64)
    for step in range(frame_count):
        place = (row * most + frame_count - 1 - step) * width + u
        move = tl.load(label + place, mask=u < symbol_count, other=NOWHERE)
        leaving = after + tl.maximum(tl.load(blank + place, mask=inside, other=NOWHERE), NOWHERE)
        _, here = tl.associative_scan((tl.maximum(move, NOWHERE), leaving), 0, _compose, reverse=True)
        before = tl.load(alpha + place, mask=inside, other=NOWHERE) - total
        stays = tl.exp(before + leaving)
        # What goes through a node and does not stay, moves.
        moves = tl.where(u < symbol_count, tl.exp(before + here) - stays, 0.0)
        tl.store(blanks + place, stays, mask=inside)
        tl.store(labels + place, tl.maximum(moves, 0.0), mask=inside)
        after = here


def forward_backward(blank: Tensor, label: Tensor, lengths: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Arcs (B, T, U+1) -> log P (B,) and the posteriors of the arcs, (B, T, U+1) each, in float64."""
    batch, frames, width = blank.shape
    blank, label = blank.double().contiguous(), label.double().contiguous()
    alpha, totals = torch.empty_like(blank), blank.new_empty(batch)
    blanks, labels = torch.zeros_like(blank), torch.zeros_like(blank)
    sizes = *(length.long() for length in lengths), frames, width
    if batch:
        block = triton.next_power_of_2(width)
        _alpha[(batch,)](blank, label, alpha, totals, *sizes, BLOCK=block)
        _posteriors[(batch,)](blank, label, alpha, totals, blanks, labels, *sizes, BLOCK=block)
    return torch.where(totals > NOWHERE.value / 2, totals, -torch.inf), blanks, labels


@triton.jit
def _node(frames, symbols, most, width):
    """Which node this program works on: its row, its place among all nodes, and whether it is in the lattice."""
    node = tl.program_id(0).to(tl.int64)
    row = node // (most * width)
    inside = (node // width % most < tl.load(frames + row)) & (node % width <= tl.load(symbols + row))
    return row, node, inside


@triton.jit
def _arcs(
    logits, following, blank, label, normaliser, frames, symbols, most, width, size, nothing, BLOCK: tl.constexpr
):  # fmt: skip
    row, node, inside = _node(frames, symbols, most, width)
    if inside:
        start = logits + node * size
        exact = normaliser.dtype.element_ty
        peak, total = tl.full((), -float("inf"), exact), tl.full((), 0.0, exact)
        for first in range(0, size, BLOCK):
            v = first + tl.arange(0, BLOCK)
            x = tl.load(start + v, mask=v < size, other=-float("inf")).to(exact)
            higher = tl.maximum(peak, tl.max(x, axis=0))
            total = total * tl.exp(peak - higher) + tl.sum(tl.exp(x - higher), axis=0)
            peak = higher
        norm = peak + tl.log(total)
        symbol = tl.load(following + row * width + node % width)
        tl.store(normaliser + node, norm)
        tl.store(blank + node, tl.load(start + nothing).to(norm.dtype) - norm)
        tl.store(label + node, tl.load(start + symbol).to(norm.dtype) - norm)


def arcs(
    logits: Tensor, following: Tensor, lengths: tuple[Tensor, Tensor], blank: int, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor]:
    """Logits (B, T, U+1, V), next symbols (B, U+1) -> log p of blank and label, and log-sums, (B, T, U+1) each."""
    logits = logits.contiguous()
    _, frames, width, size = logits.shape
    blanks, labels, normaliser = (torch.zeros(logits.shape[:3], dtype=dtype, device=logits.device) for _ in range(3))
    sizes = *(length.long() for length in lengths), frames, width, size, blank
    if blanks.numel():
        block = min(1024, triton.next_power_of_2(size))
        _arcs[(blanks.numel(),)](logits, following.contiguous(), blanks, labels, normaliser, *sizes, BLOCK=block)
    return blanks, labels, normaliser


@triton.jit
def _slopes(
    logits, following, normaliser, blanks, labels, gradient, result, frames, symbols, most, width, size, nothing,
    BLOCK: tl.constexpr,
):  # fmt: skip
    row, node, inside = _node(frames, symbols, most, width)
    scale = tl.load(gradient + row)
    stays = tl.load(blanks + node).to(scale.dtype)
    moves = tl.load(labels + node).to(scale.dtype)
    norm = tl.load(normaliser + node)
    symbol = tl.load(following + row * width + node % width)
    for first in range(0, size, BLOCK):
        v = first + tl.arange(0, BLOCK)
        x = tl.load(logits + node * size + v, mask=v < size, other=0.0).to(scale.dtype)
        slope = tl.exp(x - norm) * (stays + moves)
        slope -= tl.where(v == nothing, stays, 0.0) + tl.where(v == symbol, moves, 0.0)
        slope = tl.where(inside & (scale != 0.0), slope * scale, 0.0)
        tl.store(result + node * size + v, slope.to(result.dtype.element_ty), mask=v < size)


def slopes(
    logits: Tensor,
    following: Tensor,
    normaliser: Tensor,
    posteriors: Sequence[Tensor],
    gradient: Tensor,
    lengths: tuple[Tensor, Tensor],
    blank: int,
) -> Tensor:
    """The gradient of the losses, times `gradient` (B,), by the logits: (B, T, U+1, V) in their type."""
    logits = logits.contiguous()
    result = torch.empty_like(logits)
    _, frames, width, size = logits.shape
    sizes = *(length.long() for length in lengths), frames, width, size, blank
    if normaliser.numel():
        block = min(1024, triton.next_power_of_2(size))
        arguments = logits, following.contiguous(), normaliser, *posteriors, gradient.to(normaliser.dtype).contiguous()
        _slopes[(normaliser.numel(),)](*arguments, result, *sizes, BLOCK=block)
    return result
