"""Supervised recognition: CTC, CTC at a middle layer, transducer, attention decoder, languages, in one pass.

    audio (B, S) ─ features ── SpecAugment ─ encoder ─┬─ last layer ── CTC head ──────> L_ctc
                                                      ├─ middle layer ─ same head ────> L_mid
                                                      ├─ last layer ── transducer ────> L_rnnt
                                                      ├─ last layer ── attention ─────> L_att
                                                      ├─ last layer ── phoneme head ──> L_pho
                                                      └─ last layer ── pooled classes ─> L_lid

    L = (1 - w) L_ctc + w L_mid + r L_rnnt + a L_att + p L_pho + v L_lid
                                              (intermediate CTC: Lee & Watanabe 2021, arXiv 2102.03216)

Where CTC is self-conditioned (`model.conditioning`), L_mid is the mean over the layers it is conditioned on.
Transducer, attention decoder and phonemes (by CTC) are there if the model has them. These losses are nats a symbol,
averaged over utterances, so that a long utterance weighs like a short one; the language loss is nats
an utterance.
"""

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import cross_entropy

from isogloss.audio.augment import SpecAugment, SpecAugmentConfig
from isogloss.data.loading import Batch, Kind
from isogloss.encoders.stack import Encoded
from isogloss.errors import IsoglossError
from isogloss.heads.ctc import ctc_loss, infeasible
from isogloss.model.model import Model
from isogloss.objectives.base import BaseConfig, Loss, Objective
from isogloss.sequence import Sequence


class HeadsConfig(BaseConfig):
    """Weights of the heads' losses."""

    name: str = Field(description="of the objective")
    intermediate: float = Field(0.3, ge=0, lt=1, description="w, weight of the CTC loss at middle layers")
    transducer: float = Field(1.0, gt=0, description="r, weight of the transducer's loss, where the model has one")
    attention: float = Field(1.0, gt=0, description="a, weight of the attention decoder's loss, where there is one")
    phonemes: float = Field(0.3, gt=0, description="p, weight of the CTC loss of phonemes, where the model writes them")
    language: float = Field(0.1, ge=0, description="v, weight of the language loss")

    @property
    def identifies(self) -> bool:
        """Whether it trains the language head."""
        return self.language > 0


class HeardConfig(HeadsConfig):
    """Heads on what the encoder hears."""

    augment: SpecAugmentConfig | None = Field(None, description="SpecAugment on the features")


class RecognitionConfig(HeardConfig):
    """Fine-tuning on transcribed speech."""

    name: Literal["recognition"] = "recognition"

    def build(self, model: Model) -> "Recognition":
        """The objective on a model with a CTC head."""
        return Recognition(self, model)


class ReadOff(Objective):
    """What the heads' losses are made of; each subclass says which states they read."""

    transcribes = True

    def __init__(self, config: HeadsConfig, model: Model):
        super().__init__()
        if model.ctc is None:
            raise IsoglossError(f"The objective {config.name} needs a tokenizer in the model; add model.tokenizer.")
        if model.encoder.adapters is not None and config.language:
            raise IsoglossError(
                "An adapter is chosen by the language, which the language head would read off it; "
                f"set language: 0 in the objective {config.name}."
            )
        self.weights = config
        self.encoder = model.encoder
        self.ctc = model.ctc
        self.transducer = model.transducer
        self.attention = model.attention
        self.conditioning = model.conditioning
        self.phonemes = model.phonemes
        self.language = model.language if config.language else None
        self.middle = model.config.conditioning or ((model.encoder.layers + 1) // 2,)
        # Not modules, hence out of reach of state_dict: the model saves them itself.
        self._written = model.written
        self._pronounced = model.pronounced
        self._language_index = model.language_index

    def read_off(self, encoded: Encoded, tokens: Sequence, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """States (B, T, D) and texts (B, U) -> L and its parts, summed over utterances."""
        final = self.ctc(encoded.final)
        last = per_symbol(ctc_loss(final, tokens), tokens)
        total = last
        parts = {"ctc": last, "blank": blank_share(final) * len(batch.ids)}
        if self.weights.intermediate and encoded.layers:
            written = [self.ctc(states) for _, states in sorted(encoded.layers.items())]
            middle = torch.stack([per_symbol(ctc_loss(found, tokens), tokens) for found in written]).mean()
            total = (1 - self.weights.intermediate) * last + self.weights.intermediate * middle
            parts["ctc_middle"] = middle
        if self.transducer is not None:
            aligned = per_symbol(self.transducer(encoded.final, tokens), tokens)
            total = total + self.weights.transducer * aligned
            parts["transducer"] = aligned
        if self.attention is not None:
            spelled = per_symbol(self.attention(encoded.final, tokens), tokens)
            total = total + self.weights.attention * spelled
            parts["attention"] = spelled
        if self.phonemes is not None:
            spoken = self._pronounced(batch.texts, batch.languages).to(batch.audio.device)
            parts["phonemes"] = per_symbol(ctc_loss(self.phonemes(encoded.final), spoken), spoken)
            total = total + self.weights.phonemes * parts["phonemes"]
        if self.language is not None:
            logits = self.language(encoded.final)
            classes = self.classes(batch)
            loss = cross_entropy(logits, classes, reduction="sum")
            total = total + self.weights.language * loss
            parts["language"] = loss
            parts["language_accuracy"] = (logits.argmax(dim=-1) == classes).float().sum()
        parts["infeasible"] = infeasible(final.lengths, tokens).float().sum()
        return total, parts

    def targets(self, batch: Batch) -> Sequence:
        """The transcripts as padded symbols, (B, U) int64."""
        return self._written(batch.texts, batch.languages).to(batch.audio.device)

    def classes(self, batch: Batch) -> Tensor:
        """The languages as class indices, (B,) int64."""
        return torch.tensor([self._language_index(tag) for tag in batch.languages], device=batch.audio.device)


class Recognition(ReadOff):
    """CTC with an intermediate CTC, and language identification; needs transcribed speech."""

    kind: Kind = "paired"

    def __init__(self, config: HeardConfig, model: Model):
        super().__init__(config, model)
        self.features = model.features
        self.augment = SpecAugment(config.augment) if config.augment else None
        self._encode = model.encode

    def forward(self, batch: Batch) -> Loss:
        """Audio (B, S) with texts and languages -> losses summed over utterances."""
        total, parts = self.read_off(self.encoded(batch), self.targets(batch), batch)
        return Loss(total, len(batch.ids), detached(parts))

    def encoded(self, batch: Batch) -> Encoded:
        """Audio (B, S) -> what the heads read, (B, T, D)."""
        features = self.features(batch.audio)
        if self.augment is not None:
            features = self.augment(features)
        return self._encode(features, layers=self.middle, languages=batch.languages)


def detached(parts: dict[str, Tensor]) -> dict[str, Tensor]:
    """The parts without their graph, for the log."""
    return {name: part.detach() for name, part in parts.items()}


def per_symbol(losses: Tensor, tokens: Sequence) -> Tensor:
    """Sum over utterances of the loss divided by its number of symbols."""
    return (losses / tokens.lengths.clamp(min=1)).sum()


def blank_share(log_probabilities: Sequence) -> Tensor:
    """Share of valid frames whose best symbol is blank: 1 means that nothing is recognised."""
    valid = log_probabilities.valid
    best = log_probabilities.values.argmax(dim=-1)
    return ((best == 0) & valid).sum() / valid.sum().clamp(min=1)
