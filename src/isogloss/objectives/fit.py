"""What is fitted to data instead of trained step by step: clusters, statistics, codebooks.

A stage of a recipe that fits names one of these. What it finds is an artefact of the run: named tensors, labels of
clips and figures, in `RUN/artefacts/NAME`, from where later stages take it.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, field

from pydantic import Field
from torch import Tensor

from isogloss.config import Config
from isogloss.data.loading import Batch
from isogloss.data.needs import Needs
from isogloss.model.model import Model
from isogloss.model.spec import ModelSpec


@dataclass(frozen=True)
class Artefact:
    """What was fitted: tensors by name, and figures that tell people how well it fits."""

    tensors: dict[str, Tensor]
    figures: dict[str, float] = field(default_factory=dict)


class FitConfig(Config, ABC):
    """Fields of everything a stage can fit."""

    name: str = Field(description="name of what is fitted")

    @abstractmethod
    def build(self, spec: ModelSpec) -> "Fit":
        """What fits it for a model; raises IsoglossError where it is of no use to this one."""


class Fit(ABC):
    """Batches -> Artefact, and what becomes of the model and of clips with it.

    labels: whether it labels clips.
    """

    needs: Needs = Needs()
    labels: bool = False

    @abstractmethod
    def fit(self, model: Model, batches: Iterable[Batch]) -> Artefact:
        """Fit to the training clips; `batches` may be gone through more than once, always in the same order."""

    def label(self, model: Model, artefact: Artefact, batch: Batch) -> list[Tensor]:
        """The labels of each clip of a batch, (T,) int64: of those for training and of the dev split."""
        raise NotImplementedError

    def apply(self, model: Model, artefact: Artefact) -> None:  # noqa: B027  labels need nothing of the model
        """Put into the model what belongs there."""
