"""Clusters of hidden states, whose numbers are labels to predict (HuBERT §3.1; Hsu et al. 2021, arXiv 2106.07447).

    audio (B, S) ─ encoder up to a layer ─ states (T, D) ─┬─ a share of the frames ─ k-means ─> centroids (C, D)
                                                          └─ nearest centroid ────────────────> labels (T,)

As in the public recipe: k-means++, batches of 10 000 frames, 100 passes at most, 20 starts, a tenth of the frames.
"""

from collections.abc import Iterable, Iterator
from typing import Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from isogloss.audio.features import FeaturesConfig
from isogloss.data.loading import Batch
from isogloss.errors import IsoglossError
from isogloss.model.model import Model
from isogloss.model.spec import ModelSpec
from isogloss.nn.quantizers import nearest
from isogloss.objectives.fit import Artefact, Fit, FitConfig


class KMeansConfig(FitConfig):
    """k-means of hidden states, or of features."""

    name: Literal["kmeans"] = "kmeans"
    clusters: int = Field(500, ge=2, description="number C of clusters; HuBERT 100 on MFCC, then 500")
    layer: int | None = Field(
        None, ge=0, description="layer of the encoder, 0 = before its first block; null = features"
    )
    features: FeaturesConfig | None = Field(
        None, description="features to cluster instead of the model's: {kind: mfcc} in HuBERT's first round"
    )
    share: float = Field(0.1, gt=0, le=1, description="share of the frames to fit clusters to")
    starts: int = Field(20, ge=1, description="number of initialisations; the best is kept")
    seed: int = Field(0, ge=0, description="seed of frames and initial centroids")

    def build(self, spec: ModelSpec) -> "FitKMeans":
        """What fits it; raises IsoglossError for a layer that the encoder does not have."""
        if self.layer is not None and self.features is not None:
            raise IsoglossError("kmeans clusters either a layer or features; leave one of them out.")
        if self.layer is not None and self.layer > spec.layers:
            raise IsoglossError(f"The encoder has no layer {self.layer} for kmeans; give one from 0 to {spec.layers}.")
        return FitKMeans(self)


class FitKMeans(Fit):
    """Centroids, and the label of every frame."""

    labels = True

    def __init__(self, config: KMeansConfig):
        self.config = config
        self.features = None if config.features is None else config.features.build().eval()

    @torch.no_grad()
    def fit(self, model: Model, batches: Iterable[Batch]) -> Artefact:
        from sklearn.cluster import MiniBatchKMeans

        draw = np.random.default_rng(self.config.seed)
        chosen = [
            states[torch.from_numpy(draw.random(len(states)) < self.config.share)]
            for batch in batches
            for states in self._states(model, batch)
        ]
        frames = torch.cat(chosen)
        if len(frames) < self.config.clusters:
            raise IsoglossError(
                f"{len(frames)} frames are too few for {self.config.clusters} clusters; take fewer clusters, a larger "
                "share, or more speech."
            )
        kmeans = MiniBatchKMeans(
            self.config.clusters,
            batch_size=10_000,
            max_iter=100,
            n_init=self.config.starts,
            max_no_improvement=100,
            random_state=self.config.seed,
        ).fit(frames.numpy())
        centroids = torch.from_numpy(kmeans.cluster_centers_).float()
        used = nearest(frames, centroids).unique()
        return Artefact({"centroids": centroids}, {"clusters in use": float(len(used))})

    @torch.no_grad()
    def label(self, model: Model, artefact: Artefact, batch: Batch) -> list[Tensor]:
        """The number of the nearest centroid of every frame."""
        return [nearest(states, artefact.tensors["centroids"]) for states in self._states(model, batch)]

    def _states(self, model: Model, batch: Batch) -> Iterator[Tensor]:
        """(T, D) float32 of every clip, on the CPU."""
        features, layer = (self.features or model.features)(batch.audio), self.config.layer
        if layer is not None:
            features = model.encode(features, layers=(layer,), languages=batch.languages).layers[layer]
        yield from (item.float().cpu() for item in features.unpad())
