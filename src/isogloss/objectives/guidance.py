"""Ask-to-mask: hide what a recogniser is sure of (Baskar et al. 2022, arXiv 2202.12719).

The idea: of untranscribed audio not all is worth predicting. A scorer that has learned to recognise says of every frame
how likely its best symbol is; spans are hidden there first, as many frames as without it.

    a stage that fits   audio ─ scorer (a trained model with CTC) ─> max_k p_t(k), mean of 5 frames ─> labels, ‰
    a method that hides spans, with `guide`      labels ─ s_t or 1 - s_t ─> spans, drawn in proportion to s^γ

Differs from the paper: the loss of a clip is not weighed by how sure the scorer is of the clip; a scorer can be any
model, at any frame rate.
"""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Sequence as ListOf
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor
from torch.nn.functional import avg_pool1d

from isogloss.config import Config
from isogloss.data.loading import Batch
from isogloss.data.needs import Needs
from isogloss.errors import IsoglossError
from isogloss.heads.ctc import CTCHead
from isogloss.model.folder import load_model
from isogloss.model.model import Model
from isogloss.model.spec import ModelSpec
from isogloss.nn.masking import guided_mask, span_mask
from isogloss.objectives.fit import Artefact, Fit, FitConfig

FULL = 1000
"""The label of a frame of which the scorer is certain."""
SMOOTHED = 5
"""Frames over which confidence is averaged."""


class GuideConfig(Config):
    """What decides where spans are hidden."""

    labels: str = Field("confidence", description="name of the stage that has fitted the scores")
    by: Literal["high", "low"] = Field("high", description="hide where scores are high, or where they are low")
    sharpness: float = Field(2.0, ge=0, description="γ: spans are drawn in proportion to their score to this power")


class ConfidenceConfig(FitConfig):
    """How sure a recogniser is of each frame."""

    name: Literal["confidence"] = "confidence"
    scorer: Path | None = Field(
        None, description="folder of a model with a CTC head; null = the run's own model, as its stages have left it"
    )

    def build(self, spec: ModelSpec) -> FitConfidence:
        """What scores clips; raises IsoglossError where there is no scorer."""
        scorer = None if self.scorer is None else load_model(self.scorer).eval()
        heads = (spec if scorer is None else scorer.spec).heads
        if not any(head.kind == "ctc" for head in heads.values()):
            named = "The run's own model" if scorer is None else str(self.scorer)
            raise IsoglossError(f"{named} has no CTC head, by which confidence scores frames; give another scorer.")
        return FitConfidence(scorer)


class FitConfidence(Fit):
    """The confidence of every frame, in thousandths."""

    labels = True

    def __init__(self, scorer: Model | None):
        self.scorer = scorer

    def fit(self, model: Model, batches: Iterable[Batch]) -> Artefact:
        """Nothing: the scorer is trained."""
        return Artefact({})

    @torch.no_grad()
    def label(self, model: Model, artefact: Artefact, batch: Batch) -> list[Tensor]:
        """For every frame of the scorer the likelihood of its best symbol, averaged over frames around it."""
        scorer = model if self.scorer is None else self.scorer.to(batch.audio.values.device)
        head = next(head for head in scorer.heads.values() if isinstance(head, CTCHead))
        found = head(scorer.encode(scorer.features(batch.audio), languages=batch.languages).final)
        return [smoothed(row.exp().amax(dim=-1)).mul(FULL).round().long().cpu() for row in found.unpad()]


def smoothed(scores: Tensor) -> Tensor:
    """(T,) -> (T,), each the mean of the `SMOOTHED` around it that there are."""
    if not len(scores):
        return scores
    return avg_pool1d(scores[None], SMOOTHED, 1, SMOOTHED // 2, count_include_pad=False)[0]


def needed(guide: GuideConfig | None) -> Needs:
    """What clips need where spans are guided."""
    return Needs() if guide is None else Needs(labels=frozenset({guide.labels}))


class Spans(Protocol):
    """How likely spans begin, and what guides them."""

    @property
    def start_probability(self) -> float: ...

    @property
    def guide(self) -> GuideConfig | None: ...


def span_masks(lengths: ListOf[int], span: int, config: Spans, batch: Batch) -> list[NDArray[np.bool_]]:
    """What is hidden of each clip of a batch, whose rows have these lengths: (T_i,) bool each, True = hidden."""
    draws, guide = batch.draws("mask"), config.guide
    masks = [
        span_mask(length, config.start_probability, span, draw) for length, draw in zip(lengths, draws, strict=True)
    ]
    if guide is None:
        return masks
    known = batch.labels[guide.labels].unpad()
    return [_guided(mask, scores, guide, span, draw) for mask, scores, draw in zip(masks, known, draws, strict=True)]


def _guided(
    mask: NDArray[np.bool_], labels: Tensor, guide: GuideConfig, span: int, draw: np.random.Generator
) -> NDArray[np.bool_]:
    """As many frames as in a random mask (T,), where the labels (L,) of the clip say; L need not be T."""
    if not mask.any() or not len(labels):
        return mask
    scores = labels.numpy()[np.arange(len(mask)) * len(labels) // len(mask)] / FULL
    return guided_mask(scores if guide.by == "high" else 1 - scores, int(mask.sum()), span, guide.sharpness, draw)
