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

Differs from the papers: speech is hidden and predicted as in BEST-RQ, not w2v-BERT. CTC reads the speech by itself:
next to its own text it could copy. Words are not hidden whole: spans are of symbols, shorter ones in short texts.
L_speech and L_text are means over what is hidden in each utterance. The papers give no weights of L_STM and L_CTC.
"""

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from isogloss.config import Config
from isogloss.data.loading import Batch
from isogloss.errors import IsoglossError
from isogloss.model.model import Model
from isogloss.nn.masking import share_mask
from isogloss.objectives.base import BaseConfig, Loss, Objective
from isogloss.objectives.best_rq import BestRQ, CodesConfig
from isogloss.objectives.recognition import HeadsConfig, ReadOff, detached
from isogloss.sequence import Sequence
from isogloss.text.normalise import normalise


class SpansConfig(Config):
    """How text is hidden."""

    share: float = Field(0.15, gt=0, lt=1, description="share of the symbols that is hidden")
    span: int = Field(20, ge=1, description="symbols of a hidden span; SLAM 5 pieces, mSLAM 20 characters")


class MaskedTextConfig(BaseConfig):
    """Text alone, as SpanBERT hides it."""

    name: Literal["masked_text"] = "masked_text"
    hidden: SpansConfig = Field(SpansConfig(), description="how text is hidden")

    def build(self, model: Model) -> "MaskedText":
        """The objective on a model with a text encoder."""
        return MaskedText(self, model)


class PairsConfig(HeadsConfig):
    """Pairs of speech and text: what SLAM and mSLAM have in common."""

    speech: CodesConfig = Field(
        CodesConfig(start_probability=0.034), description="how speech is hidden: three quarters of it"
    )
    hidden: SpansConfig = Field(SpansConfig(share=0.5, span=20), description="how text is hidden: half of it")
    matching: float = Field(0.0, ge=0, description="s, weight of L_STM")
    heads: float = Field(1.0, ge=0, description="c, weight of L_heads")

    @property
    def identifies(self) -> bool:
        """Whether it trains the language head, one of L_heads."""
        return self.heads > 0 and super().identifies


class SlamConfig(PairsConfig):
    """Pairs as in SLAM: whether the two belong together, and no recognition yet."""

    name: Literal["slam"] = "slam"
    hidden: SpansConfig = Field(SpansConfig(share=0.5, span=5), description="how text is hidden: half of it")
    matching: float = Field(1.0, ge=0, description="s, weight of L_STM")
    heads: float = Field(0.0, ge=0, description="c, weight of L_heads")

    def build(self, model: Model) -> "Pairs":
        """The objective on a model with a text encoder."""
        return Pairs(self, model)


class MSlamConfig(PairsConfig):
    """Pairs as in mSLAM: CTC, and nobody asks whether the two belong together."""

    name: Literal["mslam"] = "mslam"

    def build(self, model: Model) -> "Pairs":
        """The objective on a model with a text encoder."""
        return Pairs(self, model)


class HiddenText(nn.Module):
    """Hides spans of symbols, and predicts them."""

    def __init__(self, config: SpansConfig, model: Model):
        super().__init__()
        self.config = config
        if model.text_encoder.upsampler is not None:
            raise IsoglossError("Masked text is not stretched; set text.upsampling: none in the recipe.")
        self.softmax = nn.Linear(model.encoder.width, model.unit_head.output.out_features)

    def mask(self, tokens: Sequence, seed: int) -> Tensor:
        """(B, U) symbols -> (B, U) bool, True = hidden."""
        generator = torch.Generator().manual_seed(seed)
        return share_mask(tokens.lengths, tokens.values.shape[1], self.config.share, self.config.span, generator)

    def predict(self, states: Sequence, tokens: Sequence, mask: Tensor) -> Tensor:
        """Cross-entropy of what is hidden, a mean for each text: (B, U+1, D), (B, U), (B, U) -> (B,)."""
        rows = mask.nonzero()[:, 0]
        scores = self.softmax(states.values[:, 1 : 1 + mask.shape[1]][mask]).float()
        return mean_by_row(cross_entropy(scores, tokens.values[mask], reduction="none"), rows, len(tokens))


class MaskedText(Objective):
    """L_text of text alone."""

    kind = "text"

    def __init__(self, config: MaskedTextConfig, model: Model):
        super().__init__()
        self.encoder, self.text = model.encoder, model.text_encoder
        self.hidden = HiddenText(config.hidden, model)
        # Not modules, hence out of reach of state_dict: the model saves them itself.
        self._units, self._read, self._shared = model.units, model.encode_text, model.encode_shared

    def forward(self, batch: Batch) -> Loss:
        """Texts with languages, audio (B, 0) -> losses summed over texts."""
        tokens = self._units(batch.texts, batch.languages).to(batch.audio.device)
        mask = self.hidden.mask(tokens, batch.seed)
        read = self._read(blanked(tokens, mask), batch.languages)
        losses = self.hidden.predict(self._shared(read, languages=batch.languages).final, tokens, mask)
        return Loss(losses.sum(), len(batch.ids), {"hidden": mask.sum().float()})


class Pairs(ReadOff):
    """L_TLM of pairs, with L_STM and L_heads where they weigh something."""

    kind = "paired"

    def __init__(self, config: PairsConfig, model: Model):
        super().__init__(config, model)
        self.config = config
        self.transcribes = config.heads > 0
        if not self.transcribes:  # the heads are not trained here
            for head in ("ctc", "transducer", "attention", "conditioning", "phonemes", "language"):
                setattr(self, head, None)
        self.text = model.text_encoder
        self.speech = BestRQ(config.speech, model)
        self.hidden = HiddenText(config.hidden, model)
        self.same = nn.Linear(model.encoder.width, 1) if config.matching else None
        self._heard, self._read = model.encode_speech, model.encode_text
        self._shared, self._units = model.encode_shared, model.units

    def forward(self, batch: Batch) -> Loss:
        """Audio (B, S) with texts and languages -> losses summed over utterances."""
        features = self.speech.features(batch.audio)
        tokens = self._units(batch.texts, batch.languages).to(batch.audio.device)
        corrupted, frames = self.speech.hide(features, batch.seed)
        symbols = self.hidden.mask(tokens, batch.seed)
        heard = self._heard(corrupted, batch.languages)  # e_s
        hidden = blanked(tokens, symbols)
        read = self._read(hidden, batch.languages)  # e_t
        spoken, written = self.together(heard, read, batch)
        losses, right = self.speech.predict(spoken.values[frames], self.speech.codes(features, frames))
        parts = {
            "speech": mean_by_row(losses, frames.nonzero()[:, 0], len(tokens)).sum(),
            "speech_accuracy": mean_by_row(right, frames.nonzero()[:, 0], len(tokens)).sum(),
            "text": self.hidden.predict(written, tokens, symbols).sum(),
        }
        total = parts["speech"] + parts["text"]
        if self.same is not None:
            said = [normalise(text or "", tag) for text, tag in zip(batch.texts, batch.languages, strict=True)]
            others = strangers(said, batch.languages)
            strange = self.together(heard, Sequence(read.values[others], read.lengths[others]), batch)[1]
            parts["same"] = self.told_apart(written, strange, said, others)
            total = total + self.config.matching * parts["same"]
        if self.config.heads:
            alone, found = self.read_off(self._shared(heard, self.middle, batch.languages), self.targets(batch), batch)
            total = total + self.config.heads * alone
            parts |= found
        return Loss(total, len(batch.ids), detached(parts))

    def together(self, heard: Sequence, read: Sequence, batch: Batch) -> tuple[Sequence, Sequence]:
        """e_s (B, T, D) and e_t (B, U, D), the one behind the other through the shared blocks, and parted again."""
        joined = [torch.cat(both) for both in zip(heard.unpad(), read.unpad(), strict=True)]
        through = self._shared(Sequence.from_list(joined), languages=batch.languages).final.unpad()
        lengths = heard.lengths.tolist()
        speech = [row[:length] for row, length in zip(through, lengths, strict=True)]
        text = [row[length:] for row, length in zip(through, lengths, strict=True)]
        width = heard.values.shape[1]
        return padded(speech, width), padded(text, read.values.shape[1])

    def told_apart(self, matched: Sequence, strange: Sequence, texts: list[str], others: list[int]) -> Tensor:
        """L_STM summed over utterances: of matched and mismatched pairs; two clips of one text are no mismatch."""
        assert self.same is not None
        different = torch.tensor([text != texts[other] for text, other in zip(texts, others, strict=True)])
        right, wrong = (self.same(states.values[:, 0])[:, 0].float() for states in (matched, strange))
        losses = binary_cross_entropy_with_logits(right, torch.ones_like(right), reduction="none")
        unlike = binary_cross_entropy_with_logits(wrong, torch.zeros_like(wrong), reduction="none")
        return (losses + unlike * different.to(unlike.device)).sum() / 2


def strangers(texts: list[str], languages: list[str]) -> list[int]:
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
