"""SpeechT5: one encoder and one decoder turn speech into speech and text into text (Ao et al. 2022, arXiv 2110.07205).

The idea: spoil speech and text, encode both by one encoder, write both anew by one decoder; between the two, some
states are replaced by codes from one book, so that the decoder cannot tell what they came from.

    speech   features ─ noise on spans ─ encoder ─┬─ softmax ─────────────────> L_mlm  codes of masked frames
                                                  └─ mix ─ decoder ─ post-net > L_1    |y - ŷ| + |y - ŷ'|
                                                                              > L_bce  where it ends
    text     symbols ─ spans become one blank ─ text encoder ─ shared blocks ─ mix ─ decoder > L_mle  the symbols
    both     mix: a tenth of the states ─ quantizer ──────────────────────────> L_d = Σ p_k log p_k / (G V)

    speecht5_speech  L = L_mlm + L_1 + L_bce + γ L_d         speecht5_text  L = L_mle + γ L_d         γ = 0.1

The decoder is `model.attention`, which recognises afterwards (`recognition`); `model.speech` leads features into it and
out. Nothing is stretched: `text.upsampling: none`. L_1 is a mean over frames and bins, L_mlm over masked frames,
L_mle over symbols, so that an utterance counts once. The temperature τ of the codes falls from 2 to 0.5 over the first
seven tenths of a stage, as wav2vec 2.0's does over its training.

Differs from the paper: codes of BEST-RQ, not units of HuBERT. No speaker vector goes into the decoder: nothing here
is made to speak yet. The convolutions have no batch norm, which would see padding and neighbours; the encoder reads
features and not the waveform; text enters through its own encoder.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from isogloss.data.loading import Batch
from isogloss.data.needs import Needs
from isogloss.errors import IsoglossError
from isogloss.heads.attention import AttentionDecoder
from isogloss.heads.speech import SpeechDecoder
from isogloss.model.model import Model
from isogloss.model.spec import ModelSpec
from isogloss.nn.masking import start_probability
from isogloss.objectives.base import Alarm, BaseConfig, Clock, Loss, Objective, Term
from isogloss.objectives.best_rq import CodesConfig, MaskedCodes
from isogloss.sequence import Sequence

END_WEIGHT = 5.0
"""A recording ends once: its last step weighs like so many others (Tacotron's usual value)."""
HIDDEN = CodesConfig(start_probability=0.0413, mask_ms=200)
"""57 % of the frames, in spans of 200 ms, as wav2vec 2.0 and HuBERT have them (8 % of frames of 20 ms start ten)."""


class SpeechT5Config(BaseConfig):
    """What both lines have in common."""

    diversity: float = Field(0.1, ge=0, description="γ, weight of L_d")
    temperature: tuple[float, float] = Field((2.0, 0.5), description="first and last τ of the Gumbel softmax")


class SpeechT5SpeechConfig(SpeechT5Config):
    """Speech alone."""

    name: Literal["speecht5_speech"] = "speecht5_speech"
    speech: CodesConfig = Field(HIDDEN, description="masks on speech, and the codes of L_mlm")

    def build(self, spec: ModelSpec) -> SpeechT5Speech:
        """The objective for a model with an attention decoder and a speech decoder."""
        return SpeechT5Speech(self, spec)


class SpeechT5TextConfig(SpeechT5Config):
    """Text alone."""

    name: Literal["speecht5_text"] = "speecht5_text"
    share: float = Field(0.3, gt=0, lt=1, description="share of the symbols that is masked")
    span: float = Field(3.5, gt=0, description="λ of the Poisson distribution of the spans' lengths")

    def build(self, spec: ModelSpec) -> SpeechT5Text:
        """The objective for a model with text encoder, attention decoder and speech decoder."""
        return SpeechT5Text(self, spec)


class SpeechT5(Objective):
    """The decoders and codes that both lines share."""

    batchwise = frozenset({"diversity"})

    def __init__(self, config: SpeechT5Config, spec: ModelSpec):
        super().__init__(config, spec)
        self.shared = config
        if not {"attention", "speech"} <= spec.heads.keys():
            raise IsoglossError("SpeechT5 predicts text and speech; add attention: {} and speech: {} to model.heads.")

    def temperature(self, clock: Clock) -> float:
        """τ, which falls geometrically for 70 % of the stage."""
        return clock.falling(self.shared.temperature)

    def mixed(self, model: Model, states: Sequence, clock: Clock) -> tuple[Sequence, Term]:
        """States (B, T, D) of which some are codes, and L_d."""
        mixed, likely = model.head("speech", SpeechDecoder).mix(states, self.temperature(clock))
        rows = len(states)
        return mixed, Term(uniformity(likely) * rows, rows, self.shared.diversity)


class SpeechT5Speech(SpeechT5):
    """L_mlm + L_1 + L_bce + γ L_d."""

    def __init__(self, config: SpeechT5SpeechConfig, spec: ModelSpec):
        super().__init__(config, spec)
        self.masked = MaskedCodes(config.speech, spec)
        self.needs = self.masked.needs

    def prepare(self, batch: Batch, training: bool) -> Batch:
        """What is masked: `mask` (B, T) of features and `targets`."""
        return batch.with_extras(self.masked.hidden(batch.audio, batch))

    def counts(self, batch: Batch) -> dict[str, int]:
        """Masked encoder frames."""
        return self.masked.counts(batch)

    def forward(self, model: Model, batch: Batch, clock: Clock) -> Loss:
        """Audio (B, S) -> losses summed over utterances, and over masked frames."""
        features, mask, rows = model.features(batch.audio), batch.extras["mask"], len(batch.ids)
        states = model.encoder(self.masked.corrupt(features, mask), languages=batch.languages).final
        targets = self.masked.targets(batch, states.values.shape[1], states.device)
        codes = self.masked.codes(features, targets)
        chosen = states.values.flatten(0, 1)[targets]
        losses, right = self.masked.predict(chosen, codes)
        mixed, diversity = self.mixed(model, states, clock)
        decoder = model.head("speech", SpeechDecoder)
        rough, fine, end = decoder(mixed, features, model.head("attention", AttentionDecoder))
        terms = {
            "codes": Term(losses.sum(), len(codes)),
            "distance": Term((distance(rough, features) + distance(fine, features)).sum(), rows),
            "end": Term(ending(end, states.lengths).sum(), rows),
            "diversity": diversity,
        }
        return Loss(terms, self.masked.stats(chosen, codes, right))

    def health(self) -> tuple[Alarm, ...]:
        """Codes or states that are all alike."""
        return self.masked.health()


class SpeechT5Text(SpeechT5):
    """L_mle + γ L_d."""

    def __init__(self, config: SpeechT5TextConfig, spec: ModelSpec):
        super().__init__(config, spec)
        self.config = config
        self.needs = Needs(audio=False, text=True, languages=frozenset(spec.text_languages))
        if spec.config.text is not None and spec.config.text.upsampling != "none":
            raise IsoglossError("SpeechT5 does not stretch text; set text.upsampling: none in the recipe.")

    def prepare(self, batch: Batch, training: bool) -> Batch:
        """`symbols` (B, U) to predict, and the `units` of which spans are hidden, (B, U')."""
        processor, share, span = self.spec.processor, self.config.share, self.config.span
        units = processor.unit_ids(batch.texts, batch.languages).unpad()
        rows = zip(units, batch.draws("units"), strict=True)
        hidden = [torch.tensor(infilled(row.tolist(), share, span, draw)).long() for row, draw in rows]
        symbols = processor.symbols(batch.texts, batch.languages)
        return batch.with_extras({"symbols": symbols, "units": Sequence.from_list(hidden)})

    def forward(self, model: Model, batch: Batch, clock: Clock) -> Loss:
        """Texts with languages, audio (B, 0) -> losses summed over texts."""
        tokens, rows = batch.extras["symbols"], len(batch.ids)
        states = model.encode_text(batch.extras["units"], batch.languages)
        encoded = model.encode_shared(states, languages=batch.languages).final
        mixed, diversity = self.mixed(model, encoded, clock)
        losses = model.head("attention", AttentionDecoder).loss(mixed, tokens) / (tokens.lengths + 1)
        return Loss({"text": Term(losses.sum(), rows), "diversity": diversity})


def infilled(symbols: list[int], share: float, mean: float, draw: np.random.Generator) -> list[int]:
    """Symbols of which about `share` are hidden, each span a single blank (BART's text infilling, arXiv 1910.13461 §3).

    Lengths of spans are Poisson-distributed; one of length 0 is a blank where nothing is missing.
    """
    starts = draw.random(len(symbols)) < start_probability(share, mean)
    spans = draw.poisson(mean, len(symbols))
    found: list[int] = []
    hidden_until = 0
    for place, symbol in enumerate(symbols):
        if starts[place]:
            if place >= hidden_until:
                found.append(0)
            hidden_until = max(hidden_until, place + int(spans[place]))
        if place >= hidden_until:
            found.append(symbol)
    return found


def distance(predicted: Sequence, features: Sequence) -> Tensor:
    """|y - ŷ|, mean over frames and bins: (B, T, F) twice -> (B,)."""
    errors = (predicted.zero_padding().values.float() - features.zero_padding().values).abs().mean(dim=-1)
    return errors.sum(dim=1) / features.lengths.clamp(min=1)


def ending(logits: Tensor, steps: Tensor) -> Tensor:
    """L_bce: whether each step is the last, mean over the steps: (B, N) and their numbers (B,) -> (B,)."""
    places = torch.arange(logits.shape[1], device=logits.device)
    last = (places == steps[:, None] - 1).float()
    losses = binary_cross_entropy_with_logits(logits, last, reduction="none", pos_weight=logits.new_tensor(END_WEIGHT))
    return torch.where(places < steps[:, None], losses, 0.0).sum(dim=1) / steps.clamp(min=1)


def uniformity(likely: Tensor) -> Tensor:
    """L_d: the negative entropy of how often codes are likely, (G, V) -> scalar; least where all are alike."""
    return -torch.special.entr(likely).sum() / likely.numel()
