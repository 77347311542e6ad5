"""CPC: tell the frames that follow from others of the utterance (van den Oord et al. 2018, arXiv 1807.03748).

The idea: an encoder that sees nothing of the future predicts the features of the next K frames, each by a matrix of its
own, well enough to find them among others of the same utterance, and so of the same voice.

    features z (B, T, F) ─ causal encoder ─> c (B, T, D) ─ A_k ─> (B, T, F)        k = 1 … K frames ahead

    L = mean over t ≤ T - K, and over k, of -log exp(z_{t+k} · A_k c_t) / Σ_{n ∈ t+k, N others} exp(z_n · A_k c_t)

Starts near ln(N + 1); ln(N + 1) - L is a lower bound of what c and z have in common, in nats (`information`). The right
frame is in the denominator, and is no distractor of itself. Features are learned from the waveform in the paper; those
of any kind will do.

Differs from the paper: the distractors are the same for all k, as in the modified CPC of Rivière et al. (2020, arXiv
2002.02848), of whose sizes `model.encoder: cpc` is; A_k are matrices as in the paper, not Transformer layers.
"""

from __future__ import annotations

from math import log
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from isogloss.data.loading import Batch
from isogloss.model.model import Model
from isogloss.model.spec import ModelSpec
from isogloss.nn.contrastive import info_nce
from isogloss.nn.masking import flat_places
from isogloss.objectives.base import Alarm, BaseConfig, Clock, Loss, Mean, Objective, Term
from isogloss.objectives.collapse import EQUAL_STATES, require_causal, spread


class CPCConfig(BaseConfig):
    """Contrastive predictive coding of speech alone."""

    paper = "van den Oord et al. 2018, arXiv 1807.03748"
    recipe = "cpc-tiny"
    presets: ClassVar = {"modified": ("cpc", {})}

    name: Literal["cpc"] = "cpc"
    ahead: int = Field(12, ge=1, description="number K of later frames that are predicted")
    distractors: int = Field(128, ge=1, description="number N of other frames")

    def build(self, spec: ModelSpec) -> CPC:
        """The objective for a model; raises IsoglossError for an encoder that sees the future or skips frames."""
        return CPC(self, spec)


class CPC(Objective):
    """Contrastive prediction of later features; needs audio only."""

    def __init__(self, config: CPCConfig, spec: ModelSpec):
        super().__init__(config, spec)
        self.config = config
        require_causal(spec, "CPC", "cpc")
        self.predict = nn.ModuleList(nn.Linear(spec.width, spec.bins, bias=False) for _ in range(config.ahead))

    def prepare(self, batch: Batch, training: bool) -> Batch:
        """`targets`: frames of each clip with K frames after them; `others` (B, T, N): places of frames of the clip."""
        lengths = self.spec.frames(batch.audio.lengths).tolist()
        width = max(1, self.spec.frames(batch.audio.values.shape[1]))
        others = torch.zeros(len(lengths), width, self.config.distractors, dtype=torch.int64)
        for row, length, draw in zip(others, lengths, batch.draws("others"), strict=True):
            if length:
                row[:length] = torch.from_numpy(draw.integers(0, length, (length, self.config.distractors)))
        targets = [list(range(length - self.config.ahead)) for length in lengths]
        return batch.with_extras({"targets": targets, "others": others})

    def counts(self, batch: Batch) -> dict[str, int]:
        """Frames with K frames after them."""
        return {"contrastive": sum(map(len, batch.extras["targets"]))}

    def forward(self, model: Model, batch: Batch, clock: Clock) -> Loss:
        """Audio (B, S) -> losses averaged over K and summed over frames."""
        features = model.features(batch.audio).zero_padding()
        states = model.encoder(features, languages=batch.languages).final.values
        width = states.shape[1]
        places = flat_places(batch.extras["targets"], width, states.device)
        others = batch.extras["others"]
        found = [self._ahead(k, states, features.values, others, places) for k in range(1, self.config.ahead + 1)]
        mean, frames = torch.stack([losses for losses, _ in found]).mean(dim=0), len(places)
        information = log(self.config.distractors + 1) - mean.detach()
        stats = {
            "accuracy": Mean(torch.stack([right for _, right in found]).mean(dim=0).sum(), frames),
            "information": Mean(information.sum(), frames),
            "spread": Mean(spread(states.detach().flatten(0, 1)[places]) * frames, frames),
        }
        return Loss({"contrastive": Term(mean.sum(), frames)}, stats)

    def _ahead(self, k: int, states: Tensor, z: Tensor, others: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
        """Losses of the frames at `places`, k frames ahead, and whether each found the right one: (M,), (M,)."""
        with torch.autocast(states.device.type, enabled=False):
            scores = self.predict[k - 1](states.float()) @ z.float().transpose(1, 2)  # (B, T, T)
        later = (torch.arange(z.shape[1], device=z.device) + k).clamp(max=z.shape[1] - 1)
        found = scores.take_along_dim(later[None, :, None], dim=2)[..., 0].flatten()[places]
        wrong = scores.gather(2, others).flatten(0, 1)[places]
        itself = (others == later[None, :, None]).flatten(0, 1)[places]
        losses = info_nce(found, wrong, itself)
        best = wrong.detach().masked_fill(itself, -torch.inf).amax(dim=1)
        return losses, (found.detach() > best).float()

    def health(self) -> tuple[Alarm, ...]:
        """States that are all alike."""
        return (EQUAL_STATES,)
