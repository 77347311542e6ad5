"""What the stages of a run share: where it is written, the model, the data, the machine."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch
import yaml
from torch import Tensor

from isogloss.files import write_text
from isogloss.model.model import Model
from isogloss.training.budget import Budget, scaled
from isogloss.training.checkpoint import Checkpoint
from isogloss.training.data import Data
from isogloss.training.development import Development
from isogloss.training.hardware import Machine, sum_over_group
from isogloss.training.recipe import Recipe
from isogloss.training.streams import Stream

RECIPE = "recipe.yaml"


@dataclass
class Run:
    """The context of a run.

    carried: what objectives have learned for themselves so far, as `OBJECTIVE/NAME`. labels: that stages have fitted,
    by name and clip. found: the checkpoint to go on from, until its stage has taken it over.
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

    def streams(self, needs: dict[str, object], stage: str) -> dict[str, Stream]:
        """What each stream of a stage draws from."""
        raise NotImplementedError

    def refit(self, ended: int) -> None:
        """Let the stages that follow share what is left of the minutes; to be done before the checkpoint is written."""
        if self.budget is None or not self.recipe.training[ended:]:
            return
        share = torch.tensor(
            [self.budget.share(self.recipe.training, ended)], dtype=torch.float64, device=self.machine.device
        )
        share = sum_over_group(share) / self.machine.world  # all processes must take the same steps
        self.recipe = self.recipe.with_steps(scaled(self.recipe.training, ended, float(share)))
        self.write_recipe()

    def write_recipe(self) -> None:
        """`RUN/recipe.yaml`, resolved."""
        if self.machine.rank == 0:
            text = yaml.safe_dump(self.recipe.plain(), sort_keys=False, allow_unicode=True)
            write_text(self.folder / RECIPE, text)
