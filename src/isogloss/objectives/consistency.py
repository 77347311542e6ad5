"""Consistency: two views of the same speech must mean the same (R-Drop, arXiv 2106.14448; CR-CTC, arXiv 2410.05101).

The idea: what masks and dropout leave of a clip differs each time, what is said does not.

    features ─┬─ SpecAugment ─ encoder ─ p ─┐
              └─ SpecAugment ─ encoder ─ q ─┴─> L = mean over frames of how p and q differ

    kl      Σ p log(p/q)                       js     ½ KL(p ‖ m) + ½ KL(q ‖ m), m = ½ (p + q)
    mse     |p - q|² / D                       cosine 1 - cos(p, q)

`stop` says through which side no gradient goes; `each` is the mean of both ways, with the other side held still, as in
CR-CTC. Beside `recognition` this regularises; alone it would collapse, of which `spread` warns.
"""

from __future__ import annotations

from math import log
from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor
from torch.nn.functional import cosine_similarity

from isogloss.audio.augment import SpecAugment, SpecAugmentConfig
from isogloss.data.loading import Batch
from isogloss.errors import IsoglossError, did_you_mean
from isogloss.heads.classifier import Classifier
from isogloss.heads.ctc import CTCHead
from isogloss.model.model import Model
from isogloss.model.spec import ModelSpec
from isogloss.objectives.base import Alarm, BaseConfig, Clock, Loss, Mean, Objective, Term
from isogloss.objectives.collapse import EQUAL_STATES, spread
from isogloss.sequence import Sequence

Kind = Literal["kl", "js", "mse", "cosine"]
Stop = Literal["none", "first", "second", "each"]
STATES = "states"
"""What is compared where no head is named."""


class ConsistencyConfig(BaseConfig):
    """Two masked views of speech that must mean the same."""

    paper = "Yao et al. 2024, arXiv 2410.05101"

    name: Literal["consistency"] = "consistency"
    on: str = Field("ctc", description="what is compared: the head that gives the posteriors, or states")
    kind: Kind = Field("kl", description="how it is compared; of states mse or cosine")
    stop: Stop = Field("each", description="the side through which no gradient goes; each = one after the other")
    augment: SpecAugmentConfig = Field(SpecAugmentConfig(), description="SpecAugment on the features of both views")

    @model_validator(mode="after")
    def _check(self) -> ConsistencyConfig:
        if self.on == STATES and self.kind in ("kl", "js"):
            raise ValueError(f"kind {self.kind} compares posteriors; give mse or cosine for states")
        return self

    def build(self, spec: ModelSpec) -> Consistency:
        """The objective for a model; raises IsoglossError where it has no such head."""
        return Consistency(self, spec)


class Consistency(Objective):
    """How two views of each clip differ; needs audio only."""

    def __init__(self, config: ConsistencyConfig, spec: ModelSpec):
        super().__init__(config, spec)
        self.config = config
        require_output(spec, config.on, config.name)
        self.augment = SpecAugment(config.augment, spec.frame_ms)

    def forward(self, model: Model, batch: Batch, clock: Clock) -> Loss:
        """Audio (B, S) -> differences averaged over frames and summed over utterances."""
        features, rows = model.features(batch.audio), len(batch.ids)
        first, second = (
            model.encode(self.augment(features), languages=batch.languages).final for _ in range(2)
        )
        p, q = (output(model, states, self.config.on) for states in (first, second))
        differ = difference(p, q, self.config.kind, self.config.stop)
        return Loss({"differ": Term(differ.sum(), rows)}, {"spread": Mean(_spread(first) * rows, rows)})

    def health(self) -> tuple[Alarm, ...]:
        """States that are all alike."""
        return (EQUAL_STATES,)


def require_output(spec: ModelSpec, on: str, objective: str, states: bool = True) -> None:
    """Raise IsoglossError where a model has no such head, or one without posteriors. states: whether these will do."""
    known = [name for name, head in spec.heads.items() if head.kind in ("ctc", "classifier")]
    known += [STATES] if states else []
    if on not in known:
        raise IsoglossError(
            f'{objective}.on: the model has no head "{on}" with posteriors.{did_you_mean(on, known)} It has '
            f"{', '.join(known) or 'none'}."
        )


def output(model: Model, states: Sequence, on: str) -> Sequence:
    """States (B, T, D) as they are, or log-probabilities of a head: (B, T, V), of a classifier (B, 1, C); float32."""
    if on == STATES:
        return states.map(Tensor.float)
    head = model.heads[on]
    if isinstance(head, CTCHead):
        return head(states)
    assert isinstance(head, Classifier)
    likely = head(states).float().log_softmax(dim=-1)[:, None]
    return Sequence(likely, torch.ones_like(states.lengths))


def difference(p: Sequence, q: Sequence, kind: Kind, stop: Stop = "none") -> Tensor:
    """How states or log-probabilities (B, T, V) differ, averaged over the frames of each clip: (B,)."""
    if stop == "each":
        return (difference(p, q, kind, "first") + difference(q, p, kind, "first")) / 2
    a, b = p.zero_padding().values, q.zero_padding().values
    a, b = (a.detach() if stop == "first" else a), (b.detach() if stop == "second" else b)
    of_frames = {"kl": _kl, "js": _js, "mse": _mse, "cosine": _cosine}[kind](a, b)
    return p.with_values(of_frames[..., None]).zero_padding().values.sum(dim=(1, 2)) / p.lengths.clamp(min=1)


def _kl(a: Tensor, b: Tensor) -> Tensor:
    return (a.exp() * (a - b)).sum(dim=-1)


def _js(a: Tensor, b: Tensor) -> Tensor:
    middle = torch.logaddexp(a, b) - log(2)
    return (_kl(a, middle) + _kl(b, middle)) / 2


def _mse(a: Tensor, b: Tensor) -> Tensor:
    return (a - b).square().mean(dim=-1)


def _cosine(a: Tensor, b: Tensor) -> Tensor:
    return 1 - cosine_similarity(a, b, dim=-1)


def _spread(states: Sequence) -> Tensor:
    """Between the frames of all clips, with zeros for padding: what it warns of is that all are equal."""
    return spread(states.zero_padding().values.detach().flatten(0, 1))
