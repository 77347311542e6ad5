"""SimCLR on speech: two crops of a clip are found by each other among all crops of a batch.

Chen et al. 2020 (arXiv 2002.05709). The idea: what two distorted parts of a recording have in common is who speaks, in
which language and where; whatever tells them from other recordings must be found out.

    clips ─ two crops each ─ encoder ─ mean over time ─> h (2 N, D) ─ linear, ReLU, linear ─> z (2 N, E)

    l(i, j) = -log exp(cos(z_i, z_j) / τ) / Σ_{k ≠ i} exp(cos(z_i, z_k) / τ)          i and j: crops of one clip
    L = mean over clips of ½ [l(i, j) + l(j, i)]                                  starts at about ln(2 N - 1)

The others are the crops of a micro-batch, in this process: a larger `batch_seconds` gives more. Other clips of the
same speaker count as others too.

Differs from the paper: crops in time and distortions of the waveform in place of those of images, an encoder of frames
in place of a ResNet, and AdamW in place of LARS.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from isogloss.data.loading import Batch
from isogloss.model.model import Model
from isogloss.model.spec import ModelSpec
from isogloss.nn.contrastive import cosines, info_nce_among
from isogloss.objectives.base import Clock, Loss, Mean, Term
from isogloss.objectives.crops import CropsConfig, TwoCrops, projection, spread_of_clips, vectors_of_both


class SimCLRConfig(CropsConfig):
    """Contrast of crops of speech alone."""

    paper = "Chen et al. 2020, arXiv 2002.05709"
    recipe = "simclr-tiny"
    presets: ClassVar = {"tiny": ("tiny", {}), "small": ("small", {})}

    name: Literal["simclr"] = "simclr"
    temperature: float = Field(0.1, gt=0, description="τ, by which cosines are divided")

    def build(self, spec: ModelSpec) -> SimCLR:
        """The objective for a model."""
        return SimCLR(self, spec)


class SimCLR(TwoCrops):
    """NT-Xent of two crops of each clip; needs audio only."""

    batchwise = frozenset({"contrastive"})

    def __init__(self, config: SimCLRConfig, spec: ModelSpec):
        super().__init__(config, spec)
        self.config = config
        self.head = projection(spec.width, config.width)

    def forward(self, model: Model, batch: Batch, clock: Clock) -> Loss:
        """Audio (B, S) -> the two losses of each clip averaged, and summed over clips."""
        vectors, clips = vectors_of_both(model, batch), len(batch.ids)
        losses, found = nt_xent(self.head(vectors), self.config.temperature)
        stats = {"found": Mean(found.float().sum() / 2, clips), "spread": spread_of_clips(vectors, clips)}
        return Loss({"contrastive": Term(losses.sum() / 2, clips)}, stats)


def nt_xent(vectors: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """z of all first crops and then of all second ones -> l of each, and whether it found the other: (2 N, E), (2 N,).
    """
    itself = torch.eye(len(vectors), dtype=torch.bool, device=vectors.device)
    scores = (cosines(vectors, vectors) / temperature).masked_fill(itself, -torch.inf)
    other = torch.arange(len(vectors), device=vectors.device).roll(len(vectors) // 2)
    return info_nce_among(scores, other), scores.detach().argmax(dim=1) == other
