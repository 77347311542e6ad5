"""Two crops of each clip, and a vector of each: what methods that learn vectors of whole utterances share.

    clip ─┬─ crop ─ [distortions] ─> (S,) ─┐
          └─ crop ─ [distortions] ─> (S,) ─┴─ features ─ encoder ─ mean over time ─> h (2, D)

Crops begin anywhere in the clip, each by itself: they overlap as chance has it. A clip shorter than a crop is taken
whole, twice; then only distortions make the two differ. On the dev split they are the beginning and the end of a clip,
as they are.

What is trained is an encoder of frames like any other. The mean of its states is the vector of an utterance, which
`isogloss embed` gives; heads that follow here end with pre-training.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import normalize

from isogloss.audio.perturb import PerturbConfig, perturb
from isogloss.audio.reading import SAMPLE_RATE, Waveform
from isogloss.data.loading import Batch
from isogloss.encoders.stack import Encoded
from isogloss.model.model import Model
from isogloss.model.spec import ModelSpec
from isogloss.nn.pooling import mean_over_time
from isogloss.objectives.base import Alarm, BaseConfig, Mean, Objective
from isogloss.objectives.collapse import EQUAL_CLIPS, spread
from isogloss.sequence import Sequence


class CropsConfig(BaseConfig):
    """Two crops of each clip."""

    crop_ms: int = Field(960, ge=100, description="length of a crop, ms; a clip that is shorter is taken whole")
    perturb: PerturbConfig | None = Field(
        None, description="pauses, rooms, tone, noise and level of each crop; {} for the defaults"
    )
    width: int = Field(128, ge=1, description="width E of the vectors that are compared")


class TwoCrops(Objective):
    """What learns from two crops of each clip; needs audio only.

    perturbed: which of the two are. least: samples that a crop has at least, filled up with zeros: those of a frame.
    """

    perturbed: ClassVar[tuple[bool, bool]] = (True, True)

    def __init__(self, config: CropsConfig, spec: ModelSpec):
        super().__init__(config, spec)
        self._crops = config
        self.least = spec.framing.least(1)

    def prepare(self, batch: Batch, training: bool) -> Batch:
        """`crops`, (B, S, 2)."""
        rows = zip(batch.audio.unpad(), batch.draws("crops"), strict=True)
        crops = [torch.from_numpy(self._two_of(clip.numpy(), draw, training)) for clip, draw in rows]
        return batch.with_extras({"crops": Sequence.from_list(crops)})

    def health(self) -> tuple[Alarm, ...]:
        """Clips that are all alike."""
        return (EQUAL_CLIPS,)

    def _two_of(self, clip: Waveform, draw: np.random.Generator, training: bool) -> Waveform:
        """Two crops of a clip, (S, 2)."""
        size = min(len(clip), round(self._crops.crop_ms * SAMPLE_RATE / 1000))
        starts = draw.integers(0, len(clip) - size + 1, 2) if training else (0, len(clip) - size)
        found = [clip[start : start + size] for start in starts]
        if training and self._crops.perturb is not None:
            # With pauses it is longer.
            found = [
                perturb(crop, self._crops.perturb, draw)[:size] if changed else crop
                for crop, changed in zip(found, self.perturbed, strict=True)
            ]
        return np.pad(np.stack(found, axis=1), ((0, max(0, self.least - size)), (0, 0)))


def first_and_second(batch: Batch) -> tuple[Sequence, Sequence]:
    """The first crops of the clips and the second ones, (B, S) each."""
    crops: Sequence = batch.extras["crops"]
    first, second = crops.values.unbind(dim=2)
    return crops.with_values(first), crops.with_values(second)


def both(batch: Batch) -> tuple[Sequence, list[str]]:
    """All first crops and then all second ones, (2 B, S), and their languages."""
    first, second = first_and_second(batch)
    together = Sequence(torch.cat([first.values, second.values]), torch.cat([first.lengths, second.lengths]))
    return together, 2 * batch.languages


def utterances(features: nn.Module, encoder: nn.Module, audio: Sequence, languages: Iterable[str | None]) -> Tensor:
    """Audio (B, S) -> a vector for each, the mean of the encoder's states: (B, D)."""
    encoded: Encoded = encoder(features(audio), languages=languages)
    return mean_over_time(encoded.final)


def vectors_of_both(model: Model, batch: Batch) -> Tensor:
    """The vectors of all first crops and then of all second ones, (2 B, D)."""
    return utterances(model.features, model.encoder, *both(batch))


def projection(inputs: int, width: int) -> nn.Module:
    """SimCLR's head, behind which vectors are compared: linear, ReLU, linear."""
    return nn.Sequential(nn.Linear(inputs, inputs), nn.ReLU(), nn.Linear(inputs, width))


def spread_of_clips(vectors: Tensor, clips: int) -> Mean:
    """How far vectors (N, D) of length 1 of so many clips lie from each other; one clip alone says nothing."""
    others = max(0, clips - 1)
    return Mean(spread(normalize(vectors.detach().float(), dim=-1)) * others, others)
