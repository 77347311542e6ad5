"""Segments of frames that have one code each: units longer than a frame, from codes and states that are there.

    states z (T, E), codes e (K, E) ─ ‖z_t - e_k‖² ─> (T, K) ─ dynamic programming, or greedy ─> segments

Dynamic programming (Kamper & van Niekerk 2021, arXiv 2012.07551) finds the segments of least

    Σ over segments of (Σ over their frames of ‖z_t - e_k‖² - λ (length - 1))

Greedy (the segmental VQ-VAE of Chorowski et al. 2019) begins with a segment a frame and merges neighbours, those first
that raise Σ min_k Σ ‖z_t - e_k‖² least, until as many segments are left as were asked for.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray


class Segment(NamedTuple):
    """Frames from `start` up to, but not with, `end`, and their code."""

    start: int
    end: int
    code: int


def distances(states: ArrayLike, codes: ArrayLike) -> NDArray[np.float64]:
    """‖z_t - e_k‖²: (T, E), (K, E) -> (T, K)."""
    z, e = np.asarray(states, np.float64), np.asarray(codes, np.float64)
    return np.maximum(0.0, np.square(z).sum(1)[:, None] - 2 * z @ e.T + np.square(e).sum(1))


def best_segments(costs: NDArray[np.float64], bonus: float, longest: int) -> list[Segment]:
    """The segments of least cost, for distances (T, K), λ and the most frames in a segment; exact, O(T · longest · K).

    Neighbours have different codes, unless they would be too long together.
    """
    frames = len(costs)
    ends = np.concatenate([np.zeros((1, costs.shape[1])), np.cumsum(costs, axis=0)])  # up to each frame, by code
    least, last = np.zeros(frames + 1), np.zeros((frames + 1, 2), dtype=np.int64)
    begun = np.empty_like(costs)  # what a segment has cost before, if it begins at a frame, less what it must not count
    for end in range(1, frames + 1):
        begun[end - 1] = least[end - 1] - ends[end - 1] + bonus * (end - 1)
        first = max(0, end - longest)
        totals = begun[first:end] + (ends[end] - bonus * (end - 1))
        start, code = divmod(int(totals.argmin()), totals.shape[1])
        least[end], last[end] = totals[start, code], (first + start, code)
    found: list[Segment] = []
    end = frames
    while end:
        start, code = last[end].tolist()
        if found and found[-1].code == code and found[-1].end - start <= longest:
            end = found.pop().end  # as good apart, for a λ of 0
        found.append(Segment(start, end, code))
        end = start
    return found[::-1]


def merged_segments(costs: NDArray[np.float64], count: int) -> list[Segment]:
    """`count` segments by merging neighbours, for distances (T, K); no more than there are frames, and one at least."""
    sums = list(costs)  # of each segment, by code
    starts = list(range(len(costs)))
    least = [row.min() for row in sums]
    rises = [(a + b).min() - p - q for a, b, p, q in zip(sums, sums[1:], least, least[1:], strict=False)]
    while len(sums) > max(1, count):
        place = int(np.argmin(rises))
        sums[place : place + 2] = [sums[place] + sums[place + 1]]
        least[place : place + 2] = [sums[place].min()]
        del starts[place + 1], rises[place]
        for left in (place - 1, place):
            if 0 <= left < len(rises):
                rises[left] = (sums[left] + sums[left + 1]).min() - least[left] - least[left + 1]
    ends = [*starts[1:], len(costs)]
    return [Segment(*each) for each in zip(starts, ends, (int(row.argmin()) for row in sums), strict=False)]
