"""Features in the place of which their codewords enter the blocks (vq-wav2vec, Baevski et al. 2020, arXiv 1910.05453).

    gumbel     (B, T, F) ─ linear ─ ReLU ─ linear ─ the likeliest code ─ codeword ─> (B, T, F)
    nearest    (B, T, F) ─ linear and norm by groups ─ the nearest codeword ───────> (B, T, F)

G codes a frame, one of V in each group. While training, `gumbel` draws them with Gumbel noise; otherwise, and in
`codes`, they depend on the features alone. No autocast: the same features have the same codes in any precision.

Plain `forward` is for whatever is trained on top: its gradient goes to codewords and, straight through, to features.
What trains the quantizer itself asks `quantise`, at a temperature, and has the codes and distances as well.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from isogloss.config import Config
from isogloss.encoders.blocks import BlocksConfig
from isogloss.errors import IsoglossError
from isogloss.framing import Framing
from isogloss.nn.dropout import evaluating
from isogloss.nn.past import SubsamplingPast
from isogloss.nn.quantizers import GumbelQuantizer, Nearest, NearestQuantizer
from isogloss.nn.subsampling import not_empty
from isogloss.sequence import Sequence


class QuantisedConfig(Config, ABC):
    """Codewords in the place of features. near: whether the distance from features to codewords has to be trained."""

    cannot_stream: ClassVar[str | None] = None
    keeps_width: ClassVar[bool] = True
    near: ClassVar[bool]

    groups: int = Field(2, ge=1, description="groups G of codes")
    codes: int = Field(320, ge=2, description="codes V in each group")
    shared: bool = Field(True, description="the groups have the same codewords")

    @property
    def framing(self) -> Framing:
        """From frames of features to those that enter the blocks."""
        return Framing()

    def check(self, inputs: int) -> None:
        """Raise IsoglossError for features whose width does not divide into groups."""
        if inputs % self.groups:
            raise IsoglossError(
                f"Features of width {inputs} do not divide into {self.groups} groups; change encoder.embed.groups."
            )


class GumbelConfig(QuantisedConfig):
    """The likeliest codeword by logits that are learned; the defaults are those of vq-wav2vec."""

    near: ClassVar[bool] = False

    kind: Literal["gumbel"] = "gumbel"
    expansion: int = Field(2, ge=1, description="width of the layer before the logits, times that of the features")
    temperature: float = Field(0.5, gt=0, description="τ of the Gumbel softmax where no objective says another")

    def build(self, inputs: int, blocks: BlocksConfig) -> "GumbelFeatures":
        """From features of width `inputs` to codewords of that width."""
        self.check(inputs)
        return GumbelFeatures(self, inputs)


class NearestConfig(QuantisedConfig):
    """The nearest codeword, as in k-means; the defaults are those of vq-wav2vec."""

    near: ClassVar[bool] = True

    kind: Literal["nearest"] = "nearest"

    def build(self, inputs: int, blocks: BlocksConfig) -> "NearestFeatures":
        """From features of width `inputs` to codewords of that width."""
        self.check(inputs)
        return NearestFeatures(self, inputs)


@dataclass(frozen=True)
class Coded:
    """Features (B, T, F) quantised.

    states: (B, T, F), what enters the blocks. codes: (B, T, G) int64. distances: means over channels of (sg(z) - ẑ)²
    and of (z - sg(ẑ))², z features and ẑ codewords, (B, T) each; None where codewords are not chosen by distance.
    likely: how likely each code is without noise, (B, T, G, V); None where they are.
    """

    states: Sequence
    codes: Tensor
    distances: tuple[Tensor, Tensor] | None = None
    likely: Tensor | None = None


class QuantisedFeatures(nn.Module, ABC):
    """(B, T, F) -> (B, T, F), of which there are V^G at most."""

    framing = Framing()

    def __init__(self, width: int):
        super().__init__()
        self.width = width

    @abstractmethod
    def forward(self, features: Sequence, past: SubsamplingPast | None = None) -> Sequence:
        """Codewords, whose gradient reaches all that is learned here."""

    @abstractmethod
    def quantise(self, features: Sequence, temperature: float) -> Coded:
        """Codewords with codes and distances; the gradient reaches what the paper's does."""

    @torch.no_grad()
    def codes(self, features: Sequence) -> Sequence:
        """The codes of features (B, T, F), (B, T, G) int64, without noise."""
        with evaluating(self):
            found = self.quantise(features, 1.0)
        return found.states.with_values(found.codes)


class GumbelFeatures(QuantisedFeatures):
    """(B, T, F) -> (B, T, F), by a Gumbel softmax over codes."""

    def __init__(self, config: GumbelConfig, width: int):
        super().__init__(width)
        self.temperature = config.temperature
        hidden = config.expansion * width
        self.quantizer = GumbelQuantizer(width, config.groups, config.codes, width, hidden, config.shared)

    def forward(self, features: Sequence, past: SubsamplingPast | None = None) -> Sequence:
        return self.quantise(features, self.temperature).states

    def quantise(self, features: Sequence, temperature: float) -> Coded:
        clean = not_empty(features).zero_padding()
        shape = clean.values.shape[:2]
        with torch.autocast(clean.device.type, enabled=False):
            found = self.quantizer(_frames(clean, self.quantizer), temperature)
        vectors, codes, likely = (part.unflatten(0, shape) for part in found)
        return Coded(clean.with_values(vectors), codes, likely=likely)


class NearestFeatures(QuantisedFeatures):
    """(B, T, F) -> (B, T, F), by distance."""

    def __init__(self, config: NearestConfig, width: int):
        super().__init__(width)
        self.quantizer = NearestQuantizer(width, config.groups, config.codes, config.shared)

    def forward(self, features: Sequence, past: SubsamplingPast | None = None) -> Sequence:
        clean, found = self._found(features)
        words = found.words + (found.inputs - found.inputs.detach())
        return clean.with_values(words.unflatten(0, clean.values.shape[:2]))

    def quantise(self, features: Sequence, temperature: float) -> Coded:
        clean, found = self._found(features)
        shape = clean.values.shape[:2]
        fits = (found.inputs.detach() - found.words).square().mean(dim=-1).unflatten(0, shape)
        keeps = (found.inputs - found.words.detach()).square().mean(dim=-1).unflatten(0, shape)
        states = clean.with_values(found.copied.unflatten(0, shape))
        return Coded(states, found.codes.unflatten(0, shape), (fits, keeps))

    def _found(self, features: Sequence) -> tuple[Sequence, Nearest]:
        clean = not_empty(features).zero_padding()
        with torch.autocast(clean.device.type, enabled=False):
            return clean, self.quantizer(_frames(clean, self.quantizer))


def _frames(features: Sequence, quantizer: GumbelQuantizer | NearestQuantizer) -> Tensor:
    """All frames of a batch one behind the other, (B · T, F), in the type of the codewords."""
    return features.values.flatten(0, 1).to(quantizer.codes.dtype)
