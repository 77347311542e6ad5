"""BEST-RQ: self-supervised learning with a random-projection quantizer.

Chiu et al. 2022 (arXiv 2202.01855); with several codebooks as in USM (arXiv 2303.01037 §2.2.1).
The idea: stack as many clean frames as one of the encoder stands for, project them with a random frozen matrix, take
the nearest of random frozen codes; then mask the input with noise and predict the codes of what was masked.

    features (B, T, F) ─┬─ stack ×4 ─ quantizer (frozen) ──────────────> codes (M, K)
                        └─ noise on masked frames ─ encoder ─ softmax ─> logits (M, K, C)

M counts encoder frames all of whose four input frames are masked, so that no part of a target is
visible. The loss is the cross-entropy averaged over masked frames and, with equal weights, over
codebooks; it starts at ln C = 9.01.

Differs from the paper: nothing; the projection is drawn Xavier-uniform per codebook.
"""

from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from isogloss.data.loading import Batch
from isogloss.model.model import Model
from isogloss.model.spec import ModelSpec
from isogloss.nn.quantizers import RandomProjectionQuantizer
from isogloss.objectives.base import Alarm, BaseConfig, Clock, Loss, Mean, Objective, Term
from isogloss.objectives.collapse import EQUAL_STATES, perplexity, spread
from isogloss.objectives.masked_features import FeatureSpansConfig, MaskedFeatures, side_by_side
from isogloss.sequence import Sequence


class CodesConfig(FeatureSpansConfig):
    """Masks on speech and the codes to predict, with the paper's values as defaults."""

    books: int = Field(1, ge=1, description="number K of codebooks; USM 16")
    codes: int = Field(8192, ge=2, description="codes C in each codebook")
    code_width: int = Field(16, ge=1, description="width E of a code")
    seed: int = Field(0, description="seed of the frozen projection and codebooks")


class BestRQConfig(BaseConfig, CodesConfig):
    """BEST-RQ on speech alone."""

    paper = "Chiu et al. 2022, arXiv 2202.01855"
    recipe = "usm-tiny"
    presets: ClassVar = {
        "tiny": ("tiny", {}),
        "usm_600m": ("usm_600m", {"books": 16}),
        "usm_2b": ("usm_2b", {"books": 16}),
    }

    name: Literal["best_rq"] = "best_rq"

    def build(self, spec: ModelSpec) -> "BestRQ":
        """The objective for a model."""
        return BestRQ(self, spec)


class MaskedCodes(MaskedFeatures):
    """Hides spans of features, and predicts the codes of what is hidden; part of several methods."""

    def __init__(self, config: CodesConfig, spec: ModelSpec):
        super().__init__(config, spec)
        self.config: CodesConfig = config
        self.quantizer = RandomProjectionQuantizer(
            spec.stride * spec.bins, config.books, config.codes, config.code_width, config.seed
        )
        self.softmax = nn.Linear(spec.width, config.books * config.codes)

    def codes(self, features: Sequence, targets: Tensor) -> Tensor:
        """The codes of clean features (B, T, F) in the encoder frames `targets` (M,) -> (M, K)."""
        return self.quantizer(side_by_side(features, self.spec).flatten(0, 1)[targets])

    def predict(self, states: Tensor, codes: Tensor) -> tuple[Tensor, Tensor]:
        """Cross-entropy and share of right codes of each frame, averaged over books: (M, D), (M, K) -> (M,), (M,)."""
        logits = self.softmax(states).view(-1, self.config.books, self.config.codes).float()
        losses = cross_entropy(logits.flatten(0, 1), codes.flatten(), reduction="none")
        right = logits.detach().argmax(dim=-1) == codes
        return losses.view_as(codes).mean(dim=1), right.float().mean(dim=1)

    def counts(self, batch: Batch) -> dict[str, int]:
        """Masked encoder frames."""
        return {"codes": sum(map(len, batch.extras["targets"]))}

    def loss(self, model: Model, features: Sequence, batch: Batch, weight: float = 1.0) -> Loss:
        """Features (B, T, F) of a batch with `hidden` -> cross-entropy summed over the masked encoder frames."""
        hidden = self.corrupt(features, batch.extras["mask"])
        encoded = model.encoder(hidden, languages=batch.languages).final.values
        targets = self.targets(batch, encoded.shape[1], encoded.device)
        states, codes = encoded.flatten(0, 1)[targets], self.codes(features, targets)
        losses, right = self.predict(states, codes)
        return Loss({"codes": Term(losses.sum(), len(codes), weight)}, self.stats(states, codes, right))

    def stats(self, states: Tensor, codes: Tensor, right: Tensor) -> dict[str, Mean]:
        """What `health` watches, and how many codes are right: (M, D), (M, K), (M,)."""
        count = len(codes)
        return {
            "accuracy": Mean(right.sum(), count),
            "code_perplexity": Mean(perplexity(codes, self.config.codes) * count, count),
            "spread": Mean(spread(states.detach()) * count, count),
        }

    def health(self) -> tuple[Alarm, ...]:
        """Codes or states that are all alike."""
        return (
            Alarm(
                "code_perplexity",
                "Codebook collapse: the targets use {value:.1f} codes on average at step {step}; "
                "are the features normalised (model.features.normalisation)?",
                least=2.0,
            ),
            EQUAL_STATES,
        )


class BestRQ(Objective):
    """Masked prediction of random-projection codes; needs audio only."""

    def __init__(self, config: BestRQConfig, spec: ModelSpec):
        super().__init__(config, spec)
        self.masked = MaskedCodes(config, spec)
        self.needs = self.masked.needs

    def prepare(self, batch: Batch, training: bool) -> Batch:
        """What is masked: `mask` (B, T) of features and `targets`."""
        return batch.with_extras(self.masked.hidden(batch.audio, batch))

    def counts(self, batch: Batch) -> dict[str, int]:
        """Masked encoder frames."""
        return self.masked.counts(batch)

    def forward(self, model: Model, batch: Batch, clock: Clock) -> Loss:
        """Audio (B, S) -> cross-entropy summed over the masked encoder frames."""
        return self.masked.loss(model, model.features(batch.audio), batch)

    def health(self) -> tuple[Alarm, ...]:
        """Codes or states that are all alike."""
        return self.masked.health()
