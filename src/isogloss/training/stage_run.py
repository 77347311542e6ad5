"""One stage of a run: steps, looks at the dev split, checkpoints."""

from __future__ import annotations

import statistics
import time
from functools import cached_property
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from isogloss.data.manifests import language_of, source_of
from isogloss.data.plan import Position
from isogloss.errors import IsoglossError
from isogloss.nn.ema import Follower
from isogloss.training import checkpoint as checkpoints
from isogloss.training.development import sentence
from isogloss.training.hardware import autocast, sum_over_group
from isogloss.training.health import Health, require_gradients
from isogloss.training.journal import Journal
from isogloss.training.preflight import preflight
from isogloss.training.recipe import StageRecipe
from isogloss.training.schedule import Average, build_optimizer, learning_rate, set_rates
from isogloss.training.source import Source, Work
from isogloss.training.stage import Stage, begin_training, gradient_norms, only_trying, trainable

if TYPE_CHECKING:
    from isogloss.training.trainer import Trainer


class StageRun:
    """One stage of a run."""

    def __init__(self, trainer: Trainer, journal: Journal, number: int, start: int):
        self.trainer, self.journal, self.number, self.start = trainer, journal, number, start
        self.recipe: StageRecipe = trainer.recipe.stages[number]
        torch.manual_seed(trainer.recipe.seed + number)
        self.stage = Stage(self.recipe, trainer.model).to(trainer.device)
        self._take_carried(anew=True)
        self.parameters = trainable(self.stage, self.recipe.freeze, trainer.model)
        if not self.parameters:
            raise IsoglossError(f'The stage "{self.recipe.name}" freezes every parameter; shorten its freeze list.')
        self.optimizer = build_optimizer(self.recipe, self.parameters)
        decay = self.recipe.optimizer.ema
        self.average = Average(decay, self.parameters) if decay else None
        self.source = Source(
            {kind: trainer.cuts(kind, self.recipe.name) for kind in self.recipe.seconds},
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

    def run(self) -> None:
        """Train to the last step, then leave the best weights in the model."""
        self.journal.say(preflight(self.trainer.model, self.stage, self.recipe, self.source, self.trainer.precision))
        self._distribute()
        self.journal.stage(self.recipe.name, self.recipe.steps, self.done)
        if self.stage.guarded and self.stage.figure is None:
            self._look()
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
        self._distribute()
        times = []
        for group in self.optimizer.param_groups:
            group["lr"] = 0.0
        with only_trying(self.trainer.model), self.stage.unguarded():
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

    @cached_property
    def _corpora(self) -> dict[str, list[str]]:
        """The corpora with transcripts to learn from, by language."""
        pairs = sorted({(language_of(cut), source_of(cut)) for cut in self.trainer.paired})
        return {tag: [source for _, source in group] for tag, group in groupby(pairs, key=itemgetter(0))}

    @property
    def step(self) -> int:
        """Steps since the run began."""
        return self.start + self.done

    def _distribute(self) -> None:
        """Let processes share the steps; what went backward before, DDP would take for used by all."""
        if self.trainer.world > 1:
            # A guard may shut an objective out, and text alone teaches no durations.
            self.forward = DistributedDataParallel(self.stage, find_unused_parameters=True)

    def _step(self) -> None:
        began = time.perf_counter()
        work = self.source.work(self.step)
        counts = self._global_counts(work)
        rate = learning_rate(self.recipe.optimizer, self.done, self.recipe.steps)
        set_rates(self.optimizer, self.done, self.recipe.steps)
        if self.done % self.recipe.evaluate_every == 0 and len(self.stage.objectives) > 1:
            self._compare_gradients(work, counts)
        sums = self._accumulate(work, counts)
        norm = float(nn.utils.clip_grad_norm_(self.parameters.values(), self.recipe.optimizer.clip))
        if self.done == 0:
            require_gradients(self._gradient_norms(), self.step)
        ids = [name for micro in work.micro for batch in micro.values() for name in batch.ids]
        usable = self.health.usable(self.step, norm, ids)
        if usable:
            self.optimizer.step()
            self.stage.after_step()
        self.optimizer.zero_grad(set_to_none=True)
        self.done += 1
        if self.average is not None:
            self.average.update(self.done)
        self._report(work, sums, counts, norm, rate, usable, time.perf_counter() - began)
        self.stage.done = self.done

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

    def _compare_gradients(self, work: Work, counts: dict[str, int]) -> None:
        """Log how hard each objective pulls, on the first micro-batch."""
        begin_training(self.stage, self.recipe.freeze, self.trainer.model)
        micro = {kind: batch.to(self.trainer.device) for kind, batch in work.micro[0].items()}
        with only_trying(self.trainer.model), autocast(self.trainer.device, self.trainer.precision):
            norms = gradient_norms(self.stage, micro, counts, list(self.parameters.values()))
        self.journal.record({"event": "gradients", "stage": self.recipe.name, "step": self.step} | norms)

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
        loss = sum(self.stage.weight(name) * parts.get(f"{name}/loss", 0.0) for name in self.stage.objectives)
        if usable:
            self.health.check(self.done, {name.split("/")[1]: value for name, value in parts.items()})
        self.journal.step(
            {"event": "step", "stage": self.recipe.name, "step": self.step, "loss": loss}
            | parts
            | {"norm": norm, "rate": rate, "heard": heard, "speed": heard / seconds, "skipped": not usable}
        )

    def _evaluate(self) -> bool:
        """Look at the dev split; True if the weights are the best so far."""
        figures = self._look()
        if not figures:
            return False
        figure = figures.get("cer", figures["loss"])
        if self.best is not None and figure >= self.best[0]:
            return False
        self.best = (figure, self.step)
        return True

    def _look(self) -> dict[str, float]:
        """Figures of the dev split with the weights that would be exported; for the first process alone."""
        figures: dict[str, float] = {}
        if self.trainer.rank == 0:
            self._swap()
            figures = self.trainer.development.evaluate(self.stage)
            self._swap()
        if figures:
            self.journal.record({"event": "dev", "stage": self.recipe.name, "step": self.step} | figures)
            self.journal.say(sentence(self.recipe.name, self.step, figures))
        if self.stage.guarded:
            self._guard(figures)
        return figures

    def _guard(self, figures: dict[str, float]) -> None:
        """Tell the stage of all processes how well the first one recognises, and the journal what follows.

        Of languages without transcripts to learn from nothing is aligned: their rates shut nothing out.
        """
        rates = {tag: figures[f"cer/{tag}"] for tag in self._corpora if f"cer/{tag}" in figures}
        figure = sum(rates.values()) / len(rates) if rates else -1.0
        shared = torch.tensor([figure], dtype=torch.float64, device=self.trainer.device)
        if dist.is_initialized():
            dist.broadcast(shared, 0)
        if float(shared) < 0:
            raise IsoglossError(
                f'The stage "{self.recipe.name}" guards a loss by the CER of the dev split, which holds no transcribed '
                "clip; prepare the data with a dev split, or set guard: null."
            )
        changed = self.stage.judge(float(shared))
        worst = sorted(rates, key=rates.__getitem__, reverse=True)[:3]
        poorest = ", ".join(f"{rates[tag]:.0%} in {tag} of {' and '.join(self._corpora[tag])}" for tag in worst)
        guarded = [name for name, config in self.stage.configs.items() if config.guard is not None]
        for name in guarded if self.done in (0, self.recipe.steps) else changed:
            self.journal.say(self._gate(name, poorest))

    def _gate(self, name: str, poorest: str) -> str:
        """Whether an objective's guard lets it take part, in one line."""
        guard, rate = self.stage.configs[name].guard, self.stage.figure
        if self.stage.weight(name):
            return f"{name} takes part."
        left_out = f"{name} is left out: the dev CER is {rate:.1%} ({poorest}), its guard {guard:.0%}."
        if self.done < self.recipe.steps:
            return left_out
        mend = "Train longer before it; if that does not help, see whether the transcripts there belong to the clips."
        return f"{left_out} {mend}"

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
            "figure": self.stage.figure,
            "opened": self.stage.opened,
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
        self.done = self.stage.done = state["done"]
        self.stage.figure, self.stage.opened = state["figure"], state["opened"]
        self.best = tuple(state["best"]) if state["best"] else None
        self.health.restore(state["unusable"], state["health"])
        self.source.positions = {kind: Position(**place) for kind, place in state["positions"].items()}

    def _load_weights(self, found: checkpoints.Checkpoint) -> None:
        self.trainer.model.load_state_dict(found.tensors("model"))
        self.trainer.carried |= found.tensors("objectives")
        self._take_carried()

    def _take_carried(self, anew: bool = False) -> None:
        """Objectives that an earlier stage trained under the same name go on from there.

        anew: the stage begins, and slow copies of the model with it: from its best weights, not from older ones.
        """
        for name, objective in self.stage.objectives.items():
            slow = [f"{part}." for part, module in objective.named_modules() if anew and isinstance(module, Follower)]
            start = f"{name}/"
            mine = {k.removeprefix(start): v for k, v in self.trainer.carried.items() if k.startswith(start)}
            kept = {k: v for k, v in mine.items() if not k.startswith(tuple(slow))}
            objective.load_state_dict(kept, strict=False)

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
