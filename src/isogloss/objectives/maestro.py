"""MAESTRO: matched speech and text representations (Chen et al. 2022, arXiv 2204.03409).

The idea: stretch a text by the durations of its symbols, so that it has as many frames as its speech;
make the two equal, frame by frame; then text alone, with durations that are predicted, trains what recognises speech.

    paired   speech ─ first blocks ─────────────────> e_s ─┬─ mask ─ shared blocks ─ heads ──> L_heads(t | e_s)
                                                           │
             text ─ text encoder ─> e_t ─ stretch ─> ê_t ──┴─ L_MM = |e_s - ê_t|²
                                     └─ duration network ───> L_dur = |log(1 + d) - log(1 + d̂)|²
                    d = frames of each symbol on the best path of an aligner: a slow copy of the model

    text     text ─ text encoder ─> e_t ─ stretch by d̂ ─> ê_t ─ mask, noise ─ shared blocks ─ heads ─> L_A-MLM(t | ê_t)

`maestro` is the line of pairs, `aligned_mlm` the line of text; untranscribed speech has any self-supervised
objective beside them. L_heads is that of `recognition`: with a transducer in the model it is the
paper's L_RNNT, and the transducer is the aligner; without one CTC is.

The second way needs no durations (ASTRA, arXiv 2406.06664): with `text.upsampling: none` ê_t has a state a symbol,
and L_MM is the mean of its distance to e_s over all frames in which the transducer may write the symbol, weighed by
how likely it does so there. There is no L_dur then. `soft` makes it -log E exp(-Σ costs) over all alignments, whose
gradient moves the transducer too: to where writing is cheap.

Differs from the paper: the form of L_dur is not published, ours is the usual one. The noise is ours: L_MM makes ê_t
what speech of a text is on average, which is far easier to read than any speech. Where the aligner finds no path,
the pair has no L_MM and no L_dur. Durations of text are predicted by the network itself, without its dropout, not by
its slow copy. Text that is too short for CTC after stretching has no CTC loss, as in `recognition`.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from isogloss.audio.augment import SpecAugment, SpecAugmentConfig
from isogloss.data.loading import Batch
from isogloss.data.needs import Needs
from isogloss.encoders.stack import Encoded
from isogloss.errors import IsoglossError
from isogloss.heads.transducer import TransducerHead
from isogloss.model.alignment import Aligner, align
from isogloss.model.model import Model
from isogloss.model.spec import ModelSpec
from isogloss.nn.lattice import expected_cost, weighted_cost
from isogloss.objectives.base import Clock, Loss, Mean, Term
from isogloss.objectives.recognition import HeadLosses, HeadsConfig
from isogloss.sequence import Sequence

MASK = SpecAugmentConfig(time_masks=40, time_masks_share=0.01, time_width=80, freq_masks=2, freq_width=27)
"""Spans of 0.4 s on average over a third of the frames, as BEST-RQ has them: shorter ones hide less than a symbol.
What is shorter than a second has none, as in SpecAugment; channels are hidden in all."""


class MatchingConfig(HeadsConfig):
    """Pairs of speech and text: what MAESTRO and MOST have in common."""

    augment: SpecAugmentConfig | None = Field(None, description="SpecAugment on the features")
    matching: float = Field(1.0, ge=0, description="weight of L_MM")
    duration: float = Field(1.0, ge=0, description="weight of L_dur")
    both_sides: bool = Field(True, description="whether L_MM also trains the speech side")
    mask: SpecAugmentConfig | None = Field(
        MASK, description="masks on e_s, in time and channels, before the shared blocks"
    )
    soft: bool = Field(False, description="without stretching, L_MM also trains the alignment")
    aligner: float | None = Field(
        0.9999, ge=0, lt=1, description="decay of the EMA that aligns; null = the model itself"
    )


class MaestroConfig(MatchingConfig):
    """Pairs as in MAESTRO."""

    name: Literal["maestro"] = "maestro"

    def build(self, spec: ModelSpec) -> Matching:
        """The objective for a model with a text encoder."""
        return Matching(self, spec)


class AlignedMLMConfig(HeadsConfig):
    """Text alone: aligned masked language modelling."""

    usual = HeadsConfig.usual | {"language": 0.0}  # text says nothing of the voice

    name: Literal["aligned_mlm"] = "aligned_mlm"
    mask: SpecAugmentConfig | None = Field(MASK, description="masks on ê_t, in time and in channels")
    noise: float = Field(0.0, ge=0, description="standard deviation of noise on ê_t, relative to that of its channels")

    def build(self, spec: ModelSpec) -> AlignedMLM:
        """The objective for a model with a text encoder."""
        return AlignedMLM(self, spec)


class SharedHeadLosses(HeadLosses):
    """The heads on masked states that go through the shared blocks alone."""

    def __init__(self, config: MatchingConfig | AlignedMLMConfig, spec: ModelSpec):
        super().__init__(config, spec)
        self.mask = SpecAugment(config.mask, 1000 * spec.frame_seconds) if config.mask else None
        self.layers = tuple(block for block in spec.middle if block > spec.text_entry)

    def prepare(self, batch: Batch, training: bool) -> Batch:
        """Also `units`, the texts as the text encoder takes them, (B, U)."""
        units = self.spec.processor.unit_ids(batch.texts, batch.languages)
        return super().prepare(batch, training).with_extras({"units": units})

    def through(self, model: Model, states: Sequence, batch: Batch) -> Encoded:
        """e_s or ê_t, (B, T, D), partly hidden -> what the heads get, (B, T, D)."""
        hidden = self.mask(states) if self.mask is not None else states
        return model.encode_shared(hidden, self.layers, batch.languages)


class Matching(SharedHeadLosses):
    """L_heads + L_MM + L_dur of transcribed speech."""

    def __init__(self, config: MatchingConfig, spec: ModelSpec):
        super().__init__(config, spec)
        self.config = config
        self.needs = Needs(text=True, languages=frozenset(spec.text_languages))
        self.augment = SpecAugment(config.augment, spec.frame_ms) if config.augment else None

    def teacher(self, clock: Clock) -> float | None:
        """The aligner is a slow copy of the whole model."""
        return self.config.aligner

    def forward(self, model: Model, batch: Batch, clock: Clock) -> Loss:
        """Audio (B, S) with texts and languages -> losses summed over utterances."""
        features, text, rows = model.features(batch.audio), model.text_encoder, len(batch.ids)
        masked = self.augment(features) if self.augment is not None else features
        speech = model.encode_speech(masked, batch.languages)  # e_s
        encoded = self.through(model, speech, batch)
        heads = self.head_losses(model, encoded, batch)
        units = text.embed(batch.extras["units"], batch.languages)  # e_t
        aligner = self.aligner(model, features, encoded.final, batch)
        if not self.config.both_sides:
            speech = speech.map(Tensor.detach)
        terms: dict[str, Term] = {}
        stats: dict[str, Mean] = {}
        if text.duration is None:
            distances = weighted_matching_loss(
                speech, text(units), batch.extras["units"], aligner, self.config.soft
            )
        else:
            lasting, found = align(aligner, batch.extras["units"])
            distances = matching_loss(speech, text(units, lasting)) * found
            duration = duration_loss(text.duration(units), lasting) * found
            terms["duration"] = Term(duration.sum(), rows, self.config.duration)
            stats["aligned"] = Mean(found.sum().float(), rows)
        terms["matching"] = Term(distances.sum(), rows, self.config.matching)
        return Loss(heads.terms | terms, heads.stats | stats)

    def aligner(self, model: Model, features: Sequence, states: Sequence, batch: Batch) -> Aligner:
        """What aligns: the slow copy on unmasked features (B, T, F), or the model on its states (B, T', D)."""
        if self.ema is None:
            return Aligner.of(model, states if self.config.both_sides else states.map(Tensor.detach))
        copy = self.ema.copy
        assert isinstance(copy, Model)
        with torch.no_grad():
            return Aligner.of(copy, copy.encode(features, languages=batch.languages).final)


class AlignedMLM(SharedHeadLosses):
    """L_A-MLM of text alone, which never meets the speech side."""

    def __init__(self, config: AlignedMLMConfig, spec: ModelSpec):
        super().__init__(config, spec)
        self.needs = Needs(audio=False, text=True, languages=frozenset(spec.text_languages))
        self.noise = config.noise

    def forward(self, model: Model, batch: Batch, clock: Clock) -> Loss:
        """Texts with languages, audio (B, 0) -> losses summed over texts."""
        states = model.encode_text(batch.extras["units"], batch.languages)  # ê_t
        found = self.head_losses(model, self.through(model, self.noisy(states), batch), batch)
        return Loss(found.terms, found.stats | {"frames": Mean(states.lengths.sum().float(), len(batch.ids))})

    def noisy(self, states: Sequence) -> Sequence:
        """ê_t (B, T, D) as a voice might say it: with noise, in training."""
        if not (self.noise and self.training):
            return states
        spread = states.values.detach()[states.valid].std(dim=0, correction=0)  # of a single frame: none
        return states.map(lambda values: values + self.noise * spread * torch.randn_like(values))


def matching_loss(speech: Sequence, text: Sequence) -> Tensor:
    """L_MM: squared difference of e_s and ê_t, mean over frames and channels; (B, T, D) twice -> (B,)."""
    e_s, e_t = speech.zero_padding().values, text.zero_padding().values
    e_s = e_s[:, : e_t.shape[1]]  # of more padding than the longest utterance needs
    squares = (e_s.float() - e_t.float()).square().mean(dim=-1)
    return squares.sum(dim=1) / speech.lengths.clamp(min=1)


def weighted_matching_loss(
    speech: Sequence, text: Sequence, tokens: Sequence, aligner: Aligner, soft: bool = False
) -> Tensor:
    """L_MM of ASTRA: the expected squared difference where a symbol is written; (B, T, D) and (B, U+1, D) -> (B,).

    soft: with a gradient to the alignment, -log E exp(-Σ costs) / U.
    """
    if not isinstance(aligner.head, TransducerHead):
        raise IsoglossError(
            "text.upsampling: none matches by a transducer; add transducer: {} to model.heads in the recipe."
        )
    e_s, e_t = speech.zero_padding().values.float(), text.zero_padding().values.float()
    # |a - b|² = |a|² + |b|² - 2ab, so that no (B, T, U, D) is made; node u writes unit u + 1.
    with torch.autocast(e_s.device.type, enabled=False):  # bf16 would not survive the difference
        products = e_s @ e_t.mT / e_t.shape[-1]
    squares = e_s.square().mean(dim=-1)[:, :, None] + e_t.square().mean(dim=-1)[:, None]
    cost = (squares - 2 * products).roll(-1, dims=2)
    lengths = speech.lengths, tokens.lengths
    arcs = aligner.head.arcs(aligner.states, tokens, graph=soft)
    if soft:
        return weighted_cost(*arcs, cost, lengths) / tokens.lengths.clamp(min=1)
    return expected_cost(*arcs, cost, lengths)


def duration_loss(predicted: Tensor, lasting: Sequence) -> Tensor:
    """L_dur: squared error of log(1 + frames), mean over the units; (B, U+1) twice -> (B,)."""
    errors = (predicted - lasting.values.float().log1p()).square()
    return torch.where(lasting.valid, errors, 0.0).sum(dim=1) / lasting.lengths
