"""w2v-BERT: contrast the lower blocks, and let the upper ones predict the code (Chung et al. 2021, arXiv 2108.06209).

The idea: wav2vec 2.0's loss on a middle block learns a codebook; the blocks above it predict the codes of hidden
frames, as BERT predicts words. Both are trained at once, so that the codes are better than those fixed before.

    states ─ a learned vector on spans ─ lower blocks ─┬─ wav2vec 2.0 ─────────────> L_c + α L_d, and the codes
                                                       └─ upper blocks ─ softmax ──> L_m, the codes as classes

    L = L_c + α L_d + γ L_m                            L_m: mean over hidden frames and groups, starts at ln V

L_m has no gradient into the codebook: without L_c and L_d it would collapse.

Differs from the paper: features that are learned have wav2vec 2.0's penalty; log-mel features, which the paper has,
have none.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field
from torch import nn
from torch.nn.functional import cross_entropy

from isogloss.data.loading import Batch
from isogloss.errors import IsoglossError
from isogloss.model.spec import ModelSpec
from isogloss.nn.quantizers import Quantised
from isogloss.objectives.base import Loss, Mean, Term
from isogloss.objectives.masked_states import Hidden
from isogloss.objectives.wav2vec2 import Wav2Vec2, Wav2Vec2Config


class W2VBERTConfig(Wav2Vec2Config):
    """w2v-BERT on speech alone; XL has 1024 codes in one group, of width 1024."""

    paper = "Chung et al. 2021, arXiv 2108.06209"
    recipe = "w2v-bert-tiny"
    presets: ClassVar = {
        "tiny": ("tiny", {"codes": 320}),
        "xl": ("usm_600m", {"code_width": 1024}),
    }

    name: Literal["w2v_bert"] = "w2v_bert"  # type: ignore[assignment]
    layer: int | None = Field(
        None, ge=1, description="blocks below the contrastive loss; null = half of them, as in XL"
    )
    groups: int = Field(1, ge=1, description="groups G of codes")
    codes: int = Field(1024, ge=2, description="codes V in each group")
    prediction: float = Field(1.0, gt=0, description="γ, weight of L_m")

    def build(self, spec: ModelSpec) -> W2VBERT:
        """The objective for a model; raises IsoglossError for an encoder without a block above `layer`."""
        return W2VBERT(self, spec)


class W2VBERT(Wav2Vec2):
    """Contrastive loss of a middle block, and prediction of its codes; needs audio only."""

    def __init__(self, config: W2VBERTConfig, spec: ModelSpec):
        super().__init__(config, spec)
        self.layer = config.layer or max(1, spec.layers // 2)
        if self.layer >= spec.layers:
            raise IsoglossError(
                f"w2v_bert.layer {self.layer} leaves no block to predict codes; the encoder has {spec.layers}."
            )
        self.weight = config.prediction
        self.classes = nn.Linear(spec.width, config.groups * config.codes)

    def counts(self, batch: Batch) -> dict[str, int]:
        """Hidden frames, for all terms but the penalty."""
        found = super().counts(batch)
        return found | {"codes": found["contrastive"]}

    def completed(self, loss: Loss, hidden: Hidden, quantised: Quantised) -> Loss:
        """Also L_m, and how many codes are right."""
        codes = quantised.codes.detach()
        logits = self.classes(hidden.final).float().unflatten(-1, (codes.shape[1], -1))
        losses = cross_entropy(logits.flatten(0, 1), codes.flatten(), reduction="none").view_as(codes).mean(dim=1)
        right = (logits.detach().argmax(dim=-1) == codes).float().mean(dim=1)
        return Loss(
            loss.terms | {"codes": Term(losses.sum(), len(codes), self.weight)},
            loss.stats | {"code_accuracy": Mean(right.sum(), len(codes))},
        )
