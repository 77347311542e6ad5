"""Mean and variance of the features over all training clips, which `normalisation: corpus` takes off.

    audio (B, S) ─ features before normalisation (B, T, F) ─ Σ x, Σ x² over valid frames ─> mean (F,), variance (F,)
"""

from collections.abc import Iterable, Iterator
from typing import Literal

import torch

from isogloss.audio.normalise import CorpusNormaliser
from isogloss.data.loading import Batch
from isogloss.errors import IsoglossError
from isogloss.model.model import Model
from isogloss.objectives.fit import Artefact, Fit, FitConfig
from isogloss.sequence import Sequence


class NormalisationConfig(FitConfig):
    """The statistics of the corpus."""

    name: Literal["normalisation"] = "normalisation"

    def build(self) -> "FitNormalisation":
        return FitNormalisation()


class FitNormalisation(Fit):
    """Exact statistics in one pass."""

    @torch.no_grad()
    def fit(self, model: Model, batches: Iterable[Batch]) -> Artefact:
        normaliser = _normaliser(model)
        normaliser.fit(self._features(model, batches))
        return Artefact({"mean": normaliser.mean, "variance": normaliser.variance, "count": normaliser.count})

    def apply(self, model: Model, artefact: Artefact) -> None:
        _normaliser(model).load_state_dict(artefact.tensors)

    def _features(self, model: Model, batches: Iterable[Batch]) -> Iterator[Sequence]:
        for batch in batches:
            yield model.features.log_mel(batch.audio)


def _normaliser(model: Model) -> CorpusNormaliser:
    normaliser = getattr(model.features, "normaliser", None)
    if not isinstance(normaliser, CorpusNormaliser):
        raise IsoglossError(
            "Statistics of the corpus are of no use to this model; set model.features.normalisation: corpus."
        )
    return normaliser
