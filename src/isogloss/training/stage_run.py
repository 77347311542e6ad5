"""One stage of a run: steps, looks at the dev split, checkpoints."""

from __future__ import annotations

import json
import statistics
import time
from collections import Counter
from collections.abc import Callable
from math import ceil
from threading import Event
from typing import Any, TypeVar

import torch

from isogloss.data.plan import Position
from isogloss.errors import IsoglossError
from isogloss.objectives.base import Clock
from isogloss.training import checkpoint as checkpoints
from isogloss.training.development import chosen_by, sentence
from isogloss.training.hardware import gathered, in_any, wait_for_group
from isogloss.training.health import Health
from isogloss.training.interruption import Interrupted, when_terminated
from isogloss.training.journal import Journal
from isogloss.training.learner import Learner
from isogloss.training.memory import OutOfMemory
from isogloss.training.preflight import preflight
from isogloss.training.recipe import StageRecipe
from isogloss.training.reports import Reports
from isogloss.training.run import Run
from isogloss.training.schedule import learning_rate, set_rates
from isogloss.training.stage import keep_buffers, only_trying
from isogloss.training.streams import Source

Result = TypeVar("Result")


class StageRun:
    """One stage of a run.

    number: of the stage in the recipe. start: steps of the run before it.
    """

    def __init__(self, run: Run, journal: Journal, number: int, start: int):
        self.run, self.journal, self.number, self.start = run, journal, number, start
        recipe = run.recipe.stages[number]
        assert isinstance(recipe, StageRecipe)
        self.recipe = recipe
        self.learner = Learner(run, recipe, run.recipe.seed + number, journal.say)
        self.stage = self.learner.stage
        self.streams = run.streams(self.stage.needs(), recipe.name)
        self.source = self._source()
        self.health = Health({name: objective.health() for name, objective in self.stage.objectives.items()})
        self.reports = Reports(self.stage, journal, self.health, run.machine)
        self.best: tuple[float, int] | None = None  # (figure, global step)
        self.done = 0
        self.lowered = False
        if run.found is not None:
            self._restore(run.found.state)

    def train(self) -> None:
        """Train to the last step, then leave the best weights in the model."""
        checked = self._within_memory(lambda: preflight(self.learner, self.streams, self.source, self._measured))
        self.journal.say(checked)
        self.learner.distribute()
        self.journal.stage(self.recipe.name, self.recipe.steps, self.done)
        if self.stage.guards and not self.stage.guards.figures:
            self._look()
        if self.done == 0 and self.recipe.best not in (None, "last", "loss"):
            chosen_by(self.recipe, self._look())  # a figure that does not exist is said now
        asked_to_end = Event()
        try:
            with when_terminated(asked_to_end.set):
                while self.done < self.recipe.steps:
                    self._advance(asked_to_end)
        finally:
            self.source.close()
        self._report_bad_clips()
        wait_for_group()
        found = checkpoints.read_checkpoint(self.run.folder, self.best[1] if self.best else self.step)
        self.run.development.finish(self.learner.end_with(found))

    def measure(self, repeats: int = 5) -> float:
        """Median seconds of the first steps at learning rate 0, after one to warm up; use the run for nothing else."""
        self.learner.distribute()
        for group in self.learner.optimizer.param_groups:
            group["lr"] = 0.0
        return self._within_memory(lambda: self._timed(repeats))

    def _timed(self, repeats: int) -> float:
        learner, times = self.learner, []
        with only_trying(self.stage.model), self.stage.guards.lifted():
            for step in range(1 + repeats):
                work = self.source.work(step)
                began = time.perf_counter()
                learner.accumulate(work, learner.counts(work))
                learner.update()
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

    def _source(self) -> Source:
        """The micro-batches of the stage, from its beginning."""
        run, objectives = self.run, self.stage.objectives
        return Source(
            self.streams,
            {name: (self.stage.streams[name], objective.prepare) for name, objective in objectives.items()},
            run.recipe.data,
            self.recipe,
            labels=run.labels,
            seed=run.recipe.seed + self.number,
            rank=run.machine.rank,
            world=run.machine.world,
            workers=run.machine.readers(run.recipe.data.workers),
            pinned=run.machine.pinned,
        )

    def _advance(self, asked_to_end: Event) -> None:
        """A step, and what follows some: a look at the dev split, a checkpoint, the end that was asked for."""
        self._within_memory(self._step)
        last, ends = self.done == self.recipe.steps, in_any(asked_to_end.is_set())
        if last:
            self.run.refit(ended=self._ended)
        save = last or ends or self.done % self.recipe.save_every == 0
        look = last or self.done % self.recipe.evaluate_every == 0
        if save or look:
            self.reports.write()
        if look:
            save |= self._evaluate()
        if save:
            self._save()
        if ends:
            raise Interrupted(self.step)

    def _step(self) -> None:
        """One step; nothing in it waits for the device."""
        began = time.perf_counter()
        learner, work = self.learner, self.source.work(self.step)
        waited = time.perf_counter() - began
        counts = learner.counts(work)
        rate = learning_rate(self.recipe.optimizer, self.done, self.recipe.steps)
        set_rates(learner.optimizer, self.done, self.recipe.steps)
        # Where weights are parted there is no gradient of one objective alone.
        if self.done % self.recipe.evaluate_every == 0 and len(self.stage.objectives) > 1 and not self.run.sharded:
            pulls = learner.pulls(work.micro[0], counts)
            self.journal.record({"event": "gradients", "stage": self.recipe.name, "step": self.step} | pulls)
        sums = learner.accumulate(work, counts)
        norm = learner.update()
        self.done += 1
        learner.follow(self.done, sums)
        self.reports.add(self.step, self.done, work, sums, norm, rate=rate, began=began, waited=waited)
        self.stage.clock = Clock(self.done, self.recipe.steps)

    def _within_memory(self, work: Callable[[], Result]) -> Result:
        """What `work` gives; where the device's memory runs out, of half as much audio at once, the first time.

        Only a process that is alone can do so: others would wait in vain for its part of this step.
        """
        if self.lowered or self.run.machine.world > 1:
            try:
                return work()
            except OutOfMemory as error:
                mend = f"lower stages.{self.number}.batch_seconds, which is {self.recipe.batch_seconds:g}"
                raise IsoglossError(f"{error}; {mend}, or set model.recompute, and go on with --resume.") from None
        # Copied only where they may be put back: weights of 8 bits are buffers too.
        positions, put_back = self.source.positions, keep_buffers(self.stage.model)
        try:
            return work()
        except OutOfMemory as error:
            said = str(error)
        # Out here nothing holds what was computed any more.
        self.learner.forget()
        torch.cuda.empty_cache()
        put_back()
        self._lower(said, positions)
        return work()

    def _lower(self, said: str, positions: dict[str, Position]) -> None:
        """Take half as much audio at once from here on, in twice as many micro-batches."""
        self.lowered = True
        before = self.source.micro_batches
        half = ceil(1000 * max(self.recipe.seconds.values()) / (2 * before)) / 1000
        self.recipe = self.recipe.model_copy(update={"batch_seconds": half})
        self.run.change(self.number, self.recipe)
        self.reports.write()
        self.journal.say(f"{said}; batch_seconds of the stage {self.recipe.name} is lowered to {half:g}.")
        self.journal.record({"event": "lowered", "stage": self.recipe.name, "step": self.step, "batch_seconds": half})
        self.source.close()
        self.source = self._source()
        self._stand_at(positions, before)

    def _stand_at(self, positions: dict[str, Position], micro_batches: int) -> None:
        """Let the source go on from where it stood when a step was so many micro-batches."""
        now = self.source.micro_batches
        self.source.positions = {
            name: Position(place.round, place.index * now // micro_batches) for name, place in positions.items()
        }
        if now != micro_batches:
            self.journal.say(
                f"{self.recipe.name}: a step is {now} micro-batches instead of {micro_batches}; after step {self.step} "
                "clips come in another order."
            )

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
        with self.learner.as_exported() as stage:
            figures = self.run.development.evaluate(stage)
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
        tensors = self.learner.tensors()
        if self.run.machine.rank > 0:
            if self.run.sharded:
                checkpoints.give_parts(tensors)
            return
        state = {
            "stage": self.number,
            "done": self.done,
            "positions": {name: vars(place) for name, place in self.source.positions.items()},
            "micro_batches": self.source.micro_batches,
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

    def _restore(self, state: dict[str, Any]) -> None:
        self.done = state["done"]
        self.stage.clock = Clock(self.done, self.recipe.steps)
        self.stage.guards.figures, self.stage.guards.opened = state["figures"], state["opened"]
        self.best = tuple(state["best"]) if state["best"] else None
        self.health.restore(state["unusable"], state["health"])
        positions = {name: Position(**place) for name, place in state["positions"].items()}
        self._stand_at(positions, state["micro_batches"])
