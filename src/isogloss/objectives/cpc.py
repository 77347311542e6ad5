"""CPC: tell the frames that follow from others of the utterance (van den Oord et al. 2018, arXiv 1807.03748).

The idea: an encoder that sees nothing of the future predicts the features of the next K frames, each by a matrix of its
own, well enough to find them among others of the same utterance, and so of the same voice.

    features z (B, T, F) ─ causal encoder ─> c (B, T, D) ─ A_k ─> (B, T, F)        k = 1 … K frames ahead

    L = mean over t ≤ T - K, and over k, of -log exp(z_{t+k} · A_k c_t) / Σ_{n ∈ t+k, N others} exp(z_n · A_k c_t)

Starts near ln(N + 1); ln(N + 1) - L is a lower bound of what c and z have in common, in nats (`information`). The right
frame is in the denominator, and is no distractor of itself. Features are learned from the waveform in the paper; those
of any kind will do.

Differs from the paper: the distractors are the same for all k, as in the modified CPC of Rivière et al. (2020, arXiv
2002.02848), of whose sizes `model.encoder: cpc` is; A_k are matrices as in the paper, not Transformer layers.
"""

from __future__ import annotations

from dataclasses import replace
from math import log
from typing import ClassVar, Literal

from torch import Tensor

from isogloss.data.loading import Batch
from isogloss.model.spec import ModelSpec
from isogloss.nn.contrastive import info_nce
from isogloss.objectives.base import Loss, Mean
from isogloss.objectives.later_frames import LaterFrames, LaterFramesConfig


class CPCConfig(LaterFramesConfig):
    """Contrastive predictive coding of speech alone."""

    paper = "van den Oord et al. 2018, arXiv 1807.03748"
    recipe = "cpc-tiny"
    presets: ClassVar = {"modified": ("cpc", {})}

    name: Literal["cpc"] = "cpc"

    def build(self, spec: ModelSpec) -> CPC:
        """The objective for a model; raises IsoglossError for an encoder that sees the future or skips frames."""
        return CPC(self, spec)


class CPC(LaterFrames):
    """Contrastive prediction of later features; needs audio only."""

    def __init__(self, config: CPCConfig, spec: ModelSpec):
        super().__init__(config, spec, "CPC", "cpc", bias=False)

    def compared(self, z: Tensor, states: Tensor, batch: Batch) -> Loss:
        """What the states c (B, T, D) say of z (B, T, F), and how much they have in common."""
        loss = super().compared(z, states, batch)
        term = loss.terms["contrastive"]
        information = log(self.distractors + 1) * term.count - term.total.detach()
        return replace(loss, stats=loss.stats | {"information": Mean(information, term.count)})

    def losses(self, right: Tensor, wrong: Tensor, itself: Tensor) -> Tensor:
        """-log of the share of the right one: (M,), (M, N), (M, N) -> (M,)."""
        return info_nce(right, wrong, itself)
