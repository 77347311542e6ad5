"""Span masks for masked prediction, drawn from a generator of their own."""

import math

import torch
from torch import Tensor


def span_mask(lengths: Tensor, frames: int, start_probability: float, span: int, generator: torch.Generator) -> Tensor:
    """Every valid frame starts a span with `start_probability`; spans may overlap (BEST-RQ §3.1).

    lengths: (B,) on any device; the generator's device draws. Returns (B, frames) bool on the device
    of `lengths`, True = masked, never beyond a length. The expected share of masked frames is
    1 - (1 - p)^span, 33.1 % for p = 0.01 and 40 frames.
    """
    draws = torch.rand(len(lengths), frames, generator=generator, device=generator.device)
    starts = (draws < start_probability).to(lengths.device)
    valid = torch.arange(frames, device=lengths.device) < lengths[:, None]
    # A frame is masked if any of the `span` frames up to it starts a span.
    begun = (starts & valid).cumsum(dim=1)
    return (begun - torch.nn.functional.pad(begun, (span, 0))[:, :frames] > 0) & valid


def poisson_mask(lengths: Tensor, frames: int, share: float, mean: float, generator: torch.Generator) -> Tensor:
    """As `span_mask`, with spans of Poisson-distributed lengths, 1 at least, that hide about `share` (BART)."""
    shape = len(lengths), frames
    starts = torch.rand(shape, generator=generator) < start_probability(share, mean)
    spans = torch.poisson(torch.full(shape, mean), generator=generator).long().clamp(min=1)
    ends = (torch.arange(frames) + spans).clamp(max=frames)
    change = torch.nn.functional.pad(starts.long(), (0, 1))
    hidden = change.scatter_add(1, ends, -starts.long()).cumsum(dim=1)[:, :frames] > 0
    return hidden.to(lengths.device) & (torch.arange(frames, device=lengths.device) < lengths[:, None])


def share_mask(lengths: Tensor, frames: int, share: float, span: int, generator: torch.Generator) -> Tensor:
    """Spans that hide about `share` of every row, and one at least; of a short row one of that share (SpanBERT).

    A row of n has k spans of s = min(span, share · n), so many that 1 - (1 - s/n)^k is the share on average. As
    `span_mask` otherwise: (B,) lengths -> (B, frames) bool.
    """
    sizes = lengths.cpu().clamp(min=1).double()[:, None]
    spans = (share * sizes).round().clamp(1, span)
    wanted = math.log(1 - share) / torch.log1p(-spans / sizes)
    counts = (wanted + torch.rand(len(lengths), 1, generator=generator)).floor().clamp(min=1)
    order = torch.arange(int(counts.max()))
    starts = (torch.rand(len(lengths), len(order), generator=generator) * (sizes - spans + 1)).floor()[..., None]
    place = torch.arange(frames)
    hidden = (place >= starts) & (place < starts + spans[..., None]) & (order < counts)[..., None]
    return (hidden.any(dim=1) & (place < lengths.cpu()[:, None])).to(lengths.device)


def start_probability(share: float, span: float) -> float:
    """The probability to start a span with which this share of the frames is masked: 1 - (1 - share)^(1 / span)."""
    return 1 - (1 - share) ** (1 / span)
