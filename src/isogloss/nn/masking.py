"""Span masks for masked prediction, each row drawn from a generator of its own.

What is hidden of a clip must not depend on the batch that it comes in: neither on the others nor on the padding.
"""

import math
from collections.abc import Iterable
from collections.abc import Sequence as ListOf

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def span_mask(frames: int, start_probability: float, span: int, draw: np.random.Generator) -> NDArray[np.bool_]:
    """Every frame starts a span with `start_probability`; spans may overlap (BEST-RQ §3.1).

    Returns (frames,) bool, True = masked. The expected share of masked frames is 1 - (1 - p)^span, 33.1 % for
    p = 0.01 and spans of 40 frames.
    """
    begun = np.cumsum(draw.random(frames) < start_probability)
    # A frame is masked if any of the `span` frames up to it starts a span.
    masked: NDArray[np.bool_] = begun > np.pad(begun, (span, 0))[:frames]
    return masked


def guided_mask(
    scores: NDArray[np.float64], count: int, span: int, sharpness: float, draw: np.random.Generator
) -> NDArray[np.bool_]:
    """Spans where scores are high, until exactly `count` frames are hidden (Baskar et al. 2022, arXiv 2202.12719).

    scores: (frames,) in 0 … 1. Spans are drawn without replacement, one with mean score s in proportion to s^sharpness;
    with equal scores that is as likely to begin in one frame as in another. Returns (frames,) bool.
    """
    frames = len(scores)
    hidden = np.zeros(frames, dtype=np.bool_)
    sums = np.cumsum(np.pad(scores, (1, 0)))
    ends = np.minimum(np.arange(frames) + span, frames)
    means = (sums[ends] - sums[:-1]) / (ends - np.arange(frames))
    # The order in which draws without replacement come: the largest of log weights with Gumbel noise first.
    order = np.argsort(-(sharpness * np.log(np.maximum(means, 1e-6)) + draw.gumbel(size=frames)))
    for start in order:
        missing = count - int(hidden.sum())
        if not missing:
            break
        new = start + np.flatnonzero(~hidden[start : ends[start]])
        hidden[new[:missing]] = True
    return hidden


def share_mask(symbols: int, share: float, span: int, draw: np.random.Generator) -> NDArray[np.bool_]:
    """Spans that hide about `share` of a row, and one at least; of a short row one of that share (SpanBERT).

    A row of n has k spans of s = min(span, share · n), so many that 1 - (1 - s/n)^k is the share on average. Returns
    (symbols,) bool, True = hidden.
    """
    hidden = np.zeros(symbols, dtype=np.bool_)
    if symbols:
        size = min(span, max(1, round(share * symbols)))
        wanted = math.log(1 - share) / math.log1p(-size / symbols) if size < symbols else 1.0
        count = max(1, math.floor(wanted + draw.random()))
        starts = draw.integers(symbols - size + 1, size=(count, 1))
        hidden[starts + np.arange(size)] = True
    return hidden


def padded_masks(masks: ListOf[NDArray[np.bool_]], width: int) -> Tensor:
    """Masks of rows, (T_i,) each -> (B, width) bool, False after them."""
    found = torch.zeros(len(masks), width, dtype=torch.bool)
    for row, mask in zip(found, masks, strict=True):
        row[: len(mask)] = torch.from_numpy(mask)
    return found


def flat_places(rows: ListOf[Iterable[int]], width: int, device: torch.device) -> Tensor:
    """The places of frames (row by row) in (B, width) states whose rows stand one behind the other, (M,) int64."""
    places = [row * width + frame for row, frames in enumerate(rows) for frame in frames]
    return on_device(torch.tensor(places, dtype=torch.int64), device)


def on_device(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor of the CPU on a device, for which the CPU does not wait."""
    # Only from pinned memory a copy does not wait for the GPU.
    return (tensor.pin_memory() if device.type == "cuda" else tensor).to(device, non_blocking=True)


def start_probability(share: float, span: float) -> float:
    """The probability to start a span with which this share of the frames is masked: 1 - (1 - share)^(1 / span)."""
    return 1 - (1 - share) ** (1 / span)
