"""BEST-RQ: self-supervised learning with a random-projection quantizer.

Chiu et al. 2022 (arXiv 2202.01855); with several codebooks as in USM (arXiv 2303.01037 §2.2.1).
The idea: stack four clean frames, project them with a random frozen matrix, take the nearest of
random frozen codes; then mask the input with noise and predict the codes of what was masked.

    features (B, T, F) ─┬─ stack ×4 ─ quantizer (frozen) ──────────────> codes (M, K)
                        └─ noise on masked frames ─ encoder ─ softmax ─> logits (M, K, C)

M counts encoder frames all of whose four input frames are masked, so that no part of a target is
visible. The loss is the cross-entropy averaged over masked frames and, with equal weights, over
codebooks; it starts at ln C = 9.01.

Differs from the paper: nothing; the projection is drawn Xavier-uniform per codebook.
"""

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, pad

from isogloss.audio.reading import SAMPLE_RATE
from isogloss.config import Config
from isogloss.data.loading import Batch
from isogloss.model.model import Model
from isogloss.nn.masking import span_mask
from isogloss.nn.quantizers import RandomProjectionQuantizer
from isogloss.nn.subsampling import stack
from isogloss.objectives.base import BaseConfig, Loss, Objective
from isogloss.sequence import Sequence


class CodesConfig(Config):
    """What is hidden of speech, and which codes are predicted, with the paper's values as defaults."""

    books: int = Field(1, ge=1, description="codebooks K; USM uses 16")
    codes: int = Field(8192, ge=2, description="codes C in each book")
    code_width: int = Field(16, ge=1, description="width E of a code")
    start_probability: float = Field(0.01, gt=0, lt=1, description="a frame starts a mask with this probability")
    mask_ms: int = Field(400, ge=40, description="length of a mask; streaming models use 300")
    noise: float = Field(0.1, ge=0, description="standard deviation of the noise that replaces masked frames")
    seed: int = Field(0, description="draws the frozen projection and codebooks")


class BestRQConfig(BaseConfig, CodesConfig):
    """BEST-RQ on speech alone."""

    name: Literal["best_rq"] = "best_rq"

    def build(self, model: Model) -> "BestRQ":
        """The objective on a model's features and encoder."""
        return BestRQ(self, model)


class BestRQ(Objective):
    """Masked prediction of random-projection codes; needs audio only."""

    kind = "speech"

    def __init__(self, config: CodesConfig, model: Model):
        super().__init__()
        self.config = config
        self.features = model.features
        self.encoder = model.encoder
        self.factor = model.encoder.framing.stride
        self.quantizer = RandomProjectionQuantizer(
            self.factor * model.features.width, config.books, config.codes, config.code_width, config.seed
        )
        self.softmax = nn.Linear(model.encoder.width, config.books * config.codes)

    def count(self, batch: Batch) -> int:
        lengths = self.features.framing.frames(batch.audio.lengths)
        frames = self.features.framing.frames(batch.audio.values.shape[1])
        mask = self.mask(lengths, frames, batch.seed)
        return int(self.target_mask(mask).sum())

    def forward(self, batch: Batch) -> Loss:
        """Audio (B, S) -> summed cross-entropy over the masked encoder frames."""
        features = self.features(batch.audio)
        hidden, targets = self.hide(features, batch.seed)
        codes = self.codes(features, targets)
        states = self.encoder(hidden, languages=batch.languages).final.values[targets]
        losses, right = self.predict(states, codes)
        parts = {
            "accuracy": right.sum(),
            "code_perplexity": perplexity(codes, self.config.codes) * len(codes),
            "spread": spread(states.detach()) * len(codes),
        }
        return Loss(losses.sum(), len(codes), parts)

    def hide(self, features: Sequence, seed: int) -> tuple[Sequence, Tensor]:
        """(B, T, F) features -> the same with noise in masked frames, and what to predict, (B, T/4) bool."""
        mask = self.mask(features.lengths, features.values.shape[1], seed)
        return self.corrupt(features, mask), self.target_mask(mask)

    def codes(self, features: Sequence, targets: Tensor) -> Tensor:
        """The codes of chosen encoder frames of clean features: (B, T, F) and (B, T/4) bool -> (M, K)."""
        return self.quantizer(stack(features, self.factor)[targets])

    def predict(self, states: Tensor, codes: Tensor) -> tuple[Tensor, Tensor]:
        """Cross-entropy and share of right codes of each frame, averaged over books: (M, D), (M, K) -> (M,), (M,)."""
        logits = self.softmax(states).view(-1, self.config.books, self.config.codes).float()
        losses = cross_entropy(logits.flatten(0, 1), codes.flatten(), reduction="none")
        right = logits.detach().argmax(dim=-1) == codes
        return losses.view_as(codes).mean(dim=1), right.float().mean(dim=1)

    def mask(self, lengths: Tensor, frames: int, seed: int) -> Tensor:
        """(B, T) bool over input frames, True = masked."""
        generator = torch.Generator().manual_seed(seed)
        span = round(self.config.mask_ms * SAMPLE_RATE / 1000 / self.features.framing.stride)
        return span_mask(lengths, frames, self.config.start_probability, span, generator)

    def target_mask(self, mask: Tensor) -> Tensor:
        """(B, T) over input frames -> (B, ceil(T/4)): True where all four frames are masked."""
        missing = -mask.shape[1] % self.factor
        return pad(mask, (0, missing)).unflatten(1, (-1, self.factor)).all(dim=-1)

    def corrupt(self, features: Sequence, mask: Tensor) -> Sequence:
        """Gaussian noise in place of the masked frames."""
        noise = torch.randn_like(features.values) * self.config.noise
        return features.with_values(torch.where(mask[..., None], noise, features.values))


def perplexity(codes: Tensor, size: int) -> Tensor:
    """exp(entropy) of the codes in use, averaged over the books: (M, K) int64 -> scalar in 1 … C."""
    if len(codes) == 0:
        return torch.zeros((), device=codes.device)
    per_book = []
    for book in codes.unbind(dim=1):
        share = torch.bincount(book, minlength=size).float() / len(book)
        per_book.append(torch.special.entr(share).sum().exp())
    return torch.stack(per_book).mean()


def spread(states: Tensor) -> Tensor:
    """Standard deviation between frames, averaged over channels; 0 means collapse. (M, D) -> scalar."""
    return states.float().std(dim=0, correction=0).mean() if len(states) else states.new_ones(())
