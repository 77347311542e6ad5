"""Supervised recognition: every head of the model that predicts symbols, phonemes or the language, in one pass.

    audio (B, S) ─ features ─ SpecAugment ─ encoder ─┬─ last layer ── CTC head ────────> L_ctc
                                                     ├─ middle layer ─ same head ──────> L_mid
                                                     ├─ last layer ── transducer ──────> L_rnnt
                                                     ├─ last layer ── attention ───────> L_att
                                                     ├─ last layer ── phoneme head ────> L_pho
                                                     └─ last layer ── pooled classes ──> L_lid

    L = (1 - w) L_ctc + w L_mid + Σ_h v_h L_h         h: the other heads, by default all that the model has
                                              (intermediate CTC: Lee & Watanabe 2021, arXiv 2102.03216)

Where CTC is self-conditioned (`heads.ctc.conditioning`), L_mid is the mean over the layers it is conditioned on.
Losses of symbols are nats a symbol, averaged over utterances, so that a long utterance weighs like a short one; the
language loss is nats an utterance.
"""

from __future__ import annotations

from collections.abc import Sequence as ListOf
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import cross_entropy

from isogloss.audio.augment import SpecAugment, SpecAugmentConfig
from isogloss.audio.reading import SAMPLE_RATE
from isogloss.data.loading import Batch
from isogloss.data.manifests import language_of, text_of
from isogloss.data.needs import Needs
from isogloss.encoders.stack import Encoded
from isogloss.errors import IsoglossError
from isogloss.heads.base import SymbolHead, Target
from isogloss.heads.classifier import Classifier
from isogloss.heads.ctc import CTCConfig, CTCHead
from isogloss.metrics.error_rates import error_rates
from isogloss.model.calibration import calibrate
from isogloss.model.model import Model
from isogloss.model.spec import ModelSpec
from isogloss.nn.ctc import ctc_loss, frames_needed, infeasible
from isogloss.objectives.base import Alarm, BaseConfig, Clock, Loss, Mean, Objective, Term
from isogloss.sequence import Sequence
from isogloss.text.normalise import normalise

if TYPE_CHECKING:
    from lhotse.cut import MonoCut

BLANK_STEPS, BLANK_HOURS = 1500, 100.0
"""After which a CTC model that emits blanks only is stopped; all start so, small ones for several hundred steps."""
BLANK_WARNING = 400, 5.0
"""Steps and hours after which it is told of."""
UNKNOWN = -100
"""The class of a clip in a language that the model does not identify."""


class HeadsConfig(BaseConfig):
    """Weights of the heads' losses."""

    usual: ClassVar[dict[Target, float]] = {"phonemes": 0.3, "language": 0.1}
    """Weights of heads that are not named in `head_weights`, by what they predict, where they are not 1."""

    intermediate: float = Field(0.3, ge=0, lt=1, description="w, weight of the CTC loss at middle layers")
    head_weights: dict[str, float] = Field(
        {}, description="v_h, weight by head; 0 = not trained here; default 1, phonemes 0.3, language 0.1"
    )

    def head_weight(self, head: str, target: Target) -> float:
        """v_h of a head that predicts `target`."""
        return self.head_weights.get(head, self.usual.get(target, 1.0))

    def trains(self, head: str, target: Target) -> bool:
        """Whether it trains a head that predicts `target`."""
        return target != "features" and self.head_weight(head, target) > 0


class SpeechHeadsConfig(HeadsConfig):
    """Heads on the states of speech."""

    augment: SpecAugmentConfig | None = Field(None, description="SpecAugment on the features")


class RecognitionConfig(SpeechHeadsConfig):
    """Fine-tuning on transcribed speech."""

    name: Literal["recognition"] = "recognition"

    def build(self, spec: ModelSpec) -> Recognition:
        """The objective for a model with heads."""
        return Recognition(self, spec)


