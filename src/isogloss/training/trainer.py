"""The loop: a recipe -> a trained model folder. It knows no method, only `batch -> loss`."""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import yaml
from rich.console import Console
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from isogloss.data.plan import Position
from isogloss.errors import IsoglossError
from isogloss.files import write_text
from isogloss.model.folder import save_model
from isogloss.objectives.base import Kind
from isogloss.training import checkpoint as checkpoints
from isogloss.training.budget import Budget, scaled
from isogloss.training.build import build_model
from isogloss.training.card import describe
from isogloss.training.development import Development, sentence
from isogloss.training.hardware import autocast, choose_device, choose_precision, start_group, sum_over_group
from isogloss.training.health import Health, require_gradients
from isogloss.training.journal import Journal
from isogloss.training.preflight import preflight
from isogloss.training.recipe import Recipe, StageRecipe
from isogloss.training.schedule import Average, build_optimizer, learning_rate, set_rates
from isogloss.training.source import Source, Work, fingerprint, read_data, transcribed
from isogloss.training.stage import Stage, begin_training, only_trying, trainable

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
        self.paired = transcribed(self.train)
        self.fingerprint = fingerprint(self.train)
        torch.manual_seed(recipe.seed)
        self.model = build_model(recipe, self.train, self.paired).to(self.device)
        self.development = Development(self.model, read_data(recipe.data, "dev"), self.precision)
        if recipe.compile:
            self.model.encoder.stack.compile(dynamic=True)
        self.carried: dict[str, Tensor] = {}  # objectives' own tensors from earlier stages
        self._check_data()

    def run_all(self) -> Path:
        """All stages, then the export."""
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
            card = describe(self.recipe, self.train, self.paired, self.fingerprint)
            base = self.recipe.model.start_from if self.recipe.model.adapters else None
            save_model(self.model, self.folder / "model", card, self.recipe.plain(), base)
        if dist.is_initialized():
            dist.barrier()
        return self.folder / "model"

    def fit(self, minutes: float) -> None:
        """Scale the steps of all stages so that together they take about `minutes` on this machine."""
        journal = Journal(self.folder, resume_at=None, speak=False, tensorboard=False, console=self.console)
        runs = [StageRun(self, journal, number, 0) for number in range(len(self.recipe.stages))]
        seconds = torch.tensor([run.measure() for run in runs], dtype=torch.float64, device=self.device)
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

    def _write_recipe(self) -> None:
        if self.rank == 0:
            write_text(self.folder / RECIPE, yaml.safe_dump(self.recipe.plain(), sort_keys=False, allow_unicode=True))

    def _precision(self) -> torch.dtype:
        """Decided once a run: what `auto` measured is kept over a resume."""
        name = self.found.state["precision"] if self.found else self.recipe.precision
        return choose_precision(name, self.device)

    def _check_data(self) -> None:
        if self.found is not None and self.found.state["fingerprint"] != self.fingerprint:
            raise IsoglossError(
                f"The data changed since {self.folder} was trained; restore them, or choose another --out."
            )


