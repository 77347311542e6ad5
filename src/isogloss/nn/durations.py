"""Durations: how many encoder frames each unit of a text lasts.

The units of a text of U symbols are a silence and its symbols, U+1 in all. The silence holds the frames
before the first symbol; a symbol those from where it is written up to where the next one is. Their sum
is the number of frames, always; a symbol may last 0 frames where several are written in one.
"""

import torch
from torch import Tensor

from isogloss.sequence import Sequence


def durations(starts: Tensor, symbols: Tensor, frames: Tensor) -> Sequence:
    """Frames in which symbols begin -> durations of the units, (B, U+1) int64.

    starts: (B, U), never falling within the symbols (B,) of an utterance, which has frames (B,); what stands after
    may be anything.
    """
    places = torch.arange(starts.shape[1], device=starts.device)
    begun = torch.where(places < symbols[:, None], starts, frames[:, None])
    bounds = torch.cat([torch.zeros_like(frames)[:, None], begun, frames[:, None]], dim=1)
    return Sequence(bounds.diff(dim=1), symbols + 1)


def spread(symbols: Tensor, frames: Tensor, most: int) -> Tensor:
    """Starts (B, most) of symbols (B,) that share the frames (B,) evenly: for want of an alignment."""
    places = torch.arange(most, device=frames.device)
    return places * frames[:, None] // symbols.clamp(min=1)[:, None]


def rounded(lengths: Sequence) -> Sequence:
    """Real durations (B, U+1) >= 0 -> whole ones whose running sums stay within half a frame of the real ones.

    Rounding each alone would lose every unit shorter than half a frame, and with them the length of the text.
    """
    ends = lengths.zero_padding().values.double().cumsum(dim=1).round().long()
    return lengths.with_values(ends.diff(dim=1, prepend=torch.zeros_like(ends[:, :1])))
