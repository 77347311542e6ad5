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

from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from isogloss.audio.augment import SpecAugment, SpecAugmentConfig
from isogloss.data.loading import Batch
from isogloss.encoders.stack import Encoded
from isogloss.errors import IsoglossError
from isogloss.heads.ctc import CTCHead
from isogloss.heads.transducer import TransducerHead
from isogloss.model.model import Model
from isogloss.nn.ctc import ctc_best_path
from isogloss.nn.durations import durations, spread
from isogloss.nn.ema import Follower
from isogloss.nn.lattice import expected_cost, weighted_cost
from isogloss.objectives.base import Loss
from isogloss.objectives.recognition import HeadsConfig, ReadOff, detached
from isogloss.sequence import Sequence

MASK = SpecAugmentConfig(time_masks=40, time_masks_share=0.04, time_width=20, freq_masks=2, freq_width=27)
"""Spans of 0.4 s on average over a third of the frames, as BEST-RQ has them: shorter ones hide less than a symbol.
What is shorter than a second has none, as in SpecAugment; channels are hidden in all."""


class MatchingConfig(HeadsConfig):
    """Pairs of speech and text: what MAESTRO and MOST have in common."""

    augment: SpecAugmentConfig | None = Field(None, description="SpecAugment on the features")
    matching: float = Field(1.0, ge=0, description="weight of L_MM")
    duration: float = Field(1.0, ge=0, description="weight of L_dur")
    both_sides: bool = Field(True, description="whether the gradient of L_MM reaches the speech side too")
    mask: SpecAugmentConfig | None = Field(MASK, description="masks on e_s, in time and channels, before shared blocks")
    soft: bool = Field(False, description="where nothing is stretched: the alignment learns from L_MM too")
    aligner: float | None = Field(0.9999, ge=0, lt=1, description="decay of the aligner's weights; none = the model")


class MaestroConfig(MatchingConfig):
    """Pairs as in MAESTRO."""

    name: Literal["maestro"] = "maestro"

    def build(self, model: Model) -> "Matching":
        """The objective on a model with a text encoder."""
        return Matching(self, model)


class AlignedMLMConfig(HeadsConfig):
    """Text alone: aligned masked language modelling."""

    name: Literal["aligned_mlm"] = "aligned_mlm"
    language: float = Field(0.0, ge=0, description="v, weight of the language loss: text is no matter of the voice")
    mask: SpecAugmentConfig | None = Field(MASK, description="masks on ê_t, in time and in channels")
    noise: float = Field(0.0, ge=0, description="standard deviation of noise on ê_t, over that of its channels")

    def build(self, model: Model) -> "AlignedMLM":
        """The objective on a model with a text encoder."""
        return AlignedMLM(self, model)


class _Joint(ReadOff):
    """What reads masked states through the shared blocks."""

    def __init__(self, config: MatchingConfig | AlignedMLMConfig, model: Model):
        super().__init__(config, model)
        self.text = model.text_encoder
        self.mask = SpecAugment(config.mask) if config.mask else None
        self._shared, self._units = model.encode_shared, model.units
        self._layers = tuple(block for block in self.middle if block > self.text.entry)

    def units(self, batch: Batch) -> Sequence:
        """The texts as the text encoder takes them, (B, U) int64."""
        return self._units(batch.texts, batch.languages).to(batch.audio.device)

    def through(self, states: Sequence, batch: Batch) -> Encoded:
        """e_s or ê_t, (B, T, D), partly hidden -> what the heads read, (B, T, D)."""
        hidden = self.mask(states) if self.mask is not None else states
        return self._shared(hidden, self._layers, batch.languages)


class Matching(_Joint):
    """L_heads + L_MM + L_dur of transcribed speech."""

    kind = "paired"

    def __init__(self, config: MatchingConfig, model: Model):
        super().__init__(config, model)
        self.config = config
        self.features = model.features
        self.augment = SpecAugment(config.augment) if config.augment else None
        self.aligner = Follower(model, config.aligner) if config.aligner is not None else None
        self._follow = partial(self.aligner.follow, model) if self.aligner is not None else None
        self._heard, self._reader = model.encode_speech, partial(Reader.of, model)

    def forward(self, batch: Batch) -> Loss:
        """Audio (B, S) with texts and languages -> losses summed over utterances."""
        features, tokens = self.features(batch.audio), self.targets(batch)
        masked = self.augment(features) if self.augment is not None else features
        heard = self._heard(masked, batch.languages)  # e_s
        encoded = self.through(heard, batch)
        total, parts = self.read_off(encoded, tokens, batch)
        symbols = self.units(batch)
        units = self.text.embed(symbols, batch.languages)  # e_t
        aligner = self.reader(features, encoded.final, batch)
        if not self.config.both_sides:
            heard = heard.map(Tensor.detach)
        if self.text.duration is None:
            soft = self.config.soft
            parts["matching"] = weighted_matching_loss(heard, self.text(units), symbols, aligner, soft).sum()
        else:
            lasting, found = align(aligner, symbols)
            matching = matching_loss(heard, self.text(units, lasting))
            duration = duration_loss(self.text.duration(units), lasting)
            parts |= {"matching": (matching * found).sum(), "duration": (duration * found).sum()}
            parts["aligned"] = found.sum().float()
            total = total + self.config.duration * parts["duration"]
        return Loss(total + self.config.matching * parts["matching"], len(batch.ids), detached(parts))

    def reader(self, features: Sequence, states: Sequence, batch: Batch) -> "Reader":
        """What aligns: the slow copy on unmasked features (B, T, F), or the model on its states (B, T/4, D)."""
        if self.aligner is None:
            return self._reader(states if self.config.both_sides else states.map(Tensor.detach))
        model = self.aligner.copy
        with torch.no_grad():
            return Reader.of(model, model.encode(features, languages=batch.languages).final)

    def after_step(self) -> None:
        if self._follow is not None:
            self._follow()


