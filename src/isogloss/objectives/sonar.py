"""A spoken sentence and its text in one vector: distillation from a text encoder, the simple baseline (SONAR; Duquenne
et al. 2023, arXiv 2308.11466), with a contrastive loss beside it (Radford et al. 2021, arXiv 2103.00020).

    speech (B, S) ─ first blocks ─ shared blocks ─ mean over time ─ W ─ / length ─> s (B, E) ─┐
                                                                                              ├─> L
    text ─ teacher ───────────────────────────────────────────────── / length ─> sg t (B, E) ─┘

    L = m |s - t|² + c ½ [CE(s tᵀ / τ) + CE(t sᵀ / τ)]          the right sentence among those of the batch

There are no frames and no durations: what lies where in a sentence is never asked. The teacher is any function from
texts and languages to vectors; by default the model's own text encoder through the shared blocks, and W the
identity, so that `isogloss search` compares the very vectors. It is then worth what that encoder has learned before.
Where a corpus tells what its clips say in other languages, the teacher may get that instead: languages then meet.

Differs from SONAR: the mean over time in place of attention pooling, vectors of length 1, and no decoder that
translates. Sentences that occur twice in a batch, in whatever language, are no wrong answers. A teacher that is not
taught has no dropout.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import normalize

from isogloss.audio.augment import SpecAugment, SpecAugmentConfig
from isogloss.data.loading import Batch
from isogloss.data.needs import Needs
from isogloss.model.model import Model
from isogloss.model.space import pooled
from isogloss.model.spec import ModelSpec
from isogloss.nn.contrastive import info_nce_both_ways
from isogloss.nn.dropout import evaluating
from isogloss.objectives.base import BaseConfig, Clock, Loss, Mean, Objective, Term
from isogloss.text.normalise import normalise

Teacher = Callable[[list[str], list[str]], Tensor]
"""Texts and BCP 47 tags -> vectors (B, E)."""


class SonarConfig(BaseConfig):
    """Sentence vectors of pairs."""

    name: Literal["sonar"] = "sonar"
    augment: SpecAugmentConfig | None = Field(None, description="SpecAugment on the features")
    squares: float = Field(1.0, ge=0, description="m, weight of the squared distance")
    contrast: float = Field(1.0, ge=0, description="c, weight of the contrastive loss")
    temperature: float = Field(0.07, gt=0, description="τ of the contrastive loss")
    both_sides: bool = Field(False, description="whether the model's own text encoder is trained too")
    translated: float = Field(
        0.0, ge=0, le=1, description="share of the sentences given to the teacher in another language, where known"
    )

    @property
    def translates(self) -> bool:
        """Whether it learns from what clips say in other languages."""
        return self.translated > 0

    def build(self, spec: ModelSpec, teacher: Teacher | None = None, width: int | None = None) -> Sonar:
        """The objective for a model; teacher: what gives vectors of `width`, the model's text encoder by default."""
        return Sonar(self, spec, teacher, width)


class Sonar(Objective):
    """Pooled speech against a teacher's vectors."""

    batchwise = frozenset({"contrast"})

    def __init__(self, config: SonarConfig, spec: ModelSpec, teacher: Teacher | None, width: int | None):
        super().__init__(config, spec)
        self.config = config
        known = None if teacher is not None else frozenset(spec.text_languages)
        self.needs = Needs(text=True, languages=known)
        self.augment = SpecAugment(config.augment, spec.frame_ms) if config.augment else None
        self.project = nn.Linear(spec.width, width or spec.width) if teacher is not None else None
        self._teacher = teacher

    def prepare(self, batch: Batch, training: bool) -> Batch:
        """`texts` and `tags` of what the teacher gets, in training some in another language; its `units`, (B, U).

        Also the `wordings` of what each clip says.
        """
        texts, tags = [text or "" for text in batch.texts], list(batch.languages)
        for row, (others, draw) in enumerate(zip(translations(batch), batch.draws("translation"), strict=True)):
            usable = sorted(tag for tag in others if self.needs.languages is None or tag in self.needs.languages)
            if usable and training and draw.random() < self.config.translated:
                tags[row] = usable[draw.integers(len(usable))]
                texts[row] = others[tags[row]]
        extras = {"texts": texts, "tags": tags, "wordings": wordings(batch)}
        units = {} if self._teacher is not None else {"units": self.spec.processor.unit_ids(texts, tags)}
        return batch.with_extras(extras | units)

    def forward(self, model: Model, batch: Batch, clock: Clock) -> Loss:
        """Audio (B, S) with texts and languages -> losses summed over utterances."""
        features, rows = model.features(batch.audio), len(batch.ids)
        if self.augment is not None:
            features = self.augment(features)
        speech = pooled(model.encode(features, languages=batch.languages).final)
        if self.project is not None:
            speech = normalize(self.project(speech), dim=-1)
        text = self.text_vectors(model, batch)
        squares = (speech - text).square().sum(dim=1).sum()
        twice = same_wording(batch.extras["wordings"]).to(speech.device)
        contrast, right = contrastive(speech, text, twice, self.config.temperature)
        terms = {
            "squares": Term(squares, rows, self.config.squares),
            "contrast": Term(contrast, rows, self.config.contrast),
        }
        return Loss(terms, {"found": Mean(right, rows)})

    def text_vectors(self, model: Model, batch: Batch) -> Tensor:
        """The teacher's vectors of length 1, (B, E)."""
        tags = batch.extras["tags"]
        if self._teacher is not None:
            return normalize(self._teacher(batch.extras["texts"], tags).to(batch.audio.device).float(), dim=-1)
        still = () if self.config.both_sides else (model.text_encoder, model.encoder)
        with torch.set_grad_enabled(self.config.both_sides and torch.is_grad_enabled()), evaluating(*still):
            states = model.encode_text(batch.extras["units"], tags)
            return pooled(model.encode_shared(states, languages=tags).final)


def translations(batch: Batch) -> list[dict[str, str]]:
    """What each clip says in other languages; nothing where the batch has no list of them."""
    return batch.translations or [{} for _ in batch.ids]


def wordings(batch: Batch) -> list[set[str]]:
    """Every way in which it is known how to say what a clip says, normalised."""
    rows = zip(translations(batch), batch.languages, batch.texts, strict=True)
    known = [others | {tag: text or ""} for others, tag, text in rows]
    return [{normalise(text, tag) for tag, text in texts.items()} for texts in known]


def same_wording(said: list[set[str]]) -> Tensor:
    """(B, B) bool: which rows share some wording with another, in any language; none with itself."""
    rows = range(len(said))
    return torch.tensor([[bool(said[i] & said[j]) and i != j for j in rows] for i in rows])


def contrastive(speech: Tensor, text: Tensor, twice: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """InfoNCE both ways, summed over the batch, and how many texts were found: (B, E) twice -> scalar, scalar.

    twice: (B, B) bool, rows that say the same, which are no wrong answers to each other.
    """
    with torch.autocast(speech.device.type, enabled=False):  # bf16 has two digits, the temperature makes them one
        scores = (speech @ text.mT / temperature).masked_fill(twice, -torch.inf)
    own = torch.arange(len(speech), device=speech.device)
    return info_nce_both_ways(scores).sum(), (scores.argmax(dim=1) == own).sum()
