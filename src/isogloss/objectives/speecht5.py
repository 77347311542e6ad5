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
L_mle over symbols, so that an utterance counts once.

Differs from the paper: codes of BEST-RQ, not units of HuBERT. No speaker vector goes into the decoder: nothing here
is made to speak yet. The convolutions have no batch norm, which would see padding and neighbours; the encoder reads
features and not the waveform; text enters through its own encoder.
"""

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, pad

from isogloss.data.loading import Batch
from isogloss.errors import IsoglossError
from isogloss.heads.attention import AttentionDecoder
from isogloss.heads.speech import SpeechDecoder
from isogloss.model.model import Model
from isogloss.nn.masking import poisson_mask
from isogloss.objectives.base import BaseConfig, Loss, Objective
from isogloss.objectives.best_rq import BestRQ, CodesConfig
from isogloss.sequence import Sequence

END_WEIGHT = 5.0
"""A recording ends once: its last step weighs like so many others (Tacotron's usual value)."""


class SpeechT5SpeechConfig(BaseConfig):
    """Speech alone."""

    name: Literal["speecht5_speech"] = "speecht5_speech"
    speech: CodesConfig = Field(CodesConfig(), description="how speech is hidden, and the codes of L_mlm")
    diversity: float = Field(0.1, ge=0, description="γ, weight of L_d")

    def build(self, model: Model) -> "SpeechT5Speech":
        """The objective on a model with an attention decoder and a speech decoder."""
        return SpeechT5Speech(self, model)


class SpeechT5TextConfig(BaseConfig):
    """Text alone."""

    name: Literal["speecht5_text"] = "speecht5_text"
    share: float = Field(0.3, gt=0, lt=1, description="share of the symbols that is hidden")
    span: float = Field(3.5, gt=0, description="λ of the Poisson distribution of the spans' lengths")
    diversity: float = Field(0.1, ge=0, description="γ, weight of L_d")

    def build(self, model: Model) -> "SpeechT5Text":
        """The objective on a model with text encoder, attention decoder and speech decoder."""
        return SpeechT5Text(self, model)


class SpeechT5Speech(Objective):
    """L_mlm + L_1 + L_bce + γ L_d."""

    kind = "speech"

    def __init__(self, config: SpeechT5SpeechConfig, model: Model):
        super().__init__()
        self.config = config
        self.attention, self.decoder = decoders(model)
        self.masked = BestRQ(config.speech, model)

    def forward(self, batch: Batch) -> Loss:
        """Audio (B, S) -> losses summed over utterances."""
        features = self.masked.features(batch.audio)
        hidden, targets = self.masked.hide(features, batch.seed)
        states = self.masked.encoder(hidden, languages=batch.languages).final
        codes = self.masked.codes(features, targets)
        losses, right = self.masked.predict(states.values[targets], codes)
        mixed, likely = self.decoder.mix(states)
        rough, fine, end = self.decoder(mixed, features, self.attention)
        rows, found = len(batch.ids), max(1, len(codes))
        parts = {
            "masked": losses.sum() * rows / found,
            "accuracy": right.sum() * rows / found,
            "distance": (distance(rough, features) + distance(fine, features)).sum(),
            "end": ending(end, states.lengths).sum(),
            "diversity": uniformity(likely) * rows,
        }
        total = parts["masked"] + parts["distance"] + parts["end"] + self.config.diversity * parts["diversity"]
        return Loss(total, rows, {name: part.detach() for name, part in parts.items()})


class SpeechT5Text(Objective):
    """L_mle + γ L_d."""

    kind = "text"

    def __init__(self, config: SpeechT5TextConfig, model: Model):
        super().__init__()
        self.config = config
        self.attention, self.decoder = decoders(model)
        self.encoder, self.text = model.encoder, model.text_encoder
        if self.text.upsampler is not None:
            raise IsoglossError("SpeechT5 does not stretch text; set text.upsampling: none in the recipe.")
        # Not modules, hence out of reach of state_dict: the model saves them itself.
        self._read, self._shared = model.encode_text, model.encode_shared
        self._written, self._units = model.written, model.units

    def forward(self, batch: Batch) -> Loss:
        """Texts with languages, audio (B, 0) -> losses summed over texts."""
        device = batch.audio.device
        tokens, units = (told(batch.texts, batch.languages).to(device) for told in (self._written, self._units))
        read = self._read(self.infilled(units, batch.seed), batch.languages)
        mixed, likely = self.decoder.mix(self._shared(read, languages=batch.languages).final)
        written = (self.attention(mixed, tokens) / (tokens.lengths + 1)).sum()
        parts = {"text": written, "diversity": uniformity(likely) * len(batch.ids)}
        total = written + self.config.diversity * parts["diversity"]
        return Loss(total, len(batch.ids), {name: part.detach() for name, part in parts.items()})

    def infilled(self, tokens: Sequence, seed: int) -> Sequence:
        """Symbols (B, U) -> (B, U'), each hidden span a single blank (BART's text infilling, arXiv 1910.13461)."""
        generator = torch.Generator().manual_seed(seed)
        hidden = poisson_mask(tokens.lengths, tokens.values.shape[1], self.config.share, self.config.span, generator)
        first = hidden & ~pad(hidden, (1, 0))[:, :-1]
        blanked = tokens.with_values(tokens.values.masked_fill(hidden, 0)).unpad()
        kept = tokens.with_values(~hidden | first).unpad()
        return Sequence.from_list([symbols[row] for symbols, row in zip(blanked, kept, strict=True)])


def decoders(model: Model) -> tuple[AttentionDecoder, SpeechDecoder]:
    """What writes text and what writes speech; raises IsoglossError where one is missing."""
    if model.attention is None or model.speech is None:
        raise IsoglossError("SpeechT5 writes text and speech; add model.attention: {} and model.speech: {}.")
    return model.attention, model.speech


def distance(written: Sequence, features: Sequence) -> Tensor:
    """|y - ŷ|, mean over frames and bins: (B, T, F) twice -> (B,)."""
    errors = (written.zero_padding().values.float() - features.zero_padding().values).abs().mean(dim=-1)
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
