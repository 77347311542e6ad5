"""What every objective is: a module that turns a batch into a loss."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field

from pydantic import Field
from torch import Tensor, nn

from isogloss.config import Config
from isogloss.data.loading import Batch, Kind


class BaseConfig(Config):
    """What a stage says about each of its objectives."""

    weight: float = Field(1.0, gt=0, description="weight of this loss in the stage")
    ramp: int = Field(0, ge=0, description="steps in which the weight climbs from zero, once the stage or guard opens")
    guard: float | None = Field(
        None,
        gt=0,
        description="dev CER, of languages with transcripts to learn from, above which this loss is left out",
    )

    @property
    def identifies(self) -> bool:
        """Whether it trains the language head."""
        return False

    @property
    def translates(self) -> bool:
        """Whether it reads what clips say in other languages."""
        return False


@dataclass(frozen=True)
class Loss:
    """A sum over `count` targets, so that micro-batches and devices add up to one big batch.

    total: scalar, what is differentiated. parts: named scalars, detached, summed like `total`
    (a part that is a mean is multiplied by `count`).
    """

    total: Tensor
    count: int
    parts: dict[str, Tensor] = field(default_factory=dict)


class Objective(nn.Module, ABC):
    """Batch -> Loss. All randomness comes from `batch.seed` or the global generator seeded with it."""

    kind: Kind
    transcribes: bool = False
    """Whether it trains what writes transcripts, whose error rate then says which weights are best."""

    def count(self, batch: Batch) -> int:
        """How many targets `forward` will sum over, by default utterances; cheap, the global mean needs it first."""
        return len(batch.ids)

    @abstractmethod
    def forward(self, batch: Batch) -> Loss:
        """The loss of a batch whose audio is (B, S)."""

    def after_step(self) -> None:
        """What follows an optimizer's step: teachers follow."""
