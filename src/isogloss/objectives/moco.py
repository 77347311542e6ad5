"""MoCo on speech: a crop finds the other of its clip among the crops of many earlier steps (He et al. 2020).

arXiv 1911.05722. The idea: many things to be told apart without a large batch. Vectors of earlier clips wait in a
queue; so that they stay comparable, a slow copy of the encoder makes them.

    first crop ──  encoder ─ mean over time ─ head ──> q (N, E) ─────────────┐
    second crop ─  slow copy of all of these ───────> k (N, E), no gradient ─┼─> L
    queue (K, E): k of the steps before ─────────────────────────────────────┘

    L = mean over clips of -log exp(cos(q, k) / τ) / [exp(cos(q, k) / τ) + Σ_queue exp(cos(q, k′) / τ)]
    after a step: its k take the places of the oldest in the queue; copy ← m copy + (1 - m) encoder and head

The queue begins with random vectors, as in the published code, from which a k is easily told: the loss starts low, and
is about ln(K + 1) once they are gone. It stays as it is for a whole step and takes in what all its micro-batches made,
of all processes: a loss is a sum over clips, the queue is the same in every process, and a resumed run goes on with it.

The copy must be slow from the first step on, unlike others here: where it follows faster, vectors in the queue are told
by their age and not by what is heard, and the encoder learns to move instead.

Differs from the paper: a head of two layers as in MoCo v2 (arXiv 2003.04297), and no shuffled BatchNorm, for nothing
here is normalised over a batch.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import normalize

from isogloss.data.loading import Batch
from isogloss.model.model import Model
from isogloss.model.spec import ModelSpec
from isogloss.nn.contrastive import cosines, info_nce
from isogloss.objectives.base import Clock, Loss, Mean, Term
from isogloss.objectives.crops import (
    CropsConfig,
    TwoCrops,
    first_and_second,
    projection,
    spread_of_clips,
    utterances,
)
from isogloss.sequence import Sequence


class MoCoConfig(CropsConfig):
    """Contrast of crops of speech alone with a queue of earlier ones."""

    paper = "He et al. 2020, arXiv 1911.05722"
    recipe = "moco-tiny"
    presets: ClassVar = {"tiny": ("tiny", {"queue": 1024}), "small": ("small", {})}

    name: Literal["moco"] = "moco"
    queue: int = Field(65_536, ge=1, description="number K of earlier vectors")
    temperature: float = Field(0.07, gt=0, description="τ, by which cosines are divided")
    decay: float = Field(0.999, ge=0, lt=1, description="m of the slow copy")

    def build(self, spec: ModelSpec) -> MoCo:
        """The objective for a model."""
        return MoCo(self, spec)


class MoCo(TwoCrops):
    """Contrast with a queue; needs audio only."""

    warms_up = False
    ends = ("ema.", "queue", "oldest")
    queue: Tensor
    oldest: Tensor

    def __init__(self, config: MoCoConfig, spec: ModelSpec):
        super().__init__(config, spec)
        self.config = config
        self.head = projection(spec.width, config.width)
        self.register_buffer("queue", normalize(torch.randn(config.queue, config.width), dim=-1))
        self.register_buffer("oldest", torch.zeros((), dtype=torch.int64))

    def teacher(self, clock: Clock) -> float | None:
        """m."""
        return self.config.decay

    def followed(self, model: Model) -> nn.Module:
        """All that makes a vector of a crop."""
        return nn.ModuleDict({"features": model.features, "encoder": model.encoder, "head": self.head})

    def forward(self, model: Model, batch: Batch, clock: Clock) -> Loss:
        """Audio (B, S) -> losses summed over clips."""
        first, second = first_and_second(batch)
        clips = len(batch.ids)
        vectors = utterances(model.features, model.encoder, first, batch.languages)
        queries = self.head(vectors)
        keys = self._keys(model, second, batch.languages)
        right = (normalize(queries.float(), dim=-1) * keys).sum(dim=1) / self.config.temperature
        wrong = cosines(queries, self.queue) / self.config.temperature
        found = (right > wrong.amax(dim=1)).float().sum()
        stats = {"found": Mean(found, clips), "spread": spread_of_clips(vectors, clips)}
        return Loss({"contrastive": Term(info_nce(right, wrong).sum(), clips)}, stats, keys)

    @torch.no_grad()
    def remember(self, kept: Tensor) -> None:
        """Put the keys of a step (N, E) in the places of the oldest."""
        keys, size = kept[-len(self.queue) :], len(self.queue)
        self.queue[(self.oldest + torch.arange(len(keys), device=keys.device)) % size] = keys
        self.oldest.add_(len(keys)).remainder_(size)

    @torch.no_grad()
    def _keys(self, model: Model, audio: Sequence, languages: list[str]) -> Tensor:
        """k of length 1, (B, E) float32."""
        slow = self.followed(model) if self.ema is None else self.ema.copy
        vectors = utterances(slow.get_submodule("features"), slow.get_submodule("encoder"), audio, languages)
        return normalize(slow.get_submodule("head")(vectors).float(), dim=-1)
