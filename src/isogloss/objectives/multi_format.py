"""Multi-format contrast: what one encoder makes of a waveform, and another of log-mel features, agree on the clip.

Wang & van den Oord 2021 (arXiv 2103.06508). The idea: the same audio in two formats is heard by two encoders; neither
can rely on what only its own format shows.

    first crop ──  features, encoder of the model ───────── mean over time ─ head ──> z  (N, E)
    second crop ─  features, encoder of the other format ── mean over time ─ head′ ─> z′ (N, E)

    l(i) = -log exp(cos(zᵢ, z′ᵢ) / τ) / Σⱼ exp(cos(zᵢ, z′ⱼ) / τ), and l′(i) from z′ to z
    L = mean over clips of ½ [l(i) + l′(i)]                                                    starts at about ln N

Clips are told apart across the formats only. Both encoders are trained; the model's is the one that goes on, and the
other one is exported with what else only pre-training needs. `model.encoder: tiny` hears log-mel features and
`other: cpc` the waveform; it may be the other way round.

Differs from the paper: our encoders in place of its own, and the distortions of `perturb`.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from pydantic import Field, model_validator

from isogloss.audio.features import FeaturesConfig
from isogloss.config import Config
from isogloss.data.loading import Batch
from isogloss.encoders.presets import preset, preset_features
from isogloss.encoders.speech import SpeechEncoder, SpeechEncoderConfig
from isogloss.errors import IsoglossError
from isogloss.model.model import Model
from isogloss.model.spec import ModelSpec
from isogloss.nn.contrastive import cosines, info_nce_both_ways
from isogloss.objectives.base import Clock, Loss, Mean, Term
from isogloss.objectives.crops import (
    CropsConfig,
    TwoCrops,
    first_and_second,
    projection,
    spread_of_clips,
    utterances,
)


class OtherFormat(Config):
    """An encoder and its features; a preset's name stands for both."""

    encoder: SpeechEncoderConfig = Field(description="the encoder")
    features: FeaturesConfig = Field(description="its input")

    @model_validator(mode="before")
    @classmethod
    def _named(cls, values: Any) -> Any:
        if isinstance(values, str):
            return {"encoder": preset(values), "features": preset_features(values)}
        return values


class MultiFormatConfig(CropsConfig):
    """Agreement of two formats of speech alone."""

    paper = "Wang & van den Oord 2021, arXiv 2103.06508"
    recipe = "multi-format-tiny"
    presets: ClassVar = {
        "tiny": ("tiny", {}),
        "small": ("small", {}),
        "waveform": ("cpc", {"other": "tiny"}),
    }

    name: Literal["multi_format"] = "multi_format"
    other: OtherFormat = Field(
        default_factory=lambda: OtherFormat.parse("cpc", "other"),
        description="the encoder of the other format: a preset's name, or {encoder: …, features: …}; default cpc",
    )
    temperature: float = Field(0.1, gt=0, description="τ, by which cosines are divided")

    def build(self, spec: ModelSpec) -> MultiFormat:
        """The objective for a model; raises IsoglossError where both encoders hear one format."""
        return MultiFormat(self, spec)


class MultiFormat(TwoCrops):
    """Contrast of a crop in one format with another in the other, both ways; needs audio only."""

    batchwise = frozenset({"contrastive"})

    def __init__(self, config: MultiFormatConfig, spec: ModelSpec):
        super().__init__(config, spec)
        self.config = config
        other, heard = config.other, spec.config.features.kind
        if other.features.kind == heard:
            raise IsoglossError(
                f"multi_format.other hears {heard}, as the model does; name an encoder with other features, such as "
                f"{'tiny' if heard == 'waveform' else 'cpc'}."
            )
        self.least = max(self.least, other.features.framing.then(other.encoder.embed.framing).least(1))
        self.features = other.features.build()
        self.encoder = SpeechEncoder(other.encoder, self.features.width)
        self.head = projection(spec.width, config.width)
        self.other_head = projection(self.encoder.width, config.width)

    def forward(self, model: Model, batch: Batch, clock: Clock) -> Loss:
        """Audio (B, S) -> the losses of both formats averaged, and summed over clips."""
        first, second = first_and_second(batch)
        clips = len(batch.ids)
        vectors = utterances(model.features, model.encoder, first, batch.languages)
        other = utterances(self.features, self.encoder, second, batch.languages)
        scores = cosines(self.head(vectors), self.other_head(other)) / self.config.temperature
        found = (scores.detach().argmax(dim=1) == torch.arange(clips, device=scores.device)).float().sum()
        stats = {"found": Mean(found, clips), "spread": spread_of_clips(vectors, clips)}
        return Loss({"contrastive": Term(info_nce_both_ways(scores).sum(), clips)}, stats)
