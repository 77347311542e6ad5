"""Spans of features that are hidden behind noise: part of Mockingjay, BEST-RQ and those that predict its codes.

    features (B, T, F) ─ noise on spans ─ encoder ─> states (B, T', D) of frames that are hidden as a whole
"""

from __future__ import annotations

from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import pad

from isogloss.config import Config
from isogloss.data.loading import Batch
from isogloss.model.spec import ModelSpec
from isogloss.nn.masking import flat_places, padded_masks
from isogloss.nn.subsampling import stack
from isogloss.objectives.guidance import GuideConfig, needed, span_masks
from isogloss.sequence import Sequence


class FeatureSpansConfig(Config):
    """What is hidden, with BEST-RQ's values as defaults."""

    start_probability: float = Field(0.01, gt=0, lt=1, description="probability that a mask starts at a frame")
    mask_ms: int = Field(400, ge=40, description="length of a mask, ms; streaming models 300")
    guide: GuideConfig | None = Field(None, description="hide where a recogniser is sure, or unsure")
    noise: float = Field(0.1, ge=0, description="standard deviation of the noise that replaces masked frames")


def side_by_side(features: Sequence, spec: ModelSpec) -> Tensor:
    """The features that one encoder frame stands for, for as many as the encoder has: (B, T, F) -> (B, T', stride · F).

    Encoders that put frames side by side leave out a rest at the end.
    """
    frames = max(1, spec.config.encoder.embed.framing.frames(features.values.shape[1]))
    return stack(features, spec.stride)[:, :frames]


class MaskedFeatures(nn.Module):
    """Hides spans of features."""

    def __init__(self, config: FeatureSpansConfig, spec: ModelSpec):
        super().__init__()
        self.config = config
        self.spec = spec
        self.needs = needed(config.guide)

    def hidden(self, audio: Sequence, batch: Batch) -> dict[str, Any]:
        """What is masked of audio (B, S), as the clips of a batch say: `mask` (B, T) bool over feature frames.

        And `targets`, the encoder frames of each clip all of whose feature frames are: they are counted here, while
        reading, for a GPU would stand still for it.
        """
        span = round(self.config.mask_ms / self.spec.frame_ms)
        lengths = self.spec.feature_frames(audio.lengths).tolist()
        masks = span_masks(lengths, span, self.config, batch)
        mask = padded_masks(masks, self.spec.feature_frames(audio.values.shape[1]))
        stride = self.spec.stride
        whole = pad(mask, (0, -mask.shape[1] % stride)).unflatten(1, (-1, stride)).all(dim=-1)
        return {"mask": mask, "targets": [row.nonzero()[:, 0].tolist() for row in whole]}

    def targets(self, batch: Batch, width: int, device: torch.device) -> Tensor:
        """The `targets` of all clips, (M,) int64, in states (B, width, D) whose rows stand one behind the other."""
        return flat_places(batch.extras["targets"], width, device)

    def corrupt(self, features: Sequence, mask: Tensor) -> Sequence:
        """Gaussian noise in place of the masked frames."""
        noise = torch.randn_like(features.values) * self.config.noise
        return features.with_values(torch.where(mask[..., None], noise, features.values))
