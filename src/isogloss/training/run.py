"""What the stages of a run share: where it is written, the model, the data, the machine."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import yaml
from torch import Tensor

from isogloss.data.needs import Needs
from isogloss.errors import IsoglossError
from isogloss.files import write_text
from isogloss.model.model import Model
from isogloss.training.budget import Budget, scaled
from isogloss.training.checkpoint import Checkpoint
from isogloss.training.data import Data
from isogloss.training.development import Development
from isogloss.training.hardware import Machine, sum_over_group
from isogloss.training.recipe import Recipe, StageRecipe
from isogloss.training.streams import Stream

RECIPE = "recipe.yaml"


@dataclass
class Run:
    """The context of a run.

    model: with the best weights of the last stage; a stage that is sharded trains a copy of it. carried: what
    objectives have learned for themselves so far, as `OBJECTIVE/NAME`. labels: that stages have fitted, by name and
    clip. found: the checkpoint to go on from, until its stage has taken it over.
    """

    folder: Path
    recipe: Recipe
    machine: Machine
    data: Data
    model: Model
    development: Development
    found: Checkpoint | None = None
    budget: Budget | None = None
    carried: dict[str, Tensor] = field(default_factory=dict)
    labels: dict[str, dict[str, Tensor]] = field(default_factory=dict)

    @property
    def sharded(self) -> bool:
        """Whether each process holds a part of the weights while a stage trains."""
        return self.recipe.sharding == "full" and self.machine.world > 1

    def streams(self, needs: dict[str, Needs], stage: str) -> dict[str, Stream]:
        """The training clips of each stream of a stage; raises IsoglossError where there are none."""
        return {name: self._labelled(self.data.stream(need, stage), stage) for name, need in needs.items()}

    def _labelled(self, stream: Stream, stage: str) -> Stream:
        """The stream without clips that have no labels."""
        known = [self.labels[name] for name in stream.needs.labels]
        if not known:
            return stream
        labelled = [all(cut.id in labels for labels in known) for cut in stream.clips]
        if not any(labelled):
            names = ", ".join(sorted(stream.needs.labels))
            raise IsoglossError(f'No clip of the stage "{stage}" has the labels {names}; fit them to the same data.')
        return Stream(stream.clips.select(np.array(labelled)), stream.needs)

    def change(self, number: int, stage: StageRecipe) -> None:
        """Let a stage of the recipe be another from now on."""
        stages = list(self.recipe.stages)
        stages[number] = stage
        self.recipe = self.recipe.model_copy(update={"stages": tuple(stages)})
        self.write_recipe()

    def refit(self, ended: int) -> None:
        """Let the stages after the first `ended` that train share what is left of the minutes.

        To be done before the checkpoint is written.
        """
        stages = self.recipe.training
        if self.budget is None or ended == len(stages):
            return
        device = self.machine.device
        share = torch.tensor([self.budget.share(stages, ended)], dtype=torch.float64, device=device)
        share = sum_over_group(share) / self.machine.world  # all processes must take the same steps
        self.recipe = self.recipe.with_training(scaled(stages, ended, float(share)))
        self.write_recipe()

    def write_recipe(self) -> None:
        """`RUN/recipe.yaml`, resolved."""
        if self.machine.rank == 0:
            text = yaml.safe_dump(self.recipe.plain(), sort_keys=False, allow_unicode=True)
            write_text(self.folder / RECIPE, text)
