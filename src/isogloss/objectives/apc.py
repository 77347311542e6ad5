"""APC: predict the features that come some frames later (Chung et al. 2019, arXiv 1904.03240).

The idea: an encoder that sees nothing of the future must understand speech to say what follows.

    features x (B, T, F) ─ causal encoder ─> c (B, T, D) ─ W ─> x̂_{t+n}
    L = mean over frames t ≤ T - n, and over features, of |x_{t+n} - x̂_{t+n}|

Differs from the published code: the mean is over all frames of a step, not over those of each utterance first. Features
are normalised before (`model.features`): with statistics of the utterance, these are the one thing known of the future.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field
from torch import nn

from isogloss.data.loading import Batch
from isogloss.model.model import Model
from isogloss.model.spec import ModelSpec
from isogloss.nn.masking import flat_places
from isogloss.objectives.base import Alarm, BaseConfig, Clock, Loss, Mean, Objective, Term
from isogloss.objectives.collapse import EQUAL_STATES, require_causal, spread


class APCConfig(BaseConfig):
    """Autoregressive predictive coding of speech alone."""

    paper = "Chung et al. 2019, arXiv 1904.03240"
    recipe = "apc-tiny"
    presets: ClassVar = {"paper": ("apc", {})}

    name: Literal["apc"] = "apc"
    ahead: int = Field(5, ge=1, description="number n of frames that the predicted one lies ahead")

    def build(self, spec: ModelSpec) -> APC:
        """The objective for a model; raises IsoglossError for an encoder that sees the future or skips frames."""
        return APC(self, spec)


class APC(Objective):
    """Prediction of later features; needs audio only."""

    def __init__(self, config: APCConfig, spec: ModelSpec):
        super().__init__(config, spec)
        self.ahead = config.ahead
        require_causal(spec, "APC", "apc")
        self.predict = nn.Linear(spec.width, spec.bins)

    def prepare(self, batch: Batch, training: bool) -> Batch:
        """`targets`: the frames of each clip from which a later one is predicted."""
        lengths = self.spec.frames(batch.audio.lengths).tolist()
        return batch.with_extras({"targets": [list(range(length - self.ahead)) for length in lengths]})

    def counts(self, batch: Batch) -> dict[str, int]:
        """Frames that are predicted."""
        return {"distance": sum(map(len, batch.extras["targets"]))}

    def forward(self, model: Model, batch: Batch, clock: Clock) -> Loss:
        """Audio (B, S) -> |x - x̂|, averaged over features and summed over frames."""
        features = model.features(batch.audio)
        states = model.encoder(features, languages=batch.languages).final.values
        places = flat_places(batch.extras["targets"], states.shape[1], states.device)
        context = states.flatten(0, 1)[places]
        wanted = features.values.flatten(0, 1)[places + self.ahead].detach()
        distances = (self.predict(context).float() - wanted.float()).abs().mean(dim=-1)
        frames = len(places)
        return Loss(
            {"distance": Term(distances.sum(), frames)},
            {"spread": Mean(spread(context.detach()) * frames, frames)},
        )

    def health(self) -> tuple[Alarm, ...]:
        """States that are all alike."""
        return (EQUAL_STATES,)
