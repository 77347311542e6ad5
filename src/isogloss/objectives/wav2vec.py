"""wav2vec: tell the frames that follow from others of the utterance, one by one (Schneider et al. 2019, arXiv
1904.05862).

The idea: that of CPC, in an encoder of convolutions alone; whether a frame is the one that follows is asked of each
candidate on its own.

    features z (B, T, F) ─ causal encoder ─> c (B, T, D) ─ h_k ─> (B, T, F)        k = 1 … K frames ahead; h_k affine

    L = mean over t ≤ T - K, and over k, of [ -log σ(z_{t+k} · h_k(c_t)) - λ E_n log σ(-z_n · h_k(c_t)) ] / (1 + λ)

E_n: the mean over λ = N other frames of the utterance. Starts near ln 2: one binary term for each candidate. Features
should be learned, as in the paper: of ten candidates in eleven the answer is no, which a product with features of zero
mean, as log-mel's, cannot say. After 150 steps on spoken letters L was 0.28 from the waveform, 0.68 on log-mel.

Differs from the paper: it is divided by 1 + λ, as in the published code; frames are predicted from those t alone that
have all K frames after them; the others are the same for all k, and among them the right frame does not count. The
published code counts k from the third frame on, the first that shares no samples with z_t.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import softplus

from isogloss.model.spec import ModelSpec
from isogloss.objectives.later_frames import LaterFrames, LaterFramesConfig


class Wav2VecConfig(LaterFramesConfig):
    """wav2vec on speech alone."""

    paper = "Schneider et al. 2019, arXiv 1904.05862"
    recipe = "wav2vec-tiny"
    presets: ClassVar = {
        "tiny": ("wav2vec_tiny", {}),
        "base": ("wav2vec_base", {}),
        "large": ("wav2vec_large", {}),
    }

    name: Literal["wav2vec"] = "wav2vec"
    distractors: int = Field(10, ge=1, description="number λ of other frames")

    def build(self, spec: ModelSpec) -> Wav2Vec:
        """The objective for a model; raises IsoglossError for an encoder that sees the future or skips frames."""
        return Wav2Vec(self, spec)


class Wav2Vec(LaterFrames):
    """Binary classification of later and of other features; needs audio only."""

    def __init__(self, config: Wav2VecConfig, spec: ModelSpec, method: str = "wav2vec", example: str = "wav2vec_base"):
        super().__init__(config, spec, method, example, bias=True)
        # As small as in the published code, where one layer makes all K predictions: larger scores would not begin
        # near ln 2.
        bound = (config.ahead * spec.width) ** -0.5
        for layer in self.predict:
            assert isinstance(layer, nn.Linear)
            nn.init.uniform_(layer.weight, -bound, bound)

    def losses(self, right: Tensor, wrong: Tensor, itself: Tensor) -> Tensor:
        """Binary cross-entropies of a candidate on average: (M,), (M, N), (M, N) -> (M,)."""
        others = softplus(wrong.float()).masked_fill(itself, 0.0).sum(dim=1) / (~itself).sum(dim=1).clamp(min=1)
        return (softplus(-right.float()) + self.distractors * others) / (1 + self.distractors)