class AlignedMLM(_Joint):
    """L_A-MLM of text alone, which never meets the speech side."""

    kind = "text"

    def __init__(self, config: AlignedMLMConfig, model: Model):
        super().__init__(config, model)
        self.noise = config.noise
        self._read = model.encode_text

    def forward(self, batch: Batch) -> Loss:
        """Texts with languages, audio (B, 0) -> losses summed over texts."""
        tokens = self.targets(batch)
        read = self._read(self.units(batch), batch.languages)  # ê_t
        total, parts = self.read_off(self.through(self.noisy(read), batch), tokens, batch)
        parts["frames"] = read.lengths.sum().float()
        return Loss(total, len(batch.ids), detached(parts))

    def noisy(self, read: Sequence) -> Sequence:
        """ê_t (B, T, D) as a voice might say it: with noise, in training."""
        if not (self.noise and self.training):
            return read
        spread = read.values.detach()[read.valid].std(dim=0, correction=0)  # of a single frame: none
        return read.map(lambda values: values + self.noise * spread * torch.randn_like(values))


@dataclass(frozen=True)
class Reader:
    """States (B, T, D) and the heads that say what is where in them."""

    states: Sequence
    ctc: CTCHead
    transducer: TransducerHead | None

    @classmethod
    def of(cls, model: Model, states: Sequence) -> "Reader":
        """A model on its own states, (B, T, D): of phonemes only CTC knows where they are."""
        head = model.unit_head
        return cls(states, head, model.transducer if head is model.ctc else None)


@torch.no_grad()
def align(reader: Reader, tokens: Sequence) -> tuple[Sequence, Tensor]:
    """Durations of the units (B, U+1), which sum to the frames, and whether there is a path, (B,) bool.

    By the transducer's best path if there is a transducer, else by CTC's.
    """
    states = reader.states
    if reader.transducer is not None:
        starts = reader.transducer.align(states, tokens)
    else:
        starts = ctc_best_path(reader.ctc(states), tokens)[0][..., 0]
    found = (starts >= 0).sum(dim=1) == tokens.lengths
    evenly = spread(tokens.lengths, states.lengths, starts.shape[1])
    starts = torch.where(found[:, None], starts, evenly)
    return durations(starts, tokens.lengths, states.lengths), found


def matching_loss(heard: Sequence, read: Sequence) -> Tensor:
    """L_MM: squared difference of e_s and ê_t, mean over frames and channels; (B, T, D) twice -> (B,)."""
    speech, text = heard.zero_padding().values, read.zero_padding().values
    speech = speech[:, : text.shape[1]]  # of more padding than the longest utterance needs
    squares = (speech.float() - text.float()).square().mean(dim=-1)
    return squares.sum(dim=1) / heard.lengths.clamp(min=1)


def weighted_matching_loss(
    heard: Sequence, read: Sequence, tokens: Sequence, reader: Reader, soft: bool = False
) -> Tensor:
    """L_MM of ASTRA: the expected squared difference where a symbol is written; (B, T, D) and (B, U+1, D) -> (B,).

    soft: with a gradient to the alignment, -log E exp(-Σ costs) / U.
    """
    if reader.transducer is None:
        raise IsoglossError("text.upsampling: none matches by a transducer; add model.transducer: {} to the recipe.")
    speech, text = heard.zero_padding().values.float(), read.zero_padding().values.float()
    # |a - b|² = |a|² + |b|² - 2ab, so that no (B, T, U, D) is made; node u writes unit u + 1.
    with torch.autocast(speech.device.type, enabled=False):  # bf16 would not survive the difference
        products = speech @ text.mT / text.shape[-1]
    squares = speech.square().mean(dim=-1)[:, :, None] + text.square().mean(dim=-1)[:, None]
    cost = (squares - 2 * products).roll(-1, dims=2)
    lengths = heard.lengths, tokens.lengths
    arcs = reader.transducer.arcs(reader.states, tokens, graph=soft)
    if soft:
        return weighted_cost(*arcs, cost, lengths) / tokens.lengths.clamp(min=1)
    return expected_cost(*arcs, cost, lengths)


def duration_loss(predicted: Tensor, lasting: Sequence) -> Tensor:
    """L_dur: squared error of log(1 + frames), mean over the units; (B, U+1) twice -> (B,)."""
    errors = (predicted - lasting.values.float().log1p()).square()
    return torch.where(lasting.valid, errors, 0.0).sum(dim=1) / lasting.lengths
