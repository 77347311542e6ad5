"""MOST: modality matching in USM (Zhang et al. 2023, arXiv 2303.01037 §2.5), MAESTRO in a simpler form.

    L = L_heads(t | e_s) + λ_mm |sg(e_s) - ê_t|² + λ_dur L_dur        the pairs; picture and formulas in maestro.py

What differs from MAESTRO: the matching moves the text encoder only (sg stops the gradient); the decoder that is trained
aligns, and no slow copy of it; a single block belongs to speech alone (`text.entry: 1`); speech without text
has BEST-RQ. Pairs come first, in a stage of their own, until the alignments settle (20 000 steps in USM); then
text joins as `aligned_mlm`. USM's weights are not published.
"""

from typing import Literal

from pydantic import Field

from isogloss.audio.augment import SpecAugmentConfig
from isogloss.model.spec import ModelSpec
from isogloss.objectives.maestro import Matching, MatchingConfig


class MostConfig(MatchingConfig):
    """Pairs as in USM's second stage."""

    name: Literal["most"] = "most"
    both_sides: bool = Field(False, description="whether L_MM also trains the speech side")
    mask: SpecAugmentConfig | None = Field(None, description="masks on e_s before the shared blocks")
    aligner: float | None = Field(None, ge=0, lt=1, description="decay of the EMA that aligns; null = the model itself")

    def build(self, spec: ModelSpec) -> Matching:
        """The objective for a model with a text encoder."""
        return Matching(self, spec)
