"""Mean and variance of the features over all training clips, which `normalisation: corpus` takes off.

    audio (B, S) ─ features before normalisation (B, T, F) ─ Σ x, Σ x² over valid frames ─> mean (F,), variance (F,)
"""

from collections.abc import Iterable
from typing import Literal

import torch

from isogloss.audio.log_mel import LogMelFeatures
from isogloss.audio.normalise import CorpusNormaliser
from isogloss.data.loading import Batch
from isogloss.errors import IsoglossError
from isogloss.model.model import Model
from isogloss.model.spec import ModelSpec
from isogloss.objectives.fit import Artefact, Fit, FitConfig


class NormalisationConfig(FitConfig):
    """The statistics of the corpus."""

    name: Literal["normalisation"] = "normalisation"

    def build(self, spec: ModelSpec) -> "FitNormalisation":
        """What fits it; raises IsoglossError for features that are not normalised by a corpus."""
        if getattr(spec.config.features, "normalisation", None) != "corpus":
            raise IsoglossError(
                "Statistics of the corpus are of no use to this model; set model.features.normalisation: corpus."
            )
        return FitNormalisation()


class FitNormalisation(Fit):
    """Exact statistics in one pass."""

    @torch.no_grad()
    def fit(self, model: Model, batches: Iterable[Batch]) -> Artefact:
        features, normaliser = _parts(model)
        normaliser.fit(features.log_mel(batch.audio) for batch in batches)
        return Artefact({"mean": normaliser.mean, "variance": normaliser.variance, "count": normaliser.count})

    def apply(self, model: Model, artefact: Artefact) -> None:
        _parts(model)[1].load_state_dict(artefact.tensors)


def _parts(model: Model) -> tuple[LogMelFeatures, CorpusNormaliser]:
    """The features of a model that are normalised by a corpus, and what does it."""
    features = model.features
    assert isinstance(features, LogMelFeatures) and isinstance(features.normaliser, CorpusNormaliser)
    return features, features.normaliser
