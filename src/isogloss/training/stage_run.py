"""One stage of a run: steps, looks at the dev split, checkpoints."""

from __future__ import annotations

import json
import statistics
import time
from collections import Counter

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from isogloss.data.plan import Position
from isogloss.errors import IsoglossError
from isogloss.model.spec import ModelConfig
from isogloss.objectives.base import Clock
from isogloss.training import checkpoint as checkpoints
from isogloss.training.development import chosen_by, sentence
from isogloss.training.hardware import gathered, share_buffers, sum_over_group
from isogloss.training.health import Health
from isogloss.training.journal import Journal
from isogloss.training.preflight import on_device, preflight
from isogloss.training.recipe import StageRecipe
from isogloss.training.reports import Reports
from isogloss.training.run import Run
from isogloss.training.schedule import Average, build_optimizer, learning_rate, set_rates
from isogloss.training.stage import Counts, Stage, Sums, begin_training, gradient_norms, only_trying, trainable
from isogloss.training.streams import Source, Work


class StageRun:
    """One stage of a run.

    number: of the stage in the recipe. start: steps of the run before it.
    """

    def __init__(self, run: Run, journal: Journal, number: int, start: int):
        self.run, self.journal, self.number, self.start = run, journal, number, start
        recipe = run.recipe.stages[number]
        assert isinstance(recipe, StageRecipe)
        self.recipe = recipe
        torch.manual_seed(run.recipe.seed + number)
        self.stage = Stage(self.recipe, run.model).to(run.machine.device)
        self._take_carried()
        self.stage.begin()
        self.parameters = trainable(self.stage)
        if not self.parameters:
            raise IsoglossError(f'The stage "{self.recipe.name}" freezes every parameter; shorten its freeze list.')
        self.optimizer = build_optimizer(self.recipe, self.parameters)
        decay = self.recipe.optimizer.ema
        self.average = Average(decay, self.parameters) if decay else None
        self.streams = run.streams(self.stage.needs(), self.recipe.name)
        self.source = Source(
            self.streams,
            {name: (self.stage.streams[name], objective.prepare) for name, objective in self.stage.objectives.items()},
            run.recipe.data,
            self.recipe,
            labels=run.labels,
            seed=run.recipe.seed + number,
            rank=run.machine.rank,
            world=run.machine.world,
            workers=run.machine.readers(run.recipe.data.workers),
            pinned=run.machine.pinned,
        )
        self.health = Health({name: objective.health() for name, objective in self.stage.objectives.items()})
        self.reports = Reports(self.stage, journal, self.health, run.machine)
        self.best: tuple[float, int] | None = None  # (figure, global step)
        self.done = 0
        if run.found is not None:
            self._restore(run.found)
        self.forward: nn.Module = self.stage

    def train(self) -> None:
        """Train to the last step, then leave the best weights in the model."""
        self.journal.say(
            preflight(
                self.stage, self.parameters, self.streams, self.source, self.run.machine.precision, self._measured
            )
        )
        self._distribute()
        self.journal.stage(self.recipe.name, self.recipe.steps, self.done)
        if self.stage.guards and not self.stage.guards.figures:
            self._look()
        if self.done == 0 and self.recipe.best not in (None, "last", "loss"):
            chosen_by(self.recipe, self._look())  # a figure that does not exist is said now
        try:
            while self.done < self.recipe.steps:
                self._step()
                last = self.done == self.recipe.steps
                if last:
                    self.run.refit(ended=self._ended)
                save = last or self.done % self.recipe.save_every == 0
                look = last or self.done % self.recipe.evaluate_every == 0
                if save or look:
                    self.reports.write()
                if look:
                    save |= self._evaluate()
                if save and self.run.machine.rank == 0:
                    self._save()
        finally:
            self.source.close()
        self._report_bad_clips()
        self._take_best()
        self.run.development.finish(self.stage)

    def measure(self, repeats: int = 5) -> float:
        """Median seconds of the first steps at learning rate 0, after one to warm up; use the run for nothing else."""
        self._distribute()
        times = []
        for group in self.optimizer.param_groups:
            group["lr"] = 0.0
        with only_trying(self.run.model), self.stage.guards.lifted():
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

    @property
    def _ended(self) -> int:
        """Stages that have trained when this one ends."""
        return sum(isinstance(stage, StageRecipe) for stage in self.run.recipe.stages[: self.number + 1])

    @property
    def _measured(self) -> float | None:
        """Seconds a step takes, where that was measured to fit the run into a time."""
        return self.run.budget.costs[self._ended - 1] if self.run.budget is not None else None

    def _distribute(self) -> None:
        """Let processes share the steps; what went backward before, DDP would take for used by all."""
        if self.run.machine.world > 1:
            # A guard may shut an objective out, and text alone teaches no durations.
            self.forward = DistributedDataParallel(self.stage, find_unused_parameters=True)

    def _step(self) -> None:
        """One step; nothing in it waits for the device."""
        began = time.perf_counter()
        work = self.source.work(self.step)
        waited = time.perf_counter() - began
        counts = self._global_counts(work)
        rate = learning_rate(self.recipe.optimizer, self.done, self.recipe.steps)
        set_rates(self.optimizer, self.done, self.recipe.steps)
        if self.done % self.recipe.evaluate_every == 0 and len(self.stage.objectives) > 1:
            self._compare_gradients(work, counts)
        sums = self._accumulate(work, counts)
        norm = nn.utils.clip_grad_norm_(self.parameters.values(), self.recipe.optimizer.clip)
        # A gradient that is not finite changes nothing, and that is decided on the device.
        self.optimizer.found_inf = (~norm.isfinite()).to(torch.float32)  # type: ignore[attr-defined]
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.stage.after_step()
        self.done += 1
        if self.average is not None:
            self.average.update(self.done)
        self.reports.add(self.step, self.done, work, sums, norm, rate=rate, began=began, waited=waited)
        self.stage.clock = Clock(self.done, self.recipe.steps)

    def _accumulate(self, work: Work, counts: Counts) -> list[Sums]:
        """Forward and backward over the micro-batches; returns what each adds up to."""
        begin_training(self.stage)
        found = []
        for position, micro in enumerate(work.micro):
            if isinstance(self.forward, DistributedDataParallel):
                self.forward.require_backward_grad_sync = position == len(work.micro) - 1
            with self.run.machine.autocast():
                sums: Sums = self.forward(on_device(micro, self.run.machine.device), counts)
            # DDP averages over processes; the loss is a sum over them.
            (sums.total * self.run.machine.world).backward()
            found.append(Sums(sums.total.detach(), sums.terms, sums.stats))
        return found

    def _compare_gradients(self, work: Work, counts: Counts) -> None:
        """Log how hard each objective pulls, on the first micro-batch."""
        begin_training(self.stage)
        micro = on_device(work.micro[0], self.run.machine.device)
        with only_trying(self.run.model), self.run.machine.autocast():
            norms = gradient_norms(self.stage, micro, counts, list(self.parameters.values()))
        self.journal.record({"event": "gradients", "stage": self.recipe.name, "step": self.step} | norms)

    def _global_counts(self, work: Work) -> Counts:
        """Over how much the losses of the whole step are averaged, over micro-batches and processes."""
        local = [self.stage.counts(micro) for micro in work.micro]
        totals = torch.tensor([sum(count[name] for count in local) for name in local[0]], dtype=torch.float64)
        return dict(zip(local[0], sum_over_group(totals).tolist(), strict=True))

    def _report_bad_clips(self) -> None:
        """Say which clips could not be read, and why."""
        found: dict[str, str] = {}
        for text in gathered(json.dumps(self.source.bad_clips())):
            found |= json.loads(text)
        if bad := Counter(found.values()):
            causes = ", ".join(f"{cause} {count}" for cause, count in sorted(bad.items()))
            self.journal.say(f"{self.recipe.name}: clips that could not be read were left out ({causes})")
            self.journal.record({"event": "bad clips", "stage": self.recipe.name, "step": self.step} | bad)

    def _evaluate(self) -> bool:
        """Look at the dev split; True if the weights are the best so far."""
        figure = chosen_by(self.recipe, self._look())
        if figure is None or (self.best is not None and figure >= self.best[0]):
            return False
        self.best = (figure, self.step)
        return True

    def _look(self) -> dict[str, float]:
        """Figures of the dev split with the weights that would be exported."""
        share_buffers(self.run.model)  # each process has gathered its own statistics of features in this step
        self._swap()
        figures = self.run.development.evaluate(self.stage)
        self._swap()
        if figures:
            self.journal.record({"event": "dev", "stage": self.recipe.name, "step": self.step} | figures)
            self.journal.say(sentence(self.recipe.name, self.step, figures))
        if self.stage.guards:
            self._guard(figures)
        return figures

    def _guard(self, figures: dict[str, float]) -> None:
        """Let objectives in or shut them out, and say so."""
        guards, corpora = self.stage.guards, self.run.data.corpora
        changed = guards.judge(guards.relevant(self.recipe.name, figures, corpora), self.done)
        ended = self.done == self.recipe.steps
        for name in guards.limits if ended or self.done == 0 else changed:
            self.journal.say(guards.sentence(name, figures, corpora, ended))

    def _save(self) -> None:
        tensors = {
            "model": self.run.model.state_dict(),
            "objectives": self.run.carried | self._own_tensors(),
            "optimizer": checkpoints.optimizer_tensors(self.optimizer, self.parameters),
            "average": self.average.values if self.average else {},
        }
        state = {
            "stage": self.number,
            "done": self.done,
            "positions": {name: vars(place) for name, place in self.source.positions.items()},
            "best": self.best,
            "figures": self.stage.guards.figures,
            "opened": self.stage.guards.opened,
            "unusable": self.health.unusable,
            "health": {name: list(values) for name, values in self.health.recent.items()},
            "precision": "bf16" if self.run.machine.precision == torch.bfloat16 else "fp32",
            "fingerprint": self.run.data.fingerprint,
            "model": self.run.model.config.plain(),
            "recipe": self.run.recipe.plain(),
        }
        checkpoints.save_checkpoint(self.run.folder, self.step, tensors, state)
        checkpoints.prune(self.run.folder, self.run.recipe.keep, self.best[1] if self.best else None)

    def _restore(self, found: checkpoints.Checkpoint) -> None:
        state = found.state
        self._load_weights(found)
        self.run.model.config = ModelConfig.parse(state["model"], str(found.folder))
        checkpoints.restore_optimizer(self.optimizer, self.parameters, found.tensors("optimizer"))
        if self.average is not None:
            for name, value in found.tensors("average").items():
                self.average.values[name].copy_(value)
        self.done = state["done"]
        self.stage.clock = Clock(self.done, self.recipe.steps)
        self.stage.guards.figures, self.stage.guards.opened = state["figures"], state["opened"]
        self.best = tuple(state["best"]) if state["best"] else None
        self.health.restore(state["unusable"], state["health"])
        self.source.positions = {name: Position(**place) for name, place in state["positions"].items()}

    def _load_weights(self, found: checkpoints.Checkpoint) -> None:
        self.run.model.load_state_dict(found.tensors("model"))
        self.run.carried |= found.tensors("objectives")
        self._take_carried()

    def _own_tensors(self) -> dict[str, torch.Tensor]:
        """What the objectives hold themselves, as `OBJECTIVE/NAME`."""
        return {
            f"{name}/{key}": tensor
            for name, objective in self.stage.objectives.items()
            for key, tensor in objective.state_dict().items()
        }

    def _take_carried(self) -> None:
        """Objectives that an earlier stage trained under the same name go on from there.

        Slow copies of the model are not among that: each stage makes them anew, of its best weights. What had
        another shape there, as of other symbols or with other options, is begun anew, and the journal says so.
        """
        for name, objective in self.stage.objectives.items():
            start = f"{name}/"
            mine = {k.removeprefix(start): v for k, v in self.run.carried.items() if k.startswith(start)}
            own = objective.state_dict()
            if unlike := [key for key, value in mine.items() if key in own and own[key].shape != value.shape]:
                self.journal.say(f"{self.recipe.name}: {name} begins anew, for {unlike[0]} had another shape before.")
                continue
            objective.load_state_dict(mine, strict=False)

    def _take_best(self) -> None:
        """Put the weights of the best step into the model: averaged ones where there is an average."""
        self.run.machine.wait()
        found = checkpoints.read_checkpoint(self.run.folder, self.best[1] if self.best else self.step)
        self._load_weights(found)
        with torch.no_grad():
            for name, value in found.tensors("average").items():
                self.parameters[name].copy_(value)
        self.run.carried |= self._own_tensors()
        # Slow copies of the model end with their stage.
        ended = tuple(f"{name}/ema." for name in self.stage.objectives)
        for name in [name for name in self.run.carried if name.startswith(ended)]:
            del self.run.carried[name]

    def _swap(self) -> None:
        if self.average is not None:
            self.average.swap()
