"""Spans of the states that enter the blocks, hidden behind one learned vector: part of wav2vec 2.0, HuBERT and others.

    features ─ embed ─> states (B, T, D) ─ a learned vector on spans ─ blocks ─> (B, T, D)
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn

from isogloss.config import Config
from isogloss.data.loading import Batch
from isogloss.model.model import Model
from isogloss.model.spec import ModelSpec
from isogloss.nn.masking import flat_places, padded_masks
from isogloss.objectives.base import Term
from isogloss.objectives.guidance import GuideConfig, needed, span_masks
from isogloss.sequence import Sequence


class SpansConfig(Config):
    """What is hidden."""

    start_probability: float = Field(0.065, gt=0, lt=1, description="probability that a span starts at a frame")
    mask_ms: int = Field(200, ge=20, description="length of a span, ms: ten frames of 20 ms")
    guide: GuideConfig | None = Field(None, description="hide where a recogniser is sure, or unsure")


class Hidden(NamedTuple):
    """Of the M hidden frames: states after the last block and after a middle one, (M, D), and their places, (M,)."""

    final: Tensor
    middle: Tensor
    places: Tensor


class MaskedStates(nn.Module):
    """Hides spans of the states that enter the blocks."""

    def __init__(self, config: SpansConfig, spec: ModelSpec):
        super().__init__()
        self.config, self.spec, self.needs = config, spec, needed(config.guide)
        width = spec.bins if spec.config.encoder.embed.keeps_width else spec.width
        self.vector = nn.Parameter(torch.empty(width).uniform_())

    def hidden(self, batch: Batch) -> dict[str, Any]:
        """`mask` (B, T) bool over encoder frames, and `targets`, the hidden frames of each clip."""
        span = max(1, round(self.config.mask_ms / (1000 * self.spec.frame_seconds)))
        lengths = self.spec.frames(batch.audio.lengths).tolist()
        masks = span_masks(lengths, span, self.config, batch)
        mask = padded_masks(masks, max(1, self.spec.frames(batch.audio.values.shape[1])))
        return {"mask": mask, "targets": [row.nonzero()[:, 0].tolist() for row in mask]}

    def encode(self, model: Model, states: Sequence, batch: Batch, layer: int | None = None) -> Hidden:
        """States (B, T, D) -> what the blocks make of the hidden frames, and what the first `layer` of them make."""
        masked = torch.where(batch.extras["mask"][..., None], self.vector.to(states.values.dtype), states.values)
        layers = () if layer is None else (layer,)
        encoded = model.encoder.contextualise(states.with_values(masked), layers=layers, languages=batch.languages)
        final = encoded.final.values.flatten(0, 1)
        places = flat_places(batch.extras["targets"], encoded.final.values.shape[1], final.device)
        middle = final if layer is None else encoded.layers[layer].values.flatten(0, 1)
        return Hidden(final[places], middle[places], places)


def energy(features: Sequence, weight: float) -> Term:
    """Mean square of features (B, T, F) of each utterance, summed: keeps learned ones small (wav2vec 2.0's penalty)."""
    squares = features.zero_padding().values.float().square().mean(dim=-1).sum(dim=-1)
    return Term((squares / features.lengths.clamp(min=1)).sum(), len(features), weight)


def scaled_gradient(features: Sequence, scale: float) -> Sequence:
    """The same features with their gradient multiplied: learned features follow more slowly than the blocks."""
    return features.map(lambda values: scale * values + (1 - scale) * values.detach())
