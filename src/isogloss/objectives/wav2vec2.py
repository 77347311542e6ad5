"""wav2vec 2.0: find the quantised features of a hidden frame among those of other hidden frames.

Baevski et al. 2020 (arXiv 2006.11477); XLSR and XLS-R (arXiv 2006.13979, 2111.09296) are this on many languages, drawn
by `temperature: 2` of a stage. The idea: features are quantised by a codebook that is learned; what the blocks say of a
hidden frame must be more like its code than like the codes of K other hidden frames of the same utterance.

    features (B, T, F) ─┬─ LayerNorm ─ quantizer (Gumbel softmax) ──────────> q (M, E)
                        └─ embed ─ a learned vector on spans ─ blocks ─ W ──> c (M, E)

    L_m = -log exp(sim(c_t, q_t) / κ) / Σ_{q ∈ q_t, K others} exp(sim(c_t, q) / κ)      mean over hidden frames
    L_d = (G V - Σ_g exp H(p_g)) / (G V)                 p_g: how likely codes are on average, without Gumbel noise
    L   = L_m + α L_d + β mean(features²)                                                        starts at ln(K + 1)

Others whose code is that of t are left out of the sum. τ of the Gumbel softmax falls geometrically over the first seven
tenths of a stage; the paper multiplies it by 0.999995 a step. The first term and the last are sums over frames and
utterances, L_d compares the frames of a micro-batch. On encoders without a LayerNorm at their entry, such as those that
subsample log-mel features, the quantizer takes the features of a frame side by side.
"""

from __future__ import annotations

from itertools import accumulate
from math import log
from typing import ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from isogloss.data.loading import Batch
from isogloss.encoders.embed import Projection
from isogloss.errors import IsoglossError
from isogloss.model.model import Model
from isogloss.model.spec import ModelSpec
from isogloss.nn.contrastive import cosines, info_nce
from isogloss.nn.masking import flat_places, on_device
from isogloss.nn.quantizers import GumbelQuantizer, Quantised, mean_likely, unused_share
from isogloss.objectives.base import Alarm, BaseConfig, Clock, Loss, Mean, Objective, Term
from isogloss.objectives.collapse import EQUAL_STATES, spread
from isogloss.objectives.masked_features import side_by_side
from isogloss.objectives.masked_states import Hidden, MaskedStates, SpansConfig, energy, scaled_gradient
from isogloss.sequence import Sequence


class Wav2Vec2Config(BaseConfig, SpansConfig):
    """wav2vec 2.0 on speech alone; the defaults are those of base."""

    paper = "Baevski et al. 2020, arXiv 2006.11477"
    recipe = "wav2vec2-tiny"
    presets: ClassVar = {
        "tiny": ("tiny", {}),
        "base": ("wav2vec2_base", {}),
        "large": (
            "wav2vec2_large",
            {"code_width": 768, "feature_gradient": 1.0, "penalty": 0.0, "temperature": (2.0, 0.1)},
        ),
    }

    name: Literal["wav2vec2"] = "wav2vec2"
    groups: int = Field(2, ge=1, description="groups G of codes")
    codes: int = Field(320, ge=2, description="codes V in each group")
    code_width: int = Field(256, ge=1, description="width E of a quantised frame; large 768")
    distractors: int = Field(100, ge=1, description="number K of other frames")
    similarity: float = Field(0.1, gt=0, description="κ, by which similarities are divided")
    diversity: float = Field(0.1, ge=0, description="α, weight of L_d")
    penalty: float = Field(10.0, ge=0, description="β, weight of the features' mean square, if learned; large 0")
    feature_gradient: float = Field(
        0.1, gt=0, description="factor of the gradient that reaches learned features; large 1"
    )
    temperature: tuple[float, float] = Field((2.0, 0.5), description="first and last τ; large 2 and 0.1")

    def build(self, spec: ModelSpec) -> Wav2Vec2:
        """The objective for a model."""
        return Wav2Vec2(self, spec)


