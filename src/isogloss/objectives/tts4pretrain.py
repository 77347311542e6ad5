"""TTS4Pretrain: text that nobody spoke is spoken by a machine (Chen et al. 2021, arXiv 2108.12226), and its second
form, in which real and synthetic speech of a sentence must say the same (Wang et al. 2020, consistent predictions).

    text     t ─ synthesiser ─ x̃ (B, S) ─┬─ hide spans ─ encoder ─ softmax ──> L_ssl, as of real speech
                                         └─ SpecAugment ─ encoder ─ heads ───> L_aux(t | x̃)

    paired   x ───────────────── SpecAugment ─ encoder ─ heads ─> L_aux(t | x) ──┐
             t ─ synthesiser ─ x̃ ─ SpecAugment ─ encoder ─ heads ─> L_aux(t | x̃) ┴─> L_cons = KL(p_u(x) ‖ p_u(x̃))

    tts4pretrain  (text)    L = s L_ssl(x̃) + a L_aux(t | x̃)             beside best_rq on real speech
    tts4pretrain2 (paired)  L = L_aux(t | x) + a L_aux(t | x̃) + c L_cons

p_u is what the attention decoder says of the u-th symbol, told those before it; in a model without one it is
CTC's posterior where its best path first writes the symbol. L_cons is a mean over the symbols. The synthesiser is
espeak-ng (data/synthesis.py); any other is a function, given to `build`.

Differs from the papers: speech is hidden as in BEST-RQ, not w2v-BERT, and synthetic speech has a softmax of its own.
Text is taken as it comes; the papers choose sentences by what an in-domain language model says of them. The weights
are not published.
"""

from dataclasses import replace
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from isogloss.data.loading import Batch, Kind
from isogloss.data.synthesis import Speak, speak
from isogloss.model.model import Model
from isogloss.nn.ctc import ctc_best_path
from isogloss.objectives.base import Loss
from isogloss.objectives.best_rq import BestRQ, CodesConfig
from isogloss.objectives.recognition import HeardConfig, Recognition, detached
from isogloss.sequence import Sequence


class SpokenConfig(HeardConfig):
    """What both forms have in common."""

    language: float = Field(0.0, ge=0, description="v, weight of the language loss: a machine's voice is no evidence")
    auxiliary: float = Field(1.0, gt=0, description="a, weight of what the heads read in synthetic speech")


class TTS4PretrainConfig(SpokenConfig):
    """Text alone, spoken by a synthesiser."""

    name: Literal["tts4pretrain"] = "tts4pretrain"
    masked: float = Field(1.0, ge=0, description="s, weight of L_ssl; 0 = none")
    speech: CodesConfig = Field(CodesConfig(), description="how synthetic speech is hidden")

    def build(self, model: Model, speak: Speak = speak) -> "TTS4Pretrain":
        """The objective on a model with a CTC head; speak: the synthesiser."""
        return TTS4Pretrain(self, model, speak)


class TTS4Pretrain2Config(SpokenConfig):
    """Pairs, the sentence spoken once more by a synthesiser."""

    name: Literal["tts4pretrain2"] = "tts4pretrain2"
    consistency: float = Field(1.0, ge=0, description="c, weight of L_cons")

    def build(self, model: Model, speak: Speak = speak) -> "TTS4Pretrain2":
        """The objective on a model with a CTC head; speak: the synthesiser."""
        return TTS4Pretrain2(self, model, speak)


class TTS4Pretrain(Recognition):
    """s L_ssl + a L_aux of text that a machine speaks."""

    kind: Kind = "text"

    def __init__(self, config: TTS4PretrainConfig, model: Model, speak: Speak):
        super().__init__(config, model)
        self.spoken = config
        self.speak = speak
        self.masked = BestRQ(config.speech, model) if config.masked else None

    def forward(self, batch: Batch) -> Loss:
        """Texts with languages, audio (B, 0) -> losses summed over texts."""
        spoken = aloud(batch, self.speak)
        heads = super().forward(spoken)
        total, parts = self.spoken.auxiliary * heads.total, heads.parts
        if self.masked is not None:
            found = self.masked(spoken)
            # A mean over hidden frames, once for every text, as the heads' losses are.
            hidden = found.total / max(1, found.count) * heads.count
            total = total + self.spoken.masked * hidden
            parts = parts | {"masked": hidden.detach()}
        return Loss(total, heads.count, parts | {"seconds": torch.tensor(spoken.seconds)})


class TTS4Pretrain2(Recognition):
    """L_aux of real and of synthetic speech, and L_cons between them."""

    kind: Kind = "paired"

    def __init__(self, config: TTS4Pretrain2Config, model: Model, speak: Speak):
        super().__init__(config, model)
        self.spoken = config
        self.speak = speak

    def forward(self, batch: Batch) -> Loss:
        """Audio (B, S) with texts and languages -> losses summed over utterances."""
        tokens = self.targets(batch)
        real, synthetic = (self.encoded(one) for one in (batch, aloud(batch, self.speak)))
        total, parts = self.read_off(real, tokens, batch)
        auxiliary, _ = self.read_off(synthetic, tokens, batch)
        parts["synthetic"] = auxiliary
        parts["consistency"] = divergence(*(self.posteriors(one.final, tokens) for one in (real, synthetic))).sum()
        total = total + self.spoken.auxiliary * auxiliary + self.spoken.consistency * parts["consistency"]
        return Loss(total, len(batch.ids), detached(parts))

    def posteriors(self, states: Sequence, tokens: Sequence) -> Sequence:
        """log p(t_u | x) over the vocabulary: (B, T, D) and (B, U) -> (B, U, V); with the end, (B, U+1, V)."""
        if self.attention is not None:
            return self.attention.teacher_forced_logits(states, tokens).map(lambda logits: logits.log_softmax(dim=-1))
        written = self.ctc(states)
        first = ctc_best_path(written, tokens)[0][..., 0].clamp(min=0)  # where there is no path, the first frame
        return tokens.with_values(written.values.take_along_dim(first[..., None], dim=1))


def aloud(batch: Batch, speak: Speak) -> Batch:
    """The texts of a batch as a synthesiser says them, with voices drawn by the seed of the batch."""
    said = [
        torch.as_tensor(speak(text or "", language, batch.seed + row), dtype=torch.float32)
        for row, (text, language) in enumerate(zip(batch.texts, batch.languages, strict=True))
    ]
    audio = Sequence.from_list(said).to(batch.audio.device)
    return replace(batch, audio=audio)


def divergence(real: Sequence, synthetic: Sequence) -> Tensor:
    """KL(p ‖ q), mean over the symbols: log-probabilities (B, U, V) twice -> (B,)."""
    p, q = real.zero_padding().values, synthetic.zero_padding().values
    return (p.exp() * (p - q)).sum(dim=(1, 2)) / real.lengths.clamp(min=1)
