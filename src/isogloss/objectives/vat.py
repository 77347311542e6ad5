"""Virtual adversarial training: what is nearest to being misheard must be heard the same (Miyato et al. 2018,
arXiv 1704.03976).

The idea: of all small changes of the features, find the one that changes the posteriors most, and train against it. No
transcript is needed, so that any recipe with a CTC or language head can add it.

    d    random, |d| = √T                                      a vector for each clip of T frames
    g    = ∇_d KL(p(· | x) ‖ p(· | x + ξ d))                   one power iteration, without dropout
    r    = ε √T g / |g|
    L    = KL(p(· | x) ‖ p(· | x + r)), mean over frames       no gradient through the left side

Differs from the paper: ε and ξ are sizes a frame, whatever the length of a clip; features are normalised, so that ε is
in standard deviations of all bins of a frame together.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from isogloss.data.loading import Batch
from isogloss.model.model import Model
from isogloss.model.spec import ModelSpec
from isogloss.nn.dropout import evaluating
from isogloss.objectives.base import BaseConfig, Clock, Loss, Mean, Objective, Term
from isogloss.objectives.consistency import difference, output, require_output
from isogloss.sequence import Sequence


class VATConfig(BaseConfig):
    """Virtual adversarial training on speech alone."""

    paper = "Miyato et al. 2018, arXiv 1704.03976"

    name: Literal["vat"] = "vat"
    on: str = Field("ctc", description="the head whose posteriors must stay")
    epsilon: float = Field(1.0, gt=0, description="ε, size of the change a frame")
    probe: float = Field(0.01, gt=0, description="ξ, size of the change a frame with which the worst is looked for")

    def build(self, spec: ModelSpec) -> VAT:
        """The objective for a model; raises IsoglossError where it has no such head."""
        return VAT(self, spec)


class VAT(Objective):
    """How much the worst small change of the features changes; needs audio only."""

    def __init__(self, config: VATConfig, spec: ModelSpec):
        super().__init__(config, spec)
        self.config = config
        require_output(spec, config.on, config.name, states=False)

    def prepare(self, batch: Batch, training: bool) -> Batch:
        """`direction` (B, T, F): d of each clip."""
        lengths = self.spec.feature_frames(batch.audio.lengths)
        drawn = torch.zeros(len(batch.ids), self.spec.feature_frames(batch.audio.values.shape[1]), self.spec.bins)
        for row, length, draw in zip(drawn, lengths.tolist(), batch.draws("direction"), strict=True):
            row[:length] = torch.from_numpy(draw.standard_normal((length, self.spec.bins), np.float32))
        return batch.with_extras({"direction": Sequence(drawn, lengths)})

    def forward(self, model: Model, batch: Batch, clock: Clock) -> Loss:
        """Audio (B, S) -> divergences averaged over frames and summed over utterances."""
        features, rows = model.features(batch.audio).zero_padding(), len(batch.ids)
        clean, change = self._worst(model, features.map(Tensor.detach), batch)
        changed = self._posteriors(model, features.map(lambda x: x + change.to(x.dtype)), batch)
        lost = difference(clean, changed, "kl")
        random = batch.extras["direction"].values.detach()
        return Loss({"divergence": Term(lost.sum(), rows)}, {"turned": Mean(_cosines(random, change).sum(), rows)})

    def _worst(self, model: Model, features: Sequence, batch: Batch) -> tuple[Sequence, Tensor]:
        """Posteriors of the features as they are, and r (B, T, F)."""
        start = sized(batch.extras["direction"], self.config.probe)
        with evaluating(model), torch.enable_grad():
            with torch.no_grad():
                clean = self._posteriors(model, features, batch)
            probe = start.clone().requires_grad_()
            changed = self._posteriors(model, features.map(lambda x: x + probe.to(x.dtype)), batch)
            (slope,) = torch.autograd.grad(difference(clean, changed, "kl").sum(), [probe])
        return clean, sized(features.with_values(slope), self.config.epsilon)

    def _posteriors(self, model: Model, features: Sequence, batch: Batch) -> Sequence:
        return output(model, model.encode(features, languages=batch.languages).final, self.config.on)


def sized(direction: Sequence, size: float) -> Tensor:
    """(B, T, F) -> the same directions with norm `size` · √T; 0 stays 0."""
    values = direction.zero_padding().values.float()
    norms = values.square().sum(dim=(1, 2), keepdim=True).sqrt().clamp(min=1e-12)
    return values * (size * direction.lengths.sqrt()[:, None, None] / norms)


def _cosines(a: Tensor, b: Tensor) -> Tensor:
    """(B, T, F) twice -> (B,)."""
    return torch.cosine_similarity(a.flatten(1).float(), b.flatten(1).float())
