"""Triplets: a crop lies nearer to the other of its clip than to crops of other clips, by a margin.

Semi-hard mining is that of FaceNet (Schroff et al. 2015, arXiv 1503.03832); that nearness in time takes the place of
labels is from Jansen et al. 2018 (arXiv 1711.02209).

    clips ─ two crops each ─ encoder ─ mean over time ─ head ─ / length ─> z (2 N, E)

    L = mean over clips and their two crops a of max(0, ‖a - p‖² - ‖a - n‖² + m)       starts at about m

p is the other crop of a's clip. Of the crops of other clips in the micro-batch, n is the nearest of those that are
farther from a than p (semi-hard), or the farthest of all where none is, as in TensorFlow Addons. Harder ones, nearer
than p, are left alone: in the beginning they make all vectors equal. A clip that is alone in its micro-batch has no
loss.

Differs from the papers: crops of speech and no labels of who is on them; the head has two layers; triplets are of whole
micro-batches.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from isogloss.data.loading import Batch
from isogloss.model.model import Model
from isogloss.model.spec import ModelSpec
from isogloss.nn.contrastive import cosines, triplet_loss
from isogloss.objectives.base import Clock, Loss, Mean, Term
from isogloss.objectives.crops import CropsConfig, TwoCrops, projection, spread_of_clips, vectors_of_both


class TripletConfig(CropsConfig):
    """Triplets of crops of speech alone."""

    paper = "Schroff et al. 2015, arXiv 1503.03832"
    recipe = "triplet-tiny"
    presets: ClassVar = {"tiny": ("tiny", {}), "small": ("small", {})}

    name: Literal["triplet"] = "triplet"
    margin: float = Field(0.2, gt=0, description="m, by which squared distances to other clips are to be larger")

    def build(self, spec: ModelSpec) -> Triplet:
        """The objective for a model."""
        return Triplet(self, spec)


class Triplet(TwoCrops):
    """Hinge of squared distances with semi-hard negatives; needs audio only."""

    batchwise = frozenset({"triplet"})

    def __init__(self, config: TripletConfig, spec: ModelSpec):
        super().__init__(config, spec)
        self.config = config
        self.head = projection(spec.width, config.width)

    def forward(self, model: Model, batch: Batch, clock: Clock) -> Loss:
        """Audio (B, S) -> the losses of the two crops of each clip averaged, and summed over clips."""
        vectors, clips = vectors_of_both(model, batch), len(batch.ids)
        projected = self.head(vectors)
        distances = 2 - 2 * cosines(projected, projected)
        places = torch.arange(2 * clips, device=distances.device)
        near = distances[places, places.roll(clips)]
        others = places[:, None] % clips != places % clips
        far = distances.gather(1, semi_hard(near.detach(), distances.detach(), others)[:, None])[:, 0]
        losses = triplet_loss(near, far, self.config.margin) * (clips > 1)
        nearest = distances.detach().masked_fill(~others, torch.inf).amin(dim=1)
        stats = {
            "found": Mean((near.detach() < nearest).float().sum() / 2, clips),
            "spread": spread_of_clips(vectors, clips),
        }
        return Loss({"triplet": Term(losses.sum() / 2, clips)}, stats)


def semi_hard(near: Tensor, distances: Tensor, others: Tensor) -> Tensor:
    """Which candidate is an anchor's negative: (M,), (M, N) and candidates as (M, N) bool -> (M,) places.

    The nearest of those farther than `near`, or the farthest where none is.
    """
    nearest = distances.masked_fill(~(others & (distances > near[:, None])), torch.inf)
    farthest = distances.masked_fill(~others, -torch.inf)
    return torch.where(nearest.amin(dim=1).isinf(), farthest.argmax(dim=1), nearest.argmin(dim=1))
