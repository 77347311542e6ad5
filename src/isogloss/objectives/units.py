"""Discrete units of speech: a code for each frame, and segments of frames with one code each.

    states (B, T, D) ─ W ─> z (B, T, E) ─ the nearest of K codes ─> (T,) of each clip ─ segmentation ─> segments
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from isogloss.nn.quantizers import VectorQuantised, VectorQuantizer
from isogloss.nn.segmentation import Segment, best_segments, distances, merged_segments
from isogloss.sequence import Sequence

LONGEST = 50
"""Frames in a segment at most: a second of states of 20 ms."""


class Units(NamedTuple):
    """Of one clip: the code of each frame, (T,), and segments in frames of the encoder."""

    codes: NDArray[np.int64]
    segments: list[Segment]


class UnitQuantizer(nn.Module):
    """States of width D -> codes of width E."""

    def __init__(self, inputs: int, codes: int, width: int, decay: float = 0.999, patience: int = 100):
        super().__init__()
        self.project = nn.Linear(inputs, width)
        self.quantizer = VectorQuantizer(codes, width, decay=decay, patience=patience)

    def forward(self, states: Sequence) -> VectorQuantised:
        """(B, T, D) -> codes of all B T frames, (B T, E)."""
        return self.quantizer(self.project(states.zero_padding().values).flatten(0, 1))

    @torch.no_grad()
    def units(
        self, states: Sequence, bonus: float = 0.0, longest: int = LONGEST, rate: float | None = None
    ) -> list[Units]:
        """The units of clips with states (B, T, D).

        bonus: λ of dynamic programming, for each frame that a segment goes on; with 0 a segment is a run of one code.
        rate: instead, segments a frame, which merging neighbours leads to.
        """
        book = self.quantizer.codebooks[0].cpu().numpy()
        found = []
        for clip in states.unpad():
            z = self.project(clip)
            costs = distances(z.float().cpu().numpy(), book)
            if rate is None:
                segments = best_segments(costs, bonus, longest)
            else:
                segments = merged_segments(costs, round(rate * len(costs)))
            found.append(Units(self.quantizer(z).codes[:, 0].cpu().numpy(), segments))
        return found