class StageRun:
    """One stage of a run."""

    def __init__(self, trainer: Trainer, journal: Journal, number: int, start: int):
        self.trainer, self.journal, self.number, self.start = trainer, journal, number, start
        self.recipe: StageRecipe = trainer.recipe.stages[number]
        torch.manual_seed(trainer.recipe.seed + number)
        self.stage = Stage(self.recipe, trainer.model).to(trainer.device)
        self._take_carried()
        self.parameters = trainable(self.stage, self.recipe.freeze, trainer.model)
        if not self.parameters:
            raise IsoglossError(f'The stage "{self.recipe.name}" freezes every parameter; shorten its freeze list.')
        self.optimizer = build_optimizer(self.recipe, self.parameters)
        decay = self.recipe.optimizer.ema
        self.average = Average(decay, self.parameters) if decay else None
        self.source = Source(
            {kind: self._cuts(kind) for kind in self.recipe.seconds},
            trainer.recipe.data,
            self.recipe,
            seed=trainer.recipe.seed + number,
            rank=trainer.rank,
            world=trainer.world,
        )
        self.health = Health()
        self.best: tuple[float, int] | None = None  # (figure, global step)
        self.done = 0
        if trainer.found is not None:
            self._restore(trainer.found)
        self.forward: nn.Module = self.stage
        if trainer.world > 1:
            self.forward = DistributedDataParallel(self.stage)

    def run(self) -> None:
        """Train to the last step, then leave the best weights in the model."""
        self.journal.say(preflight(self.trainer.model, self.stage, self.recipe, self.source, self.trainer.precision))
        self.journal.stage(self.recipe.name, self.recipe.steps, self.done)
        try:
            while self.done < self.recipe.steps:
                self._step()
                last = self.done == self.recipe.steps
                if last:
                    self.trainer.refit(ended=self.number + 1)
                save = last or self.done % self.recipe.save_every == 0
                if last or self.done % self.recipe.evaluate_every == 0:
                    save |= self._evaluate()
                if save and self.trainer.rank == 0:
                    self._save()
        finally:
            self.source.close()
        self._take_best()

    def measure(self, repeats: int = 5) -> float:
        """Median seconds of the first steps at learning rate 0, after one to warm up; use the run for nothing else."""
        times = []
        for group in self.optimizer.param_groups:
            group["lr"] = 0.0
        with only_trying(self.trainer.model):
            for step in range(1 + repeats):
                work = self.source.work(step)
                began = time.perf_counter()
                self._accumulate(work, self._global_counts(work))
                nn.utils.clip_grad_norm_(self.parameters.values(), self.recipe.optimizer.clip)
                self.optimizer.step()
                self.optimizer.zero_grad(set_to_none=True)
                times.append(time.perf_counter() - began)
        self.source.close()
        return statistics.median(times[1:])

    @property
    def step(self) -> int:
        """Steps since the run began."""
        return self.start + self.done

    def _step(self) -> None:
        began = time.perf_counter()
        work = self.source.work(self.step)
        counts = self._global_counts(work)
        rate = learning_rate(self.recipe.optimizer, self.done, self.recipe.steps)
        set_rates(self.optimizer, self.done, self.recipe.steps)
        sums = self._accumulate(work, counts)
        norm = float(nn.utils.clip_grad_norm_(self.parameters.values(), self.recipe.optimizer.clip))
        if self.done == 0:
            require_gradients(self._gradient_norms(), self.step)
        ids = [name for micro in work.micro for batch in micro.values() for name in batch.ids]
        usable = self.health.usable(self.step, norm, ids)
        if usable:
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.done += 1
        if self.average is not None:
            self.average.update(self.done)
        self._report(work, sums, counts, norm, rate, usable, time.perf_counter() - began)

    def _accumulate(self, work: Work, counts: dict[str, int]) -> dict[str, Tensor]:
        """Forward and backward over the micro-batches; returns the summed parts."""
        begin_training(self.stage, self.recipe.freeze, self.trainer.model)
        sums: dict[str, Tensor] = {}
        for position, micro in enumerate(work.micro):
            if isinstance(self.forward, DistributedDataParallel):
                self.forward.require_backward_grad_sync = position == len(work.micro) - 1
            on_device = {kind: batch.to(self.trainer.device) for kind, batch in micro.items()}
            with autocast(self.trainer.device, self.trainer.precision):
                result = self.forward(on_device, counts)
            # DDP averages over processes; the loss is a sum over them.
            (result.total * self.trainer.world).backward()
            for name, value in result.parts.items():
                sums[name] = sums[name] + value if name in sums else value
        return sums

    def _global_counts(self, work: Work) -> dict[str, int]:
        """Targets of the whole step, over micro-batches and processes."""
        local = [self.stage.counts(micro) for micro in work.micro]
        names = list(self.stage.objectives)
        totals = torch.tensor([sum(count[name] for count in local) for name in names], device=self.trainer.device)
        return dict(zip(names, sum_over_group(totals).tolist(), strict=True))

    def _report(
        self,
        work: Work,
        sums: dict[str, Tensor],
        counts: dict[str, int],
        norm: float,
        rate: float,
        usable: bool,
        seconds: float,
    ) -> None:
        """Average the parts over all processes, check health, write the log."""
        heard = sum(batch.seconds for micro in work.micro for batch in micro.values())
        values = torch.tensor([*map(float, sums.values()), heard], dtype=torch.float64, device=self.trainer.device)
        *totals, heard = sum_over_group(values).tolist()
        parts = {name: total / max(1, counts[name.split("/")[0]]) for name, total in zip(sums, totals, strict=True)}
        loss = sum(self.stage.weights[name] * parts[f"{name}/loss"] for name in self.stage.objectives)
        if usable:
            self.health.check(self.done, {name.split("/")[1]: value for name, value in parts.items()})
        self.journal.step(
            {"event": "step", "stage": self.recipe.name, "step": self.step, "loss": loss}
            | parts
            | {"norm": norm, "rate": rate, "heard": heard, "speed": heard / seconds, "skipped": not usable}
        )

    def _evaluate(self) -> bool:
        """Look at the dev split with the weights that would be exported; True if they are the best so far."""
        if self.trainer.rank:
            return False
        self._swap()
        figures = self.trainer.development.evaluate(self.stage)
        self._swap()
        if not figures:
            return False
        self.journal.record({"event": "dev", "stage": self.recipe.name, "step": self.step} | figures)
        self.journal.say(sentence(self.recipe.name, self.step, figures))
        figure = figures.get("cer", figures["loss"])
        if self.best is not None and figure >= self.best[0]:
            return False
        self.best = (figure, self.step)
        return True

    def _save(self) -> None:
        objectives = self.trainer.carried | {
            f"{name}/{key}": tensor
            for name, objective in self.stage.objectives.items()
            for key, tensor in checkpoints.own_tensors(objective, self.trainer.model).items()
        }
        tensors = {
            "model": self.trainer.model.state_dict(),
            "objectives": objectives,
            "optimizer": checkpoints.optimizer_tensors(self.optimizer, self.parameters),
            "average": self.average.values if self.average else {},
        }
        state = {
            "stage": self.number,
            "done": self.done,
            "positions": {kind: vars(place) for kind, place in self.source.positions.items()},
            "best": self.best,
            "unusable": self.health.unusable,
            "health": {name: list(values) for name, values in self.health.recent.items()},
            "precision": "bf16" if self.trainer.precision == torch.bfloat16 else "fp32",
            "fingerprint": self.trainer.fingerprint,
            "recipe": self.trainer.recipe.plain(),
        }
        checkpoints.save_checkpoint(self.trainer.folder, self.step, tensors, state)
        checkpoints.prune(self.trainer.folder, self.trainer.recipe.keep, self.best[1] if self.best else None)

    def _restore(self, found: checkpoints.Checkpoint) -> None:
        state = found.state
        self._load_weights(found)
        checkpoints.restore_optimizer(self.optimizer, self.parameters, found.tensors("optimizer"))
        if self.average is not None:
            for name, value in found.tensors("average").items():
                self.average.values[name].copy_(value)
        self.done = state["done"]
        self.best = tuple(state["best"]) if state["best"] else None
        self.health.restore(state["unusable"], state["health"])
        self.source.positions = {kind: Position(**place) for kind, place in state["positions"].items()}

    def _load_weights(self, found: checkpoints.Checkpoint) -> None:
        self.trainer.model.load_state_dict(found.tensors("model"))
        self.trainer.carried |= found.tensors("objectives")
        self._take_carried()

    def _take_carried(self) -> None:
        """Objectives that an earlier stage trained under the same name go on from there."""
        for name, objective in self.stage.objectives.items():
            start = f"{name}/"
            mine = {k.removeprefix(start): v for k, v in self.trainer.carried.items() if k.startswith(start)}
            objective.load_state_dict(mine, strict=False)

    def _take_best(self) -> None:
        """Put the weights of the best step into the model: averaged ones where there is an average."""
        if dist.is_initialized():
            dist.barrier()
        step = self._shared_best_step()
        found = checkpoints.read_checkpoint(self.trainer.folder, step)
        self._load_weights(found)
        with torch.no_grad():
            for name, value in found.tensors("average").items():
                self.parameters[name].copy_(value)

    def _shared_best_step(self) -> int:
        """The best step as the first process knows it, which alone evaluates."""
        step = torch.tensor([self.best[1] if self.best else self.step], device=self.trainer.device)
        if dist.is_initialized():
            dist.broadcast(step, 0)
        return int(step)

    def _swap(self) -> None:
        if self.average is not None:
            self.average.swap()

    def _gradient_norms(self) -> dict[str, float]:
        return {
            name: 0.0 if parameter.grad is None else float(parameter.grad.abs().sum())
            for name, parameter in self.parameters.items()
        }

    def _cuts(self, kind: Kind) -> list[Any]:
        cuts = self.trainer.paired if kind == "paired" else self.trainer.train
        if not cuts:
            raise IsoglossError(
                f'The stage "{self.recipe.name}" needs transcribed speech and the data hold none; '
                "prepare them with their transcripts."
            )
        return cuts