class HeadLosses(Objective):
    """What the heads' losses are made of; each subclass says which states they get."""

    needs = Needs(text=True)

    def __init__(self, config: HeadsConfig, spec: ModelSpec):
        super().__init__(config, spec)
        self.weights = config
        trained = {name: head.target for name, head in spec.heads.items() if head.target != "features"}
        self.trained = {name: target for name, target in trained.items() if config.head_weight(name, target) > 0}
        for name in config.head_weights.keys() - spec.config.heads.keys():
            known = ", ".join(spec.config.heads)
            raise IsoglossError(f"{config.name}.head_weights: the model has no head {name}; it has {known or 'none'}.")
        if "symbols" not in self.trained.values():
            raise IsoglossError(
                f"The objective {config.name} needs a head that predicts symbols; add model.tokenizer and model.heads: "
                "{ctc: {}} to the recipe."
            )
        if "language" in self.trained and spec.config.encoder.adapters is not None:
            raise IsoglossError(
                "An adapter is chosen by the language, which would give the answer to the language head; "
                f"set head_weights: {{language: 0}} in the objective {config.name}."
            )

    @property
    def ctc(self) -> str | None:
        """The head whose loss is taken at middle layers too: the first CTC head of symbols among those it trains."""
        heads = self.spec.heads
        of_symbols = (name for name, target in self.trained.items() if target == "symbols")
        return next((name for name in of_symbols if isinstance(heads[name], CTCConfig)), None)

    def prepare(self, batch: Batch, training: bool) -> Batch:
        """The targets of the heads: `symbols` and `phonemes` (B, U), `language` (B,)."""
        processor = self.spec.processor
        targets: dict[str, Sequence | Tensor] = {}
        for target in set(self.trained.values()):
            if target == "symbols":
                targets[target] = processor.symbols(batch.texts, batch.languages)
            elif target == "phonemes":
                targets[target] = processor.phonemes(batch.texts, batch.languages)
            else:
                known = {tag: place for place, tag in enumerate(self.spec.languages)}
                targets[target] = torch.tensor([known.get(tag, UNKNOWN) for tag in batch.languages])
        return batch.with_extras(targets)

    def counts(self, batch: Batch) -> dict[str, int]:
        """Clips in languages that the model identifies; dev splits have others too."""
        heads = [name for name, target in self.trained.items() if target == "language"]
        return {name: int((batch.extras["language"] != UNKNOWN).sum()) for name in heads}

    def head_losses(self, model: Model, encoded: Encoded, batch: Batch, factor: float = 1.0) -> Loss:
        """The terms of L for states (B, T, D), each weighed by `factor` more."""
        terms: dict[str, Term] = {}
        stats: dict[str, Mean] = {}
        rows = len(batch.ids)
        for name, target in self.trained.items():
            weight = factor * self.weights.head_weight(name, target)
            if name == self.ctc:
                terms |= self._ctc(model, name, encoded, batch, weight, stats)
            elif target == "language":
                logits, classes = model.head(name, Classifier)(encoded.final), batch.extras[target]
                losses = cross_entropy(logits, classes, reduction="sum", ignore_index=UNKNOWN)
                known = (classes != UNKNOWN).sum()
                terms[name] = Term(losses, known, weight)
                stats[f"{name}_accuracy"] = Mean((logits.argmax(dim=-1) == classes).float().sum(), known)
            else:
                losses = model.head(name, SymbolHead).loss(encoded.final, batch.extras[target])  # type: ignore[type-abstract]
                terms[name] = Term(per_symbol(losses, batch.extras[target]), rows, weight)
        return Loss(terms, stats)

    def _ctc(
        self, model: Model, name: str, encoded: Encoded, batch: Batch, weight: float, stats: dict[str, Mean]
    ) -> dict[str, Term]:
        """L_ctc and L_mid, and how much of the output is blank."""
        head, tokens, rows = model.head(name, CTCHead), batch.extras["symbols"], len(batch.ids)
        final = head(encoded.final)
        stats["blank"] = Mean(blank_share(final) * rows, rows)
        stats["infeasible"] = Mean(infeasible(final.lengths, tokens).float().sum(), rows)
        last = per_symbol(ctc_loss(final, tokens), tokens)
        if not (self.weights.intermediate and encoded.layers):
            return {name: Term(last, rows, weight)}
        layers = [head(states) for _, states in sorted(encoded.layers.items())]
        middle = torch.stack([per_symbol(ctc_loss(found, tokens), tokens) for found in layers]).mean()
        share = self.weights.intermediate
        return {
            name: Term(last, rows, weight * (1 - share)),
            f"{name}_middle": Term(middle, rows, weight * share),
        }

    def health(self) -> tuple[Alarm, ...]:
        """CTC that never leaves its all-blank phase."""
        if self.ctc is None:
            return ()
        warning = (
            "still blanks only after {step} steps ({hours:.1f} h). It is the number of steps that counts: if it lasts, "
            "take shorter ones (seconds), a higher rate (optimizer.peak), no augment until symbols are written."
        )
        said = (
            "All-blank CTC: after {step} steps ({hours:.1f} h) nothing but blank is recognised; check that texts "
            "belong to their clips (isogloss inspect), raise the learning rate, or train with more and shorter steps."
        )
        steps, hours = BLANK_WARNING
        return (
            Alarm("blank", warning, most=0.999, patience=steps, hours=hours, only_warns=True),
            Alarm("blank", said, most=0.999, patience=BLANK_STEPS, hours=BLANK_HOURS),
        )

    def check(self, cuts: ListOf[MonoCut]) -> None:
        """Refuse data in which more than 1 % of the transcripts have more symbols than the encoder has frames."""
        if self.ctc is None or not self.needs.audio:
            return
        impossible = []
        for cut in cuts:
            frames = self.spec.frames(round(cut.duration * SAMPLE_RATE))
            if frames_needed(self.spec.processor.tokens(text_of(cut) or "", language_of(cut))) > frames:
                impossible.append(cut.id)
        if len(impossible) > 0.01 * len(cuts):
            raise IsoglossError(
                f"{len(impossible)} of {len(cuts)} transcripts are too long for their audio (as {impossible[0]}): "
                "check that texts belong to their clips (isogloss inspect), or use larger symbols (sentencepiece)."
            )

    @property
    def dev_needs(self) -> Needs:
        """All transcribed clips, also in languages that only the text encoder does not know."""
        return Needs(text=True)

    def figures(self, model: Model, batches: ListOf[Batch]) -> dict[str, Mean]:
        """Error rates of greedy decoding by language: `cer/TAG`, and `per/TAG` of phonemes if a head predicts them."""
        if not (self.needs.audio and self.trained):
            return {}
        pairs: dict[str, list[tuple[str, str]]] = {}
        decoder = next(name for name in model.decoders if name in self.trained)
        text = model.tokenizer
        assert text is not None
        for batch in batches:
            states = model.encode(model.features(batch.audio), languages=batch.languages).final
            found = {"cer": (normalised(batch), [text.decode(h.tokens) for h in model.decode(states, decoder)])}
            if "phonemes" in self.trained.values():
                rows = model.processor.phonemes(batch.texts, batch.languages).unpad()
                found["per"] = [model.processor.ipa(row.tolist()) for row in rows], model.ipa(states)
            for name, both in found.items():
                for language, reference, hypothesis in zip(batch.languages, *both, strict=True):
                    pairs.setdefault(f"{name}/{language}", []).append((reference, hypothesis))
        return {name: _errors(both) for name, both in pairs.items()}

    def finish(self, model: Model, batches: ListOf[Batch]) -> None:
        """Calibrate the confidence of words."""
        if self.needs.audio and self.trained:
            model.config = model.config.model_copy(update={"calibration": calibrate(model, batches)})