class Wav2Vec2(Objective):
    """Contrastive loss of hidden frames; needs audio only."""

    batchwise = frozenset({"diversity"})
    layer: int | None = None
    """The block whose states are compared with codes; None = the last."""

    def __init__(self, config: Wav2Vec2Config, spec: ModelSpec):
        super().__init__(config, spec)
        self.config = config
        if config.code_width % config.groups:
            raise IsoglossError(f"wav2vec2.code_width {config.code_width} does not divide into {config.groups} groups.")
        self.masked = MaskedStates(config, spec)
        self.needs = self.masked.needs
        self.learned = spec.config.features.kind == "waveform"
        self.quantizer = GumbelQuantizer(spec.stride * spec.bins, config.groups, config.codes, config.code_width)
        self.project = nn.Linear(spec.width, config.code_width)

    def prepare(self, batch: Batch, training: bool) -> Batch:
        """`mask` (B, T); `targets` of each clip, none where one frame is hidden; `others` (B, M, K) places in these."""
        hidden = self.masked.hidden(batch)
        targets = [frames if len(frames) > 1 else [] for frames in hidden["targets"]]
        others = torch.zeros(len(targets), max(1, *map(len, targets)), self.config.distractors, dtype=torch.int64)
        for row, frames, draw in zip(others, targets, batch.draws("others"), strict=True):
            row[: len(frames)] = torch.from_numpy(other_places(len(frames), self.config.distractors, draw))
        return batch.with_extras(hidden | {"targets": targets, "others": others})

    def counts(self, batch: Batch) -> dict[str, int]:
        """Hidden frames, for all terms but the penalty."""
        frames = sum(map(len, batch.extras["targets"]))
        return {"contrastive": frames, "diversity": frames}

    def forward(self, model: Model, batch: Batch, clock: Clock) -> Loss:
        """Audio (B, S) -> losses summed over hidden frames, and over utterances."""
        features = model.features(batch.audio)
        if self.learned:
            features = scaled_gradient(features, self.config.feature_gradient)
        hidden = self.masked.encode(model, model.encoder.embed(features), batch, self.layer)
        clean = self._entering(model, features).flatten(0, 1)[hidden.places]
        context, quantised = hidden.middle, self.quantizer(clean, self.temperature(clock))
        similar = self._similar(self.project(context), quantised.vectors)
        others = self._others(batch, similar.device)
        losses = info_nce(similar.diagonal(), similar.gather(1, others), _equal(quantised.codes, others))
        frames = len(losses)
        likely = mean_likely(quantised.likely)
        terms = {
            "contrastive": Term(losses.sum(), frames),
            "diversity": Term(unused_share(likely) * frames, frames, self.config.diversity),
        }
        if self.learned and self.config.penalty:
            terms["penalty"] = energy(features, self.config.penalty)
        used = (1 - unused_share(likely.detach())) * likely.numel()
        stats = {
            "accuracy": Mean((losses.detach() < log(2)).float().sum(), frames),
            "code_perplexity": Mean(used * frames, frames),
            "spread": Mean(spread(context.detach()) * frames, frames),
        }
        return self.completed(Loss(terms, stats), hidden, quantised)

    def completed(self, loss: Loss, hidden: Hidden, quantised: Quantised) -> Loss:
        """The loss with what a method adds to it that is built on this one."""
        return loss

    def temperature(self, clock: Clock) -> float:
        """τ, which falls geometrically for 70 % of the stage."""
        return clock.falling(self.config.temperature)

    def health(self) -> tuple[Alarm, ...]:
        """Codes or states that are all alike."""
        return (
            Alarm(
                "code_perplexity",
                "Codebook collapse: {value:.1f} codes are likely on average at step {step}; raise diversity, or lower "
                "the learning rate.",
                least=1.05 * self.config.groups,
                patience=100,
            ),
            EQUAL_STATES,
        )

    def _entering(self, model: Model, features: Sequence) -> Tensor:
        """Clean features at the frame rate of the encoder, (B, T, stride · F), normalised where the encoder does so."""
        together, embed = side_by_side(features, self.spec), model.encoder.embed
        normed: Tensor = embed.norm(together) if isinstance(embed, Projection) else together
        return normed

    def _others(self, batch: Batch, device: torch.device) -> Tensor:
        """For each of all M hidden frames the places of K others among these, (M, K)."""
        counts = [len(frames) for frames in batch.extras["targets"]]
        of_clips: Tensor = batch.extras["others"]
        width = of_clips.shape[1]
        rows = flat_places([range(count) for count in counts], width, device)
        starts = on_device(torch.tensor(list(accumulate(counts, initial=0))), device)
        return of_clips.flatten(0, 1)[rows] + starts[rows // width, None]

    def _similar(self, context: Tensor, vectors: Tensor) -> Tensor:
        """sim(c, q) / κ of all hidden frames with all: (M, E), (M, E) -> (M, M) float32."""
        return cosines(context, vectors) / self.config.similarity


def other_places(frames: int, count: int, draw: np.random.Generator) -> np.ndarray:
    """For each of so many hidden frames, places of `count` others among them, with repetition: (frames, count)."""
    places = draw.integers(0, max(1, frames - 1), (frames, count))
    return places + (places >= np.arange(frames)[:, None])


def _equal(codes: Tensor, others: Tensor) -> Tensor:
    """Which others have the same codes: (M, G), (M, K) -> (M, K) bool."""
    return (codes[others] == codes[:, None]).all(dim=-1)
