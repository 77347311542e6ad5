"""TTS4Pretrain: text that nobody spoke is spoken by a machine (Chen et al. 2021, arXiv 2108.12226), and its second
form, in which real and synthetic speech of a sentence must say the same (Wang et al. 2020, consistent predictions).

    text     t ─ synthesiser ─ x̃ (B, S) ─┬─ hide spans ─ encoder ─ softmax ──> L_ssl, as of real speech
                                         └─ SpecAugment ─ encoder ─ heads ───> L_aux(t | x̃)

    paired   x ───────────────── SpecAugment ─ encoder ─ heads ─> L_aux(t | x) ──┐
             t ─ synthesiser ─ x̃ ─ SpecAugment ─ encoder ─ heads ─> L_aux(t | x̃) ┴─> L_cons = KL(p_u(x) ‖ p_u(x̃))

    tts4pretrain  (text)    L = s L_ssl(x̃) + a L_aux(t | x̃)             beside best_rq on real speech
    tts4pretrain2 (paired)  L = L_aux(t | x) + a L_aux(t | x̃) + c L_cons

p_u is what the attention decoder says of the u-th symbol, given those before it; in a model without one it is
CTC's posterior where its best path first writes the symbol. L_cons is a mean over the symbols. The synthesiser is
espeak-ng (data/synthesis.py); any other is a function, given to `build`.

Differs from the papers: speech is hidden as in BEST-RQ, not w2v-BERT, and synthetic speech has a softmax of its own.
Text is taken as it comes; the papers choose sentences by what an in-domain language model says of them. The weights
are not published.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field

from isogloss.audio.reading import SAMPLE_RATE
from isogloss.data.loading import Batch
from isogloss.data.needs import Needs
from isogloss.data.synthesis import Speak, speak
from isogloss.errors import IsoglossError
from isogloss.heads.attention import AttentionDecoder
from isogloss.heads.ctc import CTCHead
from isogloss.model.model import Model
from isogloss.model.spec import ModelSpec
from isogloss.nn.ctc import ctc_best_path
from isogloss.objectives.base import Alarm, Clock, Loss, Mean, Term
from isogloss.objectives.best_rq import CodesConfig, MaskedCodes
from isogloss.objectives.consistency import difference
from isogloss.objectives.recognition import HeadsConfig, Recognition, SpeechHeadsConfig
from isogloss.sequence import Sequence


class SpokenConfig(SpeechHeadsConfig):
    """What both forms have in common."""

    usual = HeadsConfig.usual | {"language": 0.0}  # a machine's voice is no evidence

    auxiliary: float = Field(1.0, gt=0, description="a, weight of the heads' losses on synthetic speech")


class TTS4PretrainConfig(SpokenConfig):
    """Text alone, synthesised."""

    name: Literal["tts4pretrain"] = "tts4pretrain"
    masked: float = Field(1.0, ge=0, description="s, weight of L_ssl; 0 = none")
    speech: CodesConfig = Field(CodesConfig(), description="masks on synthetic speech")

    def build(self, spec: ModelSpec, speak: Speak = speak) -> TTS4Pretrain:
        """The objective for a model with heads; speak: the synthesiser."""
        return TTS4Pretrain(self, spec, speak)


class TTS4Pretrain2Config(SpokenConfig):
    """Pairs, with a synthesised copy of the sentence."""

    name: Literal["tts4pretrain2"] = "tts4pretrain2"
    consistency: float = Field(1.0, ge=0, description="c, weight of L_cons")

    def build(self, spec: ModelSpec, speak: Speak = speak) -> TTS4Pretrain2:
        """The objective for a model with heads; speak: the synthesiser."""
        return TTS4Pretrain2(self, spec, speak)


class TTS4Pretrain(Recognition):
    """s L_ssl + a L_aux of text that a machine speaks."""

    needs = Needs(audio=False, text=True)

    def __init__(self, config: TTS4PretrainConfig, spec: ModelSpec, speak: Speak):
        super().__init__(config, spec)
        self.spoken = config
        self.speak = speak
        self.masked = MaskedCodes(config.speech, spec) if config.masked else None
        if config.speech.guide is not None:
            raise IsoglossError("No recogniser has scored synthetic speech; leave out guide of tts4pretrain.speech.")

    def prepare(self, batch: Batch, training: bool) -> Batch:
        """The texts as `synthetic` speech (B, S), and what of it is masked: `mask` and `targets`."""
        audio = aloud(batch, self.speak)
        hidden = self.masked.hidden(audio, batch) if self.masked is not None else {}
        return super().prepare(batch, training).with_extras({"synthetic": audio} | hidden)

    def counts(self, batch: Batch) -> dict[str, int]:
        """Also masked encoder frames."""
        return super().counts(batch) | (self.masked.counts(batch) if self.masked is not None else {})

    def forward(self, model: Model, batch: Batch, clock: Clock) -> Loss:
        """Texts with languages, audio (B, 0) -> losses summed over texts, and over masked frames."""
        audio, rows = batch.extras["synthetic"], len(batch.ids)
        features = model.features(audio)
        found = self.head_losses(model, self.encoded(model, features, batch), batch, self.spoken.auxiliary)
        stats = found.stats | {"seconds": Mean(audio.lengths.sum() / SAMPLE_RATE, rows)}
        if self.masked is None:
            return Loss(found.terms, stats)
        hidden = self.masked.loss(model, features, batch, self.spoken.masked)
        return Loss(found.terms | hidden.terms, stats | hidden.stats)

    def health(self) -> tuple[Alarm, ...]:
        """Also codes or states that are all alike."""
        return (*super().health(), *(self.masked.health() if self.masked is not None else ()))


class TTS4Pretrain2(Recognition):
    """L_aux of real and of synthetic speech, and L_cons between them."""

    def __init__(self, config: TTS4Pretrain2Config, spec: ModelSpec, speak: Speak):
        super().__init__(config, spec)
        self.spoken = config
        self.speak = speak

    def prepare(self, batch: Batch, training: bool) -> Batch:
        """Also the sentences as `synthetic` speech, (B, S)."""
        return super().prepare(batch, training).with_extras({"synthetic": aloud(batch, self.speak)})

    def counts(self, batch: Batch) -> dict[str, int]:
        """Those of the heads, once more for synthetic speech."""
        found = super().counts(batch)
        return found | {f"synthetic_{name}": count for name, count in found.items()}

    def forward(self, model: Model, batch: Batch, clock: Clock) -> Loss:
        """Audio (B, S) with texts and languages -> losses summed over utterances."""
        tokens, rows = batch.extras["symbols"], len(batch.ids)
        both = batch.audio, batch.extras["synthetic"]
        real, synthetic = (self.encoded(model, model.features(audio), batch) for audio in both)
        heads = self.head_losses(model, real, batch)
        auxiliary = self.head_losses(model, synthetic, batch, self.spoken.auxiliary)
        p, q = (self.posteriors(model, one.final, tokens) for one in (real, synthetic))
        differ = difference(p, q, "kl")
        terms = {f"synthetic_{name}": term for name, term in auxiliary.terms.items()}
        terms["consistency"] = Term(differ.sum(), rows, self.spoken.consistency)
        return Loss(heads.terms | terms, heads.stats)

    def posteriors(self, model: Model, states: Sequence, tokens: Sequence) -> Sequence:
        """log p(t_u | x) over the vocabulary: (B, T, D) and (B, U) -> (B, U, V); with the end, (B, U+1, V)."""
        if "attention" in self.trained:
            logits = model.head("attention", AttentionDecoder).teacher_forced_logits(states, tokens)
            return logits.map(lambda values: values.log_softmax(dim=-1))
        found = model.head("ctc", CTCHead)(states)
        first = ctc_best_path(found, tokens)[0][..., 0].clamp(min=0)  # where there is no path, the first frame
        return tokens.with_values(found.values.take_along_dim(first[..., None], dim=1))


def aloud(batch: Batch, speak: Speak) -> Sequence:
    """The texts of a batch as a synthesiser says them, (B, S), each in the voice that the seed of its row draws."""
    rows = zip(batch.texts, batch.languages, batch.seeds, strict=True)
    said = [torch.as_tensor(speak(text or "", tag, seed), dtype=torch.float32) for text, tag, seed in rows]
    return Sequence.from_list(said)
