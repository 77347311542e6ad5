"""The loop: a recipe -> a trained model folder. It knows no method, only `batch -> loss`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist
import yaml
from rich.console import Console
from torch import Tensor

from isogloss.data.loading import Kind
from isogloss.data.manifests import fingerprint, source_of
from isogloss.errors import IsoglossError, did_you_mean
from isogloss.files import write_text
from isogloss.model.folder import save_model
from isogloss.training import checkpoint as checkpoints
from isogloss.training.budget import Budget, scaled
from isogloss.training.build import build_model
from isogloss.training.card import describe
from isogloss.training.development import Development
from isogloss.training.hardware import choose_device, choose_precision, start_group, sum_over_group
from isogloss.training.journal import Journal
from isogloss.training.recipe import Recipe
from isogloss.training.source import forget_held_out, read_data, read_texts, transcribed, unspoken
from isogloss.training.stage import Stage
from isogloss.training.stage_run import StageRun

if TYPE_CHECKING:
    from lhotse.cut import MonoCut

RECIPE = "recipe.yaml"


def train(
    recipe: Recipe,
    run: Path,
    *,
    resume: bool = False,
    minutes: float | None = None,
    console: Console | None = None,
) -> Path:
    """Train a recipe into the folder `run`; returns the model folder `run/model`.

    With `resume`, goes on from the newest checkpoint exactly as if the run had not been cut off.
    With `minutes`, a new run takes as many steps as fit into that time on this machine, each stage
    its share, and a resumed one as many as it was going to; `run/recipe.yaml` says how many they are.
    """
    trainer = Trainer(recipe, run, resume, console or Console(stderr=True), fitted=minutes is not None)
    if minutes is not None and trainer.found is None:
        trainer.fit(minutes)
    return trainer.run_all()


class Trainer:
    """The state of a run: model, data, where it stands."""

    def __init__(self, recipe: Recipe, run: Path, resume: bool, console: Console, fitted: bool = False):
        self.rank, self.world = start_group()
        self.folder, self.console = run, console
        self.budget: Budget | None = None
        self.found = checkpoints.to_resume(run, recipe.plain(), resume, fitted)
        self.recipe = Recipe.parse(self.found.state["recipe"], str(run)) if self.found else recipe
        self.device = choose_device(recipe.device)
        self.precision = self._precision()
        self.train = read_data(recipe.data, "train")
        if not self.train:
            raise IsoglossError("The data hold no clip of the train split; prepare them with isogloss prepare.")
        if any(objective.translates for stage in recipe.stages for objective in stage.objectives):
            forget_held_out(self.train, recipe.data)
        self.paired = transcribed(self.train)
        reads = any("text" in stage.seconds for stage in recipe.stages)
        self.texts = read_texts(recipe.data) if reads else []
        self.fingerprint = fingerprint([*self.train, *self.texts])
        torch.manual_seed(recipe.seed)
        self.model = build_model(recipe, self.train, self.paired, self.texts).to(self.device)
        self.development = Development(self.model, read_data(recipe.data, "dev"), self.precision)
        if recipe.compile:
            self.model.encoder.stack.compile(dynamic=True)
        self.carried: dict[str, Tensor] = {}  # objectives' own tensors from earlier stages
        self._check_data()

    def run_all(self) -> Path:
        """All stages, then the export."""
        self._try_stages()
        self._write_recipe()
        journal = Journal(
            self.folder,
            resume_at=self.found.state["step"] if self.found else None,
            speak=self.rank == 0,
            tensorboard=self.recipe.tensorboard,
            console=self.console,
        )
        with journal:
            start = 0
            for number in range(len(self.recipe.stages)):
                if self.found is None or self.found.state["stage"] <= number:
                    StageRun(self, journal, number, start).run()
                    self.found = None
                start += self.recipe.stages[number].steps
        if self.rank == 0:
            calibration = self.development.calibration()
            self.model.config = self.model.config.model_copy(update={"calibration": calibration})
            card = describe(self.recipe, self.train, self.paired, self.texts)
            frozen = all("encoder.stack" in stage.freeze for stage in self.recipe.stages)
            adapts = self.recipe.model.adapters and self.recipe.model.keep == "all" and frozen
            base = self.recipe.model.start_from if adapts else None
            save_model(self.model, self.folder / "model", card, self.recipe.plain(), base)
        if dist.is_initialized():
            dist.barrier()
        return self.folder / "model"

    def fit(self, minutes: float) -> None:
        """Scale the steps of all stages so that together they take about `minutes` on this machine."""
        journal = Journal(self.folder, resume_at=None, speak=False, tensorboard=False, console=self.console)
        # One after the other: a stage decides which parameters want a gradient.
        costs = [StageRun(self, journal, number, 0).measure() for number in range(len(self.recipe.stages))]
        seconds = torch.tensor(costs, dtype=torch.float64, device=self.device)
        self.budget = Budget(minutes, (sum_over_group(seconds) / self.world).tolist())
        self.refit(ended=0)

    def refit(self, ended: int) -> None:
        """Let the stages that follow share what is left of the minutes; to be done before the checkpoint is written."""
        if self.budget is None or ended == len(self.recipe.stages):
            return
        share = torch.tensor([self.budget.share(self.recipe.stages, ended)], dtype=torch.float64, device=self.device)
        share = sum_over_group(share) / self.world  # all processes must take the same steps
        stages = scaled(self.recipe.stages, ended, float(share))
        self.recipe = self.recipe.model_copy(update={"stages": stages})
        self._write_recipe()

    def _try_stages(self) -> None:
        """What a later stage lacks is told now, and not after hours of the stages before it."""
        for stage in self.recipe.stages:
            Stage(stage, self.model)
            for kind in stage.seconds:
                self.cuts(kind, stage.name)

    def cuts(self, kind: Kind, stage: str) -> list[MonoCut]:
        """The data of a kind; raises IsoglossError, for a stage, where there are none."""
        cuts = {"speech": self.train, "paired": self.paired, "text": self.texts}[kind]
        if not cuts:
            wanted = {"paired": "transcribed speech", "text": "unspoken text"}.get(kind, "speech")
            mend = {"text": "prepare them with --text"}.get(kind, "prepare them with their transcripts")
            if kind == "text" and unspoken(self.recipe.data.folders):
                mend = "all of it is held out, too long for data.longest, or in other languages than data.languages"
            raise IsoglossError(f'The stage "{stage}" needs {wanted} and the data hold none; {mend}.')
        return cuts

    def _write_recipe(self) -> None:
        if self.rank == 0:
            write_text(self.folder / RECIPE, yaml.safe_dump(self.recipe.plain(), sort_keys=False, allow_unicode=True))

    def _precision(self) -> torch.dtype:
        """Decided once a run: what `auto` measured is kept over a resume."""
        name = self.found.state["precision"] if self.found else self.recipe.precision
        return choose_precision(name, self.device)

    def _check_data(self) -> None:
        sources = {source_of(cut) for cut in [*self.train, *self.texts]}
        for name in self.recipe.data.weights.keys() - sources:
            near, known = did_you_mean(name, sources), ", ".join(sorted(sources))
            raise IsoglossError(f'data.weights: no corpus is named "{name}".{near} There are: {known}.')
        if self.found is not None and self.found.state["fingerprint"] != self.fingerprint:
            raise IsoglossError(
                f"The data changed since {self.folder} was trained; restore them, or choose another --out."
            )
