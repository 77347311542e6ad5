"""Mockingjay: write the features that are hidden, from both sides (Liu et al. 2020, arXiv 1910.12638).

The idea: BERT for speech without codes. Spans of features are zeroed, and the encoder, which sees what is before and
after, writes them anew.

    features x (B, T, F) ─ zeros on spans ─ encoder ─ linear, GELU, LayerNorm, linear ─> x̂ of hidden frames
    L = mean over hidden encoder frames, and over their features, of |x - x̂|

Frames count as hidden where all feature frames of an encoder frame are; these are written side by side. As in the
published code 15 % of the frames are hidden, in runs of seven; an encoder that subsamples wants longer ones.

Differs from the published code: hidden frames are always zeros, never left as they are or taken from elsewhere.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field
from torch import nn

from isogloss.data.loading import Batch
from isogloss.model.model import Model
from isogloss.model.spec import ModelSpec
from isogloss.objectives.base import Alarm, BaseConfig, Clock, Loss, Mean, Objective, Term
from isogloss.objectives.collapse import EQUAL_STATES, spread
from isogloss.objectives.masked_features import FeatureSpansConfig, MaskedFeatures, side_by_side


class MockingjayConfig(BaseConfig, FeatureSpansConfig):
    """Reconstruction of hidden features of speech alone."""

    paper = "Liu et al. 2020, arXiv 1910.12638"
    recipe = "mockingjay-tiny"
    presets: ClassVar = {"tiny": ("tiny", {}), "base": ("mockingjay", {})}

    name: Literal["mockingjay"] = "mockingjay"
    start_probability: float = Field(0.023, gt=0, lt=1, description="probability that a span starts at a frame")
    mask_ms: int = Field(70, ge=40, description="length of a span, ms")
    noise: float = Field(0.0, ge=0, description="standard deviation of the noise in place of hidden frames")

    def build(self, spec: ModelSpec) -> Mockingjay:
        """The objective for a model."""
        return Mockingjay(self, spec)


class Mockingjay(Objective):
    """Reconstruction of hidden features; needs audio only."""

    def __init__(self, config: MockingjayConfig, spec: ModelSpec):
        super().__init__(config, spec)
        self.masked = MaskedFeatures(config, spec)
        self.needs = self.masked.needs
        self.predict = nn.Sequential(
            nn.Linear(spec.width, spec.width),
            nn.GELU(),
            nn.LayerNorm(spec.width),
            nn.Linear(spec.width, spec.stride * spec.bins),
        )

    def prepare(self, batch: Batch, training: bool) -> Batch:
        """What is masked: `mask` (B, T) of features and `targets`."""
        return batch.with_extras(self.masked.hidden(batch.audio, batch))

    def counts(self, batch: Batch) -> dict[str, int]:
        """Hidden encoder frames."""
        return {"distance": sum(map(len, batch.extras["targets"]))}

    def forward(self, model: Model, batch: Batch, clock: Clock) -> Loss:
        """Audio (B, S) -> |x - x̂|, averaged over features and summed over hidden encoder frames."""
        features = model.features(batch.audio)
        hidden = self.masked.corrupt(features, batch.extras["mask"])
        states = model.encoder(hidden, languages=batch.languages).final.values
        places = self.masked.targets(batch, states.shape[1], states.device)
        chosen = states.flatten(0, 1)[places]
        wanted = side_by_side(features, self.spec).flatten(0, 1)[places].detach()
        distances = (self.predict(chosen).float() - wanted.float()).abs().mean(dim=-1)
        frames = len(places)
        return Loss(
            {"distance": Term(distances.sum(), frames)},
            {"spread": Mean(spread(chosen.detach()) * frames, frames)},
        )

    def health(self) -> tuple[Alarm, ...]:
        """States that are all alike."""
        return (EQUAL_STATES,)
