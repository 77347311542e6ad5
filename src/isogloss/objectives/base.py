"""What every objective is: a module that turns a batch into a loss of named terms.

An objective owns the parameters that only it needs; the model is handed to it with every batch. What it learns from,
how far a stage is, what stops a run and what is measured on the dev split are its own to say; `training/` asks.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence as ListOf
from dataclasses import dataclass, field
from math import inf
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from isogloss.config import Config
from isogloss.data.loading import Batch
from isogloss.data.needs import Needs
from isogloss.heads.base import Target
from isogloss.model.model import Model
from isogloss.model.spec import ModelSpec
from isogloss.nn.ema import EMA

if TYPE_CHECKING:
    from lhotse.cut import MonoCut


class BaseConfig(Config, ABC):
    """Fields of every objective in a stage.

    Self-supervised methods say from which paper they are, which shipped recipe trains them, and their sizes: by name,
    the preset of an encoder, and what the objective changes for it.
    """

    paper: ClassVar[str] = ""
    recipe: ClassVar[str] = ""
    presets: ClassVar[dict[str, tuple[str, dict[str, Any]]]] = {}

    name: str = Field(description="name of the objective")
    stream: str | None = Field(
        None, description="stream it draws from; those of one name share clips; default speech, paired or text"
    )
    weight: float = Field(1.0, gt=0, description="weight of this loss in the stage")
    ramp: int = Field(
        0, ge=0, description="steps in which the weight rises from zero, once the stage or its guard opens"
    )
    guard: dict[str, float] = Field(
        {}, description="limits of dev figures above which this loss is left out: {cer: 0.8}"
    )

    def trains(self, head: str, target: Target) -> bool:
        """Whether it trains a head of the model that predicts `target`."""
        return False

    @property
    def translates(self) -> bool:
        """Whether it learns from what clips say in other languages."""
        return False

    @abstractmethod
    def build(self, spec: ModelSpec) -> "Objective":
        """The objective for a model."""


@dataclass(frozen=True)
class Clock:
    """How far a stage is: `step` of its `steps` are done."""

    step: int = 0
    steps: int = 1

    @property
    def share(self) -> float:
        """The share of the stage that is done, 0 to 1."""
        return self.step / max(1, self.steps)

    def falling(self, values: tuple[float, float]) -> float:
        """From the first value to the last, geometrically, over the first seven tenths of the stage."""
        first, last = values
        return first * (last / first) ** min(1.0, self.share / 0.7)


@dataclass(frozen=True)
class Mean:
    """A mean that adds up over micro-batches and processes: a sum, and over how many."""

    total: Tensor
    count: Tensor | float


@dataclass(frozen=True)
class Term(Mean):
    """A term of a loss: its sum is differentiated, and divided by the count of the whole step."""

    weight: float = 1.0

    def detached(self) -> "Term":
        """The same without its graph, for the log."""
        return Term(self.total.detach(), self.count, self.weight)


@dataclass(frozen=True)
class Loss:
    """Σ over terms of weight · total / count, and statistics for the log, which have no gradient.

    kept: rows (N, E) without a gradient that the objective gets back when the step is done, see `remember`.
    """

    terms: dict[str, Term]
    stats: dict[str, Mean] = field(default_factory=dict)
    kept: Tensor | None = None

    @property
    def value(self) -> Tensor:
        """The loss of this batch alone, a scalar."""
        terms = [term.weight * term.total / max(1.0, float(term.count)) for term in self.terms.values()]
        return torch.stack(terms).sum()


@dataclass(frozen=True)
class Alarm:
    """What stops a run: a statistic whose mean over the last steps leaves its bounds.

    said: what is wrong and what helps, with {value}, {step} and {hours}, those of audio heard. It counts after
    `patience` steps, or when so many `hours` were heard. only_warns: it is said once, and the run goes on.
    """

    stat: str
    said: str
    least: float = -inf
    most: float = inf
    patience: int = 0
    hours: float = inf
    only_warns: bool = False


class Objective(nn.Module, ABC):
    """Model, batch, clock -> Loss.

    needs: what it learns from. batchwise: terms that compare the clips of a micro-batch with each other, and therefore
    are no sums over utterances; all other terms of a batch are those of its halves together. ema: a slow copy of what
    is `followed`, `teacher_of` the model ("" is all of it), for those that ask for a `teacher`. warms_up: the copy
    follows faster in the beginning. ends: beginnings of the names of buffers that end with their stage. What `prepare`
    draws comes from `batch.draws`, one generator a clip, so that a clip is the same in every batch; what `forward`
    draws, from the global generator, which is seeded with `batch.seed` before.
    """

    needs: Needs = Needs()
    batchwise: frozenset[str] = frozenset()
    teacher_of: str = ""
    warms_up: bool = True
    ends: tuple[str, ...] = ("ema.",)

    def __init__(self, config: BaseConfig, spec: ModelSpec):
        super().__init__()
        self.spec = spec
        self.ema: EMA[nn.Module] | None = None

    @abstractmethod
    def forward(self, model: Model, batch: Batch, clock: Clock) -> Loss:
        """The loss of a batch whose audio is (B, S)."""

    def prepare(self, batch: Batch, training: bool) -> Batch:
        """What can be done beside reading, without the model: symbols, masks, synthetic speech, as `batch.extras`.

        training: False for the dev split, of which nothing is drawn by chance that need not be.
        """
        return batch

    def counts(self, batch: Batch) -> dict[str, int]:
        """The counts of terms that are no means over utterances, by name, known before `forward`; {} if all are.

        The mean over all micro-batches and processes needs them first.
        """
        return {}

    def teacher(self, clock: Clock) -> float | None:
        """The decay with which a slow copy of the model (`self.ema`) follows it after this step; None = no copy."""
        return None

    def followed(self, model: Model) -> nn.Module:
        """What `self.ema` is a slow copy of."""
        return model.get_submodule(self.teacher_of)

    def remember(self, kept: Tensor) -> None:
        """Take in what the losses of a step have `kept`, after it: (N, E), in the order of its micro-batches.

        Of all processes, and the same in each of them.
        """

    def health(self) -> tuple[Alarm, ...]:
        """What should stop a run."""
        return ()

    def check(self, cuts: ListOf["MonoCut"]) -> None:
        """Raise IsoglossError for data from which it cannot learn, before the first step."""

    @property
    def dev_needs(self) -> Needs:
        """The dev clips that `figures` wants."""
        return self.needs

    def figures(self, model: Model, batches: ListOf[Batch]) -> dict[str, Mean]:
        """Figures of the dev split beside the losses: `cer/ro`; `cer` is then the mean over what stands behind /."""
        return {}

    def finish(self, model: Model, batches: ListOf[Batch]) -> None:
        """What is fitted on the dev split when a stage has ended; batches as for `figures`."""
