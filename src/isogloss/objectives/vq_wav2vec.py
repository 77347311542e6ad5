"""vq-wav2vec: wav2vec on features that are quantised (Baevski et al. 2020, arXiv 1910.05453).

The idea: between features and context stands a quantizer, so that what is predicted, and predicted from, is discrete:
codes of frames, which whatever takes symbols may learn from.

    features z (B, T, F) ─ quantizer, part of the encoder ─> ẑ (B, T, F) ─ blocks ─> c (B, T, D) ─ h_k ─> (B, T, F)

    L = L_wav2vec(ẑ, c) + α L_d                                 `embed: {kind: gumbel}`
    L = L_wav2vec(ẑ, c) + ‖sg(z) - ẑ‖² + γ ‖z - sg(ẑ)‖²         `embed: {kind: nearest}`; squares: means over channels

The gradient goes through the choice of a code straight: from the Gumbel softmax, whose τ falls geometrically over the
first seven tenths of a stage, or from the nearest codeword to z as it is. Of the two squares, the first moves codewords
alone, the second all before them. Starts near ln 2, and with squares about 1 + γ above. L_d, of wav2vec 2.0, is the
share of codes that are unlikely on average; the paper has none (α = 0).

Codebooks collapse easily. After 300 steps of the tiny recipe on spoken letters, 3 codes of a group were in use without
L_d, and 56 with α = 0.03. Nearest codewords want features that are already spread and small steps: those of log-mel
kept 4 of 320 codes; those learned from the waveform had one left after 200 steps at 3e-5; the published rate is 1e-5.

The quantizer is the encoder's `embed`, and all that is built on the model sees what it makes. The codewords of a
recording are `encode(…, layer=0)`, its codes `model.encoder.embed.codes(model.features(audio))`.

Differs from the paper: what wav2vec.py says; K is 12, as in the published commands, where the paper has 8; a clip's
frames do not enter the norm before the nearest codeword, but each its own (nn/quantizers.py).
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor

from isogloss.data.loading import Batch
from isogloss.encoders.quantised import Coded, QuantisedConfig, QuantisedFeatures
from isogloss.errors import IsoglossError
from isogloss.model.model import Model
from isogloss.model.spec import ModelSpec
from isogloss.nn.masking import flat_places
from isogloss.nn.quantizers import mean_likely, unused_share
from isogloss.objectives.base import Alarm, Clock, Loss, Mean, Term
from isogloss.objectives.collapse import perplexity
from isogloss.objectives.wav2vec import Wav2Vec, Wav2VecConfig


class VQWav2VecConfig(Wav2VecConfig):
    """vq-wav2vec on speech alone, in an encoder whose `embed` quantises."""

    paper = "Baevski et al. 2020, arXiv 1910.05453"
    recipe = "vq-wav2vec-tiny"
    presets: ClassVar = {
        "tiny": ("vq_wav2vec_tiny", {"diversity": 0.03}),
        "gumbel": ("vq_wav2vec_gumbel", {}),
        "k-means": ("vq_wav2vec_kmeans", {}),
    }

    name: Literal["vq_wav2vec"] = "vq_wav2vec"  # type: ignore[assignment]
    temperature: tuple[float, float] = Field((2.0, 0.5), description="first and last τ of embed: {kind: gumbel}")
    diversity: float = Field(0.0, ge=0, description="α, weight of L_d of embed: {kind: gumbel}; wav2vec 2.0 has 0.1")
    commitment: float = Field(0.25, ge=0, description="γ, weight of the second square of embed: {kind: nearest}")

    def build(self, spec: ModelSpec) -> VQWav2Vec:
        """The objective for a model; raises IsoglossError for an encoder that quantises nothing, or sees the future."""
        return VQWav2Vec(self, spec)


class VQWav2Vec(Wav2Vec):
    """Prediction of later codewords, and what keeps these near features; needs audio only."""

    batchwise = frozenset({"diversity"})

    def __init__(self, config: VQWav2VecConfig, spec: ModelSpec):
        super().__init__(config, spec, "vq-wav2vec", "vq_wav2vec_gumbel")
        embed = spec.config.encoder.embed
        if not isinstance(embed, QuantisedConfig):
            raise IsoglossError(
                "vq_wav2vec needs an encoder that quantises its features; take model.encoder.embed: {kind: gumbel}, or "
                "model.encoder: vq_wav2vec_gumbel."
            )
        if embed.near and config.diversity:
            raise IsoglossError("vq_wav2vec.diversity is of embed: {kind: gumbel}; leave it out, or take that.")
        self.config = config
        self.embed = embed
        self.extra = ["codewords", "commitment"] if embed.near else ["diversity"] if config.diversity else []

    def counts(self, batch: Batch) -> dict[str, int]:
        """Frames with K frames after them, for all terms."""
        found = super().counts(batch)
        return found | dict.fromkeys(self.extra, found["contrastive"])

    def forward(self, model: Model, batch: Batch, clock: Clock) -> Loss:
        """Audio (B, S) -> losses averaged over K and summed over frames."""
        quantizer = model.encoder.embed
        assert isinstance(quantizer, QuantisedFeatures)
        found = quantizer.quantise(model.features(batch.audio), clock.falling(self.config.temperature))
        context = model.encoder.contextualise(found.states, languages=batch.languages).final.values
        loss = self.compared(found.states.zero_padding().values, context, batch)
        frames = loss.terms["contrastive"].count
        places = flat_places(batch.extras["targets"], context.shape[1], context.device)
        used = perplexity(found.codes.flatten(0, 1)[places], self.embed.codes)
        terms = loss.terms | self._own(found, places)
        return Loss(terms, loss.stats | {"code_perplexity": Mean(used * frames, frames)})

    def _own(self, found: Coded, places: Tensor) -> dict[str, Term]:
        """What the quantizer learns beside the prediction, of the frames at `places`."""
        frames = len(places)
        if found.distances is not None:
            fits, keeps = (squares.flatten()[places].sum() for squares in found.distances)
            return {"codewords": Term(fits, frames), "commitment": Term(keeps, frames, self.config.commitment)}
        if found.likely is None or not self.config.diversity:
            return {}
        unused = unused_share(mean_likely(found.likely.flatten(0, 1)[places]))
        return {"diversity": Term(unused * frames, frames, self.config.diversity)}

    def health(self) -> tuple[Alarm, ...]:
        """Codes or states that are all alike."""
        return (
            Alarm(
                "code_perplexity",
                "Codebook collapse: {value:.1f} codes of a group are in use on average at step {step}; lower the "
                "learning rate, or take fewer codes.",
                least=1.05,
                patience=100,
            ),
            *super().health(),
        )
