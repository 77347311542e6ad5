"""SLAM and mSLAM: one encoder reads speech, text, and both at once (Bapna et al., arXiv 2110.10329 and 2202.01374).

The idea: hide spans of both and predict them; where a transcript is known, lay it behind its speech, so that what is
hidden in one can be looked up in the other.

    text     symbols ─ hide spans ─ text encoder ─ shared blocks ─ softmax ──────> L_text of what is hidden

    paired   speech ─ hide spans ─ first blocks ─ e_s ─┐                        ┌─> L_speech   codes of hidden frames
                                                       ├ [e_s; e_t] ─ shared ───┼─> L_text     hidden symbols
             symbols ─ hide spans ─ text encoder ─ e_t ┘            blocks      └─> L_STM      do they say the same?
             e_s ─ shared blocks ─ heads ─────────────────────────────────────────> L_heads    the transcript

    translation language modelling  L_TLM = L_speech + L_text
    SLAM    L = L_TLM + s L_STM + c L_heads                with c = 0: recognition is learned afterwards
    mSLAM   L = L_TLM + c L_heads                          with L_heads = L_CTC

`slam` and `mslam` are the line of pairs, `masked_text` (SpanBERT) the line of text; speech alone has `best_rq`.
Nothing is stretched: `text.upsampling: none`, and a symbol is one state. Unit 0, the silence before the text, is
what L_STM reads; a mismatched pair has the transcript of another clip in the batch, in the same language if there is
one, for languages are told apart too easily. A hidden symbol goes in as blank.

Differs from the papers: speech is hidden and predicted as in BEST-RQ, not w2v-BERT. CTC gets the speech by itself:
next to its own text it could copy. Words are not hidden whole: spans are of symbols, shorter ones in short texts.
No vector says which states are speech and which text: each has an encoder of its own before they meet.
L_speech and L_text are means over what is hidden in each utterance. The papers give no weights of L_STM and L_CTC.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from isogloss.config import Config
from isogloss.data.loading import Batch
from isogloss.data.needs import Needs
from isogloss.errors import IsoglossError
from isogloss.heads.base import Target
from isogloss.model.model import Model
from isogloss.model.spec import ModelSpec
from isogloss.nn.masking import padded_masks, share_mask
from isogloss.objectives.base import Alarm, BaseConfig, Clock, Loss, Mean, Objective, Term
from isogloss.objectives.best_rq import CodesConfig, MaskedCodes
from isogloss.objectives.recognition import HeadLosses, HeadsConfig, normalised
from isogloss.sequence import Sequence


class SpansConfig(Config):
    """Masks on text."""

    share: float = Field(0.15, gt=0, lt=1, description="share of the symbols that is masked")
    span: int = Field(20, ge=1, description="symbols in a masked span; SLAM 5 pieces, mSLAM 20 characters")


class MaskedTextConfig(BaseConfig):
    """Text alone, masked in spans as in SpanBERT."""

    name: Literal["masked_text"] = "masked_text"
    hidden: SpansConfig = Field(SpansConfig(), description="masks on text")

    def build(self, spec: ModelSpec) -> MaskedText:
        """The objective for a model with a text encoder."""
        return MaskedText(self, spec)


class PairsConfig(HeadsConfig):
    """Pairs of speech and text: what SLAM and mSLAM have in common."""

    speech: CodesConfig = Field(
        CodesConfig(start_probability=0.034), description="masks on speech: three quarters of it"
    )
    hidden: SpansConfig = Field(SpansConfig(share=0.5, span=20), description="masks on text: half of it")
    matching: float = Field(0.0, ge=0, description="s, weight of L_STM")
    heads: float = Field(1.0, ge=0, description="c, weight of L_heads")

    def trains(self, head: str, target: Target) -> bool:
        """Whether it trains a head that predicts `target`."""
        return self.heads > 0 and super().trains(head, target)


class SlamConfig(PairsConfig):
    """Pairs as in SLAM: with speech–text matching and without recognition."""

    name: Literal["slam"] = "slam"
    hidden: SpansConfig = Field(SpansConfig(share=0.5, span=5), description="masks on text: half of it")
    matching: float = Field(1.0, ge=0, description="s, weight of L_STM")
    heads: float = Field(0.0, ge=0, description="c, weight of L_heads")

    def build(self, spec: ModelSpec) -> Pairs:
        """The objective for a model with a text encoder."""
        return Pairs(self, spec)


class MSlamConfig(PairsConfig):
    """Pairs as in mSLAM: with CTC and without speech–text matching."""

    name: Literal["mslam"] = "mslam"

    def build(self, spec: ModelSpec) -> Pairs:
        """The objective for a model with a text encoder."""
        return Pairs(self, spec)


class HiddenText(nn.Module):
    """Hides spans of symbols, and predicts them."""

    def __init__(self, config: SpansConfig, spec: ModelSpec):
        super().__init__()
        self.config = config
        if spec.config.text is not None and spec.config.text.upsampling != "none":
            raise IsoglossError("Masked text is not stretched; set text.upsampling: none in the recipe.")
        self.softmax = nn.Linear(spec.width, spec.units)

    def mask(self, tokens: Sequence, batch: Batch) -> Tensor:
        """Symbols (B, U) of the texts of a batch -> (B, U) bool, True = hidden."""
        rows = zip(tokens.lengths.tolist(), batch.draws("units"), strict=True)
        masks = [share_mask(length, self.config.share, self.config.span, draw) for length, draw in rows]
        return padded_masks(masks, tokens.values.shape[1])

    def predict(self, states: Sequence, tokens: Sequence, mask: Tensor) -> Tensor:
        """Cross-entropy of what is hidden, a mean for each text: (B, U+1, D), (B, U), (B, U) -> (B,)."""
        rows = mask.nonzero()[:, 0]
        scores = self.softmax(states.values[:, 1 : 1 + mask.shape[1]][mask]).float()
        return mean_by_row(cross_entropy(scores, tokens.values[mask], reduction="none"), rows, len(tokens))


class MaskedText(Objective):
    """L_text of text alone."""

    def __init__(self, config: MaskedTextConfig, spec: ModelSpec):
        super().__init__(config, spec)
        self.needs = Needs(audio=False, text=True, languages=frozenset(spec.text_languages))
        self.hidden = HiddenText(config.hidden, spec)

    def prepare(self, batch: Batch, training: bool) -> Batch:
        """The texts as `units` (B, U), and which of them are hidden, `units_mask`."""
        units = self.spec.processor.unit_ids(batch.texts, batch.languages)
        return batch.with_extras({"units": units, "units_mask": self.hidden.mask(units, batch)})

    def forward(self, model: Model, batch: Batch, clock: Clock) -> Loss:
        """Texts with languages, audio (B, 0) -> losses summed over texts."""
        tokens, mask, rows = batch.extras["units"], batch.extras["units_mask"], len(batch.ids)
        states = model.encode_text(blanked(tokens, mask), batch.languages)
        final = model.encode_shared(states, languages=batch.languages).final
        losses = self.hidden.predict(final, tokens, mask)
        return Loss({"text": Term(losses.sum(), rows)}, {"hidden": Mean(mask.sum().float(), rows)})


class Pairs(HeadLosses):
    """L_TLM of pairs, with L_STM and L_heads where they weigh something."""

    batchwise = frozenset({"same"})

    def __init__(self, config: PairsConfig, spec: ModelSpec):
        super().__init__(config, spec)
        self.config = config
        self.needs = Needs(text=True, languages=frozenset(spec.text_languages))
        if not config.heads:
            self.trained = {}
        self.speech = MaskedCodes(config.speech, spec)
        self.needs |= self.speech.needs
        self.hidden = HiddenText(config.hidden, spec)
        self.same = nn.Linear(spec.width, 1) if config.matching else None

    def prepare(self, batch: Batch, training: bool) -> Batch:
        """Also what is hidden: `mask` and `targets` of features, `units_mask` of `units`, both (B, U)."""
        units = self.spec.processor.unit_ids(batch.texts, batch.languages)
        hidden = {
            "units": units,
            "units_mask": self.hidden.mask(units, batch),
        }
        return super().prepare(batch, training).with_extras(hidden | self.speech.hidden(batch.audio, batch))

    def forward(self, model: Model, batch: Batch, clock: Clock) -> Loss:
        """Audio (B, S) with texts and languages -> losses summed over utterances."""
        features, mask = model.features(batch.audio), batch.extras["mask"]
        tokens, symbols, rows = batch.extras["units"], batch.extras["units_mask"], len(batch.ids)
        speech = model.encode_speech(self.speech.corrupt(features, mask), batch.languages)  # e_s
        text = model.encode_text(blanked(tokens, symbols), batch.languages)  # e_t
        spoken, written = self.together(model, speech, text, batch)
        width = spoken.values.shape[1]
        targets = self.speech.targets(batch, width, spoken.device)
        states, codes = spoken.values.flatten(0, 1)[targets], self.speech.codes(features, targets)
        losses, right = self.speech.predict(states, codes)
        terms = {
            "speech": Term(mean_by_row(losses, targets // width, rows).sum(), rows),
            "text": Term(self.hidden.predict(written, tokens, symbols).sum(), rows),
        }
        stats = self.speech.stats(states, codes, right)
        if self.same is not None:
            texts = normalised(batch)
            others = mismatched_pairs(texts, batch.languages)
            mismatched = self.together(model, speech, Sequence(text.values[others], text.lengths[others]), batch)[1]
            same = self.matching_loss(written, mismatched, texts, others)
            terms["same"] = Term(same.sum(), rows, self.config.matching)
        if self.config.heads:
            encoded = model.encode_shared(speech, self.spec.middle, batch.languages)
            found = self.head_losses(model, encoded, batch, self.config.heads)
            terms, stats = terms | found.terms, stats | found.stats
        return Loss(terms, stats)

    def together(self, model: Model, speech: Sequence, text: Sequence, batch: Batch) -> tuple[Sequence, Sequence]:
        """e_s (B, T, D) and e_t (B, U, D), the one behind the other through the shared blocks, and parted again."""
        joined = [torch.cat(both) for both in zip(speech.unpad(), text.unpad(), strict=True)]
        through = model.encode_shared(Sequence.from_list(joined), languages=batch.languages).final.unpad()
        lengths = speech.lengths.tolist()
        first = [row[:length] for row, length in zip(through, lengths, strict=True)]
        second = [row[length:] for row, length in zip(through, lengths, strict=True)]
        return padded(first, speech.values.shape[1]), padded(second, text.values.shape[1])

    def matching_loss(self, matched: Sequence, mismatched: Sequence, texts: list[str], others: list[int]) -> Tensor:
        """L_STM of each utterance, of a matched and a mismatched pair; two clips of one text are no mismatch; (B,)."""
        assert self.same is not None
        different = torch.tensor([text != texts[other] for text, other in zip(texts, others, strict=True)])
        right, wrong = (self.same(states.values[:, 0])[:, 0].float() for states in (matched, mismatched))
        losses = binary_cross_entropy_with_logits(right, torch.ones_like(right), reduction="none")
        unlike = binary_cross_entropy_with_logits(wrong, torch.zeros_like(wrong), reduction="none")
        return (losses + unlike * different.to(unlike.device)) / 2

    def health(self) -> tuple[Alarm, ...]:
        """Codes or states that are all alike; CTC that predicts blanks only."""
        return (*self.speech.health(), *super().health())


def mismatched_pairs(texts: list[str], languages: list[str]) -> list[int]:
    """The place of another text for each: the next of its language, else the next; its own where all say the same."""
    places = range(len(texts))
    chosen = []
    for place in places:
        after = [*places[place + 1 :], *places[:place]]
        other = [near for near in after if texts[near] != texts[place]]
        akin = [near for near in other if languages[near] == languages[place]]
        chosen.append((akin or other or [place])[0])
    return chosen


def blanked(tokens: Sequence, mask: Tensor) -> Sequence:
    """Symbols (B, U) with blanks in place of what is hidden."""
    return tokens.map(lambda values: values.masked_fill(mask, 0))


def mean_by_row(values: Tensor, rows: Tensor, count: int) -> Tensor:
    """(M,) values and the rows they are in -> their means (B,); zero where a row has none."""
    sums = values.new_zeros(count).index_add(0, rows, values)
    return sums / torch.bincount(rows, minlength=count).clamp(min=1)


def padded(items: list[Tensor], width: int) -> Sequence:
    """Sequences (T_i, D) padded to (B, width, D), as they were before."""
    found = Sequence.from_list(items)
    missing = width - found.values.shape[1]
    return found.with_values(nn.functional.pad(found.values, (0, 0, 0, missing)))