class Recognition(HeadLosses):
    """The heads on the encoder's states; needs transcribed speech."""

    def __init__(self, config: SpeechHeadsConfig, spec: ModelSpec):
        super().__init__(config, spec)
        self.augment = SpecAugment(config.augment, spec.frame_ms) if config.augment else None

    def forward(self, model: Model, batch: Batch, clock: Clock) -> Loss:
        """Audio (B, S) with texts and languages -> losses summed over utterances."""
        return self.head_losses(model, self.encoded(model, model.features(batch.audio), batch), batch)

    def encoded(self, model: Model, features: Sequence, batch: Batch) -> Encoded:
        """Features (B, T, F) of the clips of a batch -> what the heads get, (B, T', D)."""
        if self.augment is not None:
            features = self.augment(features)
        return model.encode(features, layers=self.spec.middle, languages=batch.languages)


def per_symbol(losses: Tensor, tokens: Sequence) -> Tensor:
    """Sum over utterances of the loss divided by its number of symbols."""
    return (losses / tokens.lengths.clamp(min=1)).sum()


def blank_share(log_probabilities: Sequence) -> Tensor:
    """Share of valid frames whose best symbol is blank: 1 means that nothing is recognised."""
    valid = log_probabilities.valid
    best = log_probabilities.values.argmax(dim=-1)
    return ((best == 0) & valid).sum() / valid.sum().clamp(min=1)


def normalised(batch: Batch) -> list[str]:
    """The normalised transcripts."""
    return [normalise(text or "", language) for text, language in zip(batch.texts, batch.languages, strict=True)]


def _errors(pairs: list[tuple[str, str]]) -> Mean:
    """Errors over characters of (reference, hypothesis)."""
    found = error_rates([r for r, _ in pairs], [h for _, h in pairs], unit="character")
    return Mean(torch.tensor(float(found.substitutions + found.deletions + found.insertions)), found.total)
