"""What every objective is: a module that turns a batch into a loss."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor, nn

from isogloss.data.loading import Batch

Kind = Literal["speech", "paired"]


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

    @abstractmethod
    def count(self, batch: Batch) -> int:
        """How many targets `forward` will sum over; cheap, for the global mean is needed first."""

    @abstractmethod
    def forward(self, batch: Batch) -> Loss:
        """The loss of a batch whose audio is (B, S)."""
