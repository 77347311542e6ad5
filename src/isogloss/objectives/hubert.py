"""HuBERT: predict the cluster of hidden frames (Hsu et al. 2021, arXiv 2106.07447).

The idea: clusters of frames, found before by k-means, are rough phonetic units; predicting them from what is around a
hidden span teaches the encoder better units, which are clustered again.

    states (B, T, D) ─ a learned vector on spans ─ blocks ─ A ─> (M, E) ─┐
    embeddings of the C clusters, (C, E) ────────────────────────────────┴─ sim(A c_t, e_k) / τ ─ softmax ─> clusters

    L = mean over hidden frames of -log p(cluster) + β mean(features²)                             starts near ln C

Two rounds are four stages: fit clusters of MFCCs (`fit: {name: kmeans, features: {kind: mfcc}, clusters: 100}`), train,
fit clusters of a middle layer (`layer: 6, clusters: 500`), train anew. Labels of features have a higher rate than the
encoder: of those that fall on one of its frames the first is predicted.

Differs from the paper: nothing; frames that are not hidden have no loss, as in its base.
"""

from __future__ import annotations

from itertools import chain
from math import log
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import nn
from torch.nn.functional import cross_entropy, normalize

from isogloss.data.loading import Batch
from isogloss.data.needs import Needs
from isogloss.errors import IsoglossError
from isogloss.model.model import Model
from isogloss.model.spec import ModelSpec
from isogloss.nn.masking import on_device
from isogloss.objectives.base import Alarm, BaseConfig, Clock, Loss, Mean, Objective, Term
from isogloss.objectives.collapse import EQUAL_STATES, perplexity, spread
from isogloss.objectives.masked_states import MaskedStates, SpansConfig, energy, scaled_gradient

MFCC = 0.01
"""Seconds from one label of MFCCs to the next."""


class HuBERTConfig(BaseConfig, SpansConfig):
    """HuBERT on speech alone; the defaults are those of base."""

    paper = "Hsu et al. 2021, arXiv 2106.07447"
    recipe = "hubert-tiny"
    presets: ClassVar = {
        "tiny": ("tiny", {"clusters": 100}),
        "base": ("wav2vec2_base", {}),
        "large": ("wav2vec2_large", {"code_width": 768, "feature_gradient": 1.0}),
    }

    name: Literal["hubert"] = "hubert"
    labels: str = Field("clusters", description="name of the stage that fits the clusters")
    clusters: int = Field(500, ge=2, description="how many C they are")
    code_width: int = Field(256, ge=1, description="width E of a cluster's embedding; large 768")
    start_probability: float = Field(0.08, gt=0, lt=1, description="probability that a span starts at a frame")
    similarity: float = Field(0.1, gt=0, description="τ, by which similarities are divided")
    penalty: float = Field(10.0, ge=0, description="β, weight of the features' mean square, if learned")
    feature_gradient: float = Field(
        0.1, gt=0, description="factor of the gradient that reaches learned features; large 1"
    )

    def build(self, spec: ModelSpec) -> HuBERT:
        """The objective for a model."""
        return HuBERT(self, spec)


class HuBERT(Objective):
    """Masked prediction of clusters; needs audio with labels."""

    def __init__(self, config: HuBERTConfig, spec: ModelSpec):
        super().__init__(config, spec)
        self.config = config
        self.masked = MaskedStates(config, spec)
        self.needs = Needs(labels=frozenset({config.labels})) | self.masked.needs
        self.learned = spec.config.features.kind == "waveform"
        self.project = nn.Linear(spec.width, config.code_width)
        self.classes = nn.Parameter(torch.empty(config.clusters, config.code_width).uniform_())

    def prepare(self, batch: Batch, training: bool) -> Batch:
        """`mask` (B, T), `targets` of each clip, and the cluster of each of these, `clusters`."""
        hidden = self.masked.hidden(batch)
        known = batch.labels[self.config.labels].unpad()
        found: list[list[int]] = []
        for labels, frames, samples in zip(known, hidden["targets"], batch.audio.lengths.tolist(), strict=True):
            places = torch.tensor(frames, dtype=torch.int64) * self._rate(len(labels), samples)
            found.append(labels[places.clamp(max=len(labels) - 1)].tolist())
        if max(map(max, filter(None, found)), default=0) >= self.config.clusters:
            raise IsoglossError(
                f'The stage "{self.config.labels}" has fitted more than hubert.clusters ({self.config.clusters}) '
                "clusters; give both the same number."
            )
        return batch.with_extras(hidden | {"clusters": found})

    def _rate(self, labels: int, samples: int) -> int:
        """Labels a frame of the encoder, for a clip with so many: labels are of its states, its features, or MFCCs."""
        if labels == self.spec.frames(samples):
            return 1
        of_features = labels == self.spec.feature_frames(samples)
        return self.spec.stride if of_features else round(self.spec.frame_seconds / MFCC)

    def counts(self, batch: Batch) -> dict[str, int]:
        """Hidden frames."""
        return {"clusters": sum(map(len, batch.extras["targets"]))}

    def forward(self, model: Model, batch: Batch, clock: Clock) -> Loss:
        """Audio (B, S) -> cross-entropy summed over hidden frames, and the penalty over utterances."""
        features = model.features(batch.audio)
        if self.learned:
            features = scaled_gradient(features, self.config.feature_gradient)
        context = self.masked.encode(model, model.encoder.embed(features), batch).final
        wanted = torch.tensor(list(chain.from_iterable(batch.extras["clusters"])), dtype=torch.int64)
        clusters = on_device(wanted, context.device)
        with torch.autocast(context.device.type, enabled=False):
            mine = normalize(self.project(context.to(self.project.weight.dtype)), dim=-1)
            logits = mine @ normalize(self.classes, dim=-1).T / self.config.similarity
        losses = cross_entropy(logits, clusters, reduction="none")
        frames = len(clusters)
        terms = {"clusters": Term(losses.sum(), frames)}
        if self.learned and self.config.penalty:
            terms["penalty"] = energy(features, self.config.penalty)
        right = (logits.detach().argmax(dim=-1) == clusters).float().sum()
        used = perplexity(clusters[:, None], self.config.clusters)
        stats = {
            "accuracy": Mean(right, frames),
            "cluster_perplexity": Mean(used * frames, frames),
            "spread": Mean(spread(context.detach()) * frames, frames),
        }
        return Loss(terms, stats)

    def health(self) -> tuple[Alarm, ...]:
        """Clusters or states that are all alike."""
        return (
            Alarm(
                "cluster_perplexity",
                "The hidden frames are of {value:.1f} clusters on average at step {step}; fit more of them, or see "
                "whether the recordings are silent (isogloss inspect --deep).",
                least=min(2.0, log(self.config.clusters)),
            ),
            EQUAL_STATES,
        )
