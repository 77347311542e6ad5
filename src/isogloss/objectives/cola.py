"""COLA: which crop is of the same clip, by a bilinear similarity (Saeed et al. 2021, arXiv 2010.10915).

The idea: two crops of one clip belong together, and crops of different clips do not; nothing is distorted, and the
similarity is learned too.

    clips ─ two crops each ─ encoder ─ mean over time ─> h ─ linear ─ LayerNorm ─ tanh ─> g, g′ (N, E)

    bilinear   s(i, j) = gᵢᵀ W g′ⱼ
    cosine     s(i, j) = cos(gᵢ, g′ⱼ) / τ                                       g behind the linear layer alone
    L = mean over clips i of -log exp s(i, i) / Σⱼ exp s(i, j)                             starts at about ln N

The second crop may be distorted (`perturb`), as the published code may add noise to it; the first is as it is. The
others are the clips of a micro-batch.

Differs from the paper: an encoder of frames and the mean over time in place of EfficientNet-B0 and the maximum over
its map; the features are the model's, log-mel of 80 bins by default (COLA: 64, `model.features.bins: 64`). W begins as
any linear layer here. The published code takes crops of 1 s.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from isogloss.data.loading import Batch
from isogloss.model.model import Model
from isogloss.model.spec import ModelSpec
from isogloss.nn.contrastive import cosines, info_nce_among
from isogloss.objectives.base import Clock, Loss, Mean, Term
from isogloss.objectives.crops import CropsConfig, TwoCrops, spread_of_clips, vectors_of_both


class COLAConfig(CropsConfig):
    """Contrast of crops of speech alone, by a similarity that is learned."""

    paper = "Saeed et al. 2021, arXiv 2010.10915"
    recipe = "cola-tiny"
    presets: ClassVar = {"tiny": ("tiny", {}), "small": ("small", {})}

    name: Literal["cola"] = "cola"
    width: int = Field(512, ge=1, description="width E of the vectors that are compared")
    similarity: Literal["bilinear", "cosine"] = Field("bilinear", description="s: learned, or cosine / temperature")
    temperature: float = Field(0.1, gt=0, description="τ of the cosine")

    def build(self, spec: ModelSpec) -> COLA:
        """The objective for a model."""
        return COLA(self, spec)


class COLA(TwoCrops):
    """Softmax over the similarities of first crops to second ones; needs audio only."""

    batchwise = frozenset({"contrastive"})
    perturbed = (False, True)

    def __init__(self, config: COLAConfig, spec: ModelSpec):
        super().__init__(config, spec)
        self.config = config
        self.head: nn.Module = nn.Linear(spec.width, config.width)
        self.bilinear: nn.Linear | None = None
        if config.similarity == "bilinear":
            self.head = nn.Sequential(self.head, nn.LayerNorm(config.width), nn.Tanh())
            self.bilinear = nn.Linear(config.width, config.width, bias=False)

    def forward(self, model: Model, batch: Batch, clock: Clock) -> Loss:
        """Audio (B, S) -> the losses of first crops, summed over clips."""
        vectors, clips = vectors_of_both(model, batch), len(batch.ids)
        scores = self.scores(*self.head(vectors).chunk(2))
        own = torch.arange(clips, device=scores.device)
        found = (scores.detach().argmax(dim=1) == own).float().sum()
        stats = {"found": Mean(found, clips), "spread": spread_of_clips(vectors, clips)}
        return Loss({"contrastive": Term(info_nce_among(scores, own).sum(), clips)}, stats)

    def scores(self, first: Tensor, second: Tensor) -> Tensor:
        """s of all pairs: (N, E), (N, E) -> (N, N) float32."""
        if self.bilinear is None:
            return cosines(first, second) / self.config.temperature
        with torch.autocast(first.device.type, enabled=False):
            return first.float() @ self.bilinear(second.float()).mT
