"""A spoken sentence and its text in one vector: distillation from a text encoder, the simple baseline (SONAR; Duquenne
et al. 2023, arXiv 2308.11466), with a contrastive loss beside it (Radford et al. 2021, arXiv 2103.00020).

    speech (B, S) ─ first blocks ─ shared blocks ─ mean over time ─ W ─ / length ─> s (B, E) ─┐
                                                                                              ├─> L
    text ─ teacher ───────────────────────────────────────────────── / length ─> sg t (B, E) ─┘

    L = m |s - t|² + c ½ [CE(s tᵀ / τ) + CE(t sᵀ / τ)]          the right sentence among those of the batch

There are no frames and no durations: what lies where in a sentence is never asked. The teacher is any function from
texts and languages to vectors; by default the model's own text encoder through the shared blocks, and W the
identity, so that `isogloss search` compares the very vectors. It is then worth what that encoder has learned before.
Where a corpus tells what its clips say in other languages, the teacher may read that instead: languages then meet.

Differs from SONAR: the mean over time in place of attention pooling, vectors of length 1, and no decoder that
translates. Sentences that occur twice in a batch, in whatever language, are no wrong answers. A teacher that is not
taught has no dropout.
"""

from collections.abc import Callable
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

from isogloss.audio.augment import SpecAugment, SpecAugmentConfig
from isogloss.data.loading import Batch
from isogloss.model.model import Model
from isogloss.model.space import pooled
from isogloss.nn.dropout import evaluating
from isogloss.objectives.base import BaseConfig, Loss, Objective
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
    both_sides: bool = Field(False, description="whether the model's own text encoder learns as well")
    translated: float = Field(
        0.0, ge=0, le=1, description="share of the sentences that the teacher reads in another language, where known"
    )

    @property
    def translates(self) -> bool:
        """Whether it reads what clips say in other languages."""
        return self.translated > 0

    def build(self, model: Model, teacher: Teacher | None = None, width: int | None = None) -> "Sonar":
        """The objective on a model; teacher: what gives vectors of `width`, the model's text encoder by default."""
        return Sonar(self, model, teacher, width)


class Sonar(Objective):
    """Pooled speech against a teacher's vectors."""

    kind = "paired"

    def __init__(self, config: SonarConfig, model: Model, teacher: Teacher | None, width: int | None):
        super().__init__()
        self.config = config
        self.features, self.encoder = model.features, model.encoder
        self.augment = SpecAugment(config.augment) if config.augment else None
        self.text = model.text_encoder if teacher is None and config.both_sides else None
        self.project = nn.Linear(self.encoder.width, width or self.encoder.width) if teacher is not None else None
        self._teacher = teacher
        self._known = None if teacher is not None else set(model.config.text_languages)
        # Not modules, hence out of reach of state_dict: the model saves them itself.
        self._still = () if teacher is not None or config.both_sides else (model.text_encoder, model.encoder)
        self._encode, self._units = model.encode, model.units
        self._read, self._shared = model.encode_text, model.encode_shared

    def forward(self, batch: Batch) -> Loss:
        """Audio (B, S) with texts and languages -> losses summed over utterances."""
        features = self.features(batch.audio)
        if self.augment is not None:
            features = self.augment(features)
        speech = pooled(self._encode(features, languages=batch.languages).final)
        if self.project is not None:
            speech = normalize(self.project(speech), dim=-1)
        text = self.teacher(*self.readings(batch), batch.audio.device)
        squares = (speech - text).square().sum(dim=1).sum()
        contrast, right = contrastive(speech, text, wordings(batch), self.config.temperature)
        total = self.config.squares * squares + self.config.contrast * contrast
        parts = {"squares": squares, "contrast": contrast, "found": right}
        return Loss(total, len(batch.ids), {name: part.detach() for name, part in parts.items()})

    def readings(self, batch: Batch) -> tuple[list[str], list[str]]:
        """What the teacher reads, and in which languages: the texts, in training some as they are in another one."""
        texts, languages = [text or "" for text in batch.texts], list(batch.languages)
        for row, others in enumerate(batch.translations):
            tags = sorted(tag for tag in others if self._known is None or tag in self._known)
            if tags and self.training and torch.rand(()) < self.config.translated:
                languages[row] = tags[int(torch.randint(len(tags), ()))]
                texts[row] = others[languages[row]]
        return texts, languages

    def teacher(self, texts: list[str], languages: list[str], device: torch.device) -> Tensor:
        """The teacher's vectors of length 1, (B, E)."""
        if self._teacher is not None:
            return normalize(self._teacher(texts, languages).to(device).float(), dim=-1)
        with torch.set_grad_enabled(self.config.both_sides), evaluating(*self._still):
            read = self._read(self._units(texts, languages).to(device), languages)
            return pooled(self._shared(read, languages=languages).final)


def wordings(batch: Batch) -> list[set[str]]:
    """Every way in which it is known how to say what a clip says, normalised."""
    others = batch.translations or [{} for _ in batch.ids]
    known = [told | {tag: text or ""} for told, tag, text in zip(others, batch.languages, batch.texts, strict=True)]
    return [{normalise(text, tag) for tag, text in told.items()} for told in known]


def contrastive(speech: Tensor, text: Tensor, said: list[set[str]], temperature: float) -> tuple[Tensor, Tensor]:
    """InfoNCE both ways, summed over the batch, and how many texts were found: (B, E) twice -> scalar, scalar.

    said: what each row says, in words of any language; rows that share some are no wrong answers to each other.
    """
    rows = len(said)
    twice = torch.tensor([[bool(said[i] & said[j]) and i != j for j in range(rows)] for i in range(rows)])
    with torch.autocast(speech.device.type, enabled=False):  # bf16 has two digits, the temperature makes them one
        scores = (speech @ text.mT / temperature).masked_fill(twice.to(speech.device), -torch.inf)
    own = torch.arange(rows, device=speech.device)
    loss = (cross_entropy(scores, own, reduction="sum") + cross_entropy(scores.mT, own, reduction="sum")) / 2
    return loss, (scores.argmax(dim=1) == own).sum()
