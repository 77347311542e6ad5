"""What learns in a stage: in one process, as a copy in each of several, or in parts.

    sharding: none, one process      the stage itself
    sharding: none, several          DistributedDataParallel: a copy in each, gradients averaged after each step
    sharding: full, several          FSDP2 (`sharding.py`): a part in each, over a copy of the run's model
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from isogloss.errors import IsoglossError
from isogloss.model.spec import ModelConfig
from isogloss.nn.parted import parted_like
from isogloss.training.checkpoint import Checkpoint, optimizer_tensors, restore_optimizer
from isogloss.training.footprint import Footprint, footprint
from isogloss.training.hardware import gathered_rows, share_buffers, sum_over_group
from isogloss.training.memory import memory_for
from isogloss.training.recipe import StageRecipe
from isogloss.training.run import Run
from isogloss.training.schedule import Average, build_optimizer
from isogloss.training.stage import (
    Counts,
    Stage,
    Sums,
    begin_training,
    clip_gradients,
    gradient_norms,
    hidden_matrices,
    on_device,
    only_trying,
    trainable,
)
from isogloss.training.streams import Micro, Work


class Learner:
    """The modules of a stage, which of their parameters are trained, the optimizer and the moving average.

    It begins with the run's model, or goes on from the checkpoint that the run has found. seed: of new weights.
    say: tells people something.
    """

    def __init__(self, run: Run, recipe: StageRecipe, seed: int, say: Callable[[str], None]):
        self.run, self.recipe, self.machine, self.say = run, recipe, run.machine, say
        if run.found is not None:
            self._load(run.found)
            run.model.config = ModelConfig.parse(run.found.state["model"], str(run.found.folder))
        torch.manual_seed(seed)
        self.stage = self._built()
        self.parameters = trainable(self.stage)
        if not self.parameters:
            raise IsoglossError(f'The stage "{recipe.name}" freezes every parameter; shorten its freeze list.')
        dtype = run.machine.precision
        self.optimizer = build_optimizer(recipe, self.parameters, hidden_matrices(self.stage.model), dtype)
        decay = recipe.optimizer.ema
        self.average = Average(decay, self.parameters) if decay else None
        if run.found is not None:
            self._restore(run.found)
        self._forward: nn.Module = self.stage

    def distribute(self) -> None:
        """Let processes share the steps; what went backward before, DDP would take for used by all."""
        if self.machine.world > 1 and not self.run.sharded:
            # A guard may shut an objective out, and text alone teaches no durations.
            self._forward = DistributedDataParallel(self.stage, find_unused_parameters=True)

    def autocast(self) -> AbstractContextManager[None]:
        """The precision of forward passes; where activations are recomputed, casts of weights are not kept either."""
        return self.machine.autocast(remember=not self.stage.model.encoder.stack.recompute)

    def counts(self, work: Work) -> Counts:
        """Over how much the losses of the whole step are averaged, over micro-batches and processes."""
        local = [self.stage.counts(micro) for micro in work.micro]
        totals = torch.tensor([sum(count[name] for count in local) for name in local[0]], dtype=torch.float64)
        return dict(zip(local[0], sum_over_group(totals).tolist(), strict=True))

    def accumulate(self, work: Work, counts: Counts) -> list[Sums]:
        """Forward and backward over the micro-batches; returns what each adds up to."""
        begin_training(self.stage)
        if self.run.sharded:
            share_buffers(self.stage.model)  # as DDP does
        found = []
        for position, micro in enumerate(work.micro):
            if isinstance(self._forward, DistributedDataParallel):
                self._forward.require_backward_grad_sync = position == len(work.micro) - 1
            with memory_for(micro):
                with self.autocast():
                    sums: Sums = self._forward(on_device(micro, self.machine.device), counts)
                # Gradients are averaged over processes; the loss is a sum over them.
                (sums.total * self.machine.world).backward()
            found.append(sums._replace(total=sums.total.detach()))
        return found

    def pulls(self, micro: Micro, counts: Counts) -> dict[str, float]:
        """How hard each objective pulls, on a micro-batch: the norms of their gradients."""
        begin_training(self.stage)
        with memory_for(micro), only_trying(self.stage), self.autocast():
            batches = on_device(micro, self.machine.device)
            return gradient_norms(self.stage, batches, counts, list(self.parameters.values()))

    def update(self) -> Tensor:
        """Change the weights by their gradients, scaled down to the largest norm that the recipe allows.

        Returns the norm that they had, a scalar on the device. A gradient that is not finite changes nothing.
        """
        norm = clip_gradients(self.parameters.values(), self.recipe.optimizer.clip)
        # Decided on the device, which nobody waits for.
        self.optimizer.found_inf = (~norm.isfinite()).to(torch.float32)
        with memory_for("the moments of the optimizer"):
            self.optimizer.step()
        self.forget()
        return norm

    def forget(self) -> None:
        """Drop the gradients."""
        self.optimizer.zero_grad(set_to_none=True)

    def follow(self, step: int, found: list[Sums]) -> None:
        """Let slow copies and the average follow the weights, at a step of the stage; the first is 1.

        found: what the micro-batches added up to, of which objectives get what they have kept.
        """
        self.stage.after_step({name: gathered_rows([sums.kept[name] for sums in found]) for name in found[0].kept})
        if self.average is not None:
            self.average.update(step)

    def footprint(self) -> Footprint:
        """What of the memory of this process is taken whatever the batch."""
        return footprint(
            self.stage,
            matrices=self.optimizer.matrices,
            world=self.machine.world,
            sharded=self.run.sharded,
            average=self.average is not None,
        )

    @contextmanager
    def as_exported(self) -> Iterator[Stage]:
        """The stage with the weights that would be exported, whole in every process."""
        share_buffers(self.stage.model)  # each process has gathered its own statistics of features in this step
        with self._averaged(), self._whole():
            yield self.stage

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """All that a checkpoint needs, by file."""
        return {
            "model": self.stage.model.state_dict(),
            "objectives": self.run.carried | _own_tensors(self.stage),
            "optimizer": optimizer_tensors(self.optimizer, self.parameters),
            "average": self.average.values if self.average else {},
        }

    def end_with(self, found: Checkpoint) -> Stage:
        """Put the weights of a checkpoint into the run, averaged ones where there is an average; the stage with them.

        What objectives have learned is carried on, but for what ends with its stage, as slow copies of the model do.
        """
        self._load(found)
        stage = Stage(self.recipe, self.run.model).to(self.machine.device) if self.run.sharded else self.stage
        self._take_carried(stage)
        parameters = trainable(stage)
        with torch.no_grad():
            for name, value in found.each("average"):
                parameters[name].copy_(value)
        self.run.carried |= _own_tensors(stage)
        ended = tuple(f"{name}/{part}" for name, objective in stage.objectives.items() for part in objective.ends)
        for name in [name for name in self.run.carried if name.startswith(ended)]:
            del self.run.carried[name]
        return stage

    def _built(self) -> Stage:
        sharded = self.run.sharded
        # Of a stage that is sharded only parts ever lie on the device.
        stage = Stage(self.recipe, copy.deepcopy(self.run.model.cpu()) if sharded else self.run.model)
        stage.begin()
        self._take_carried(stage)
        if not sharded:
            return stage.to(self.machine.device)
        from isogloss.training.sharding import shard  # takes seconds to import

        shard(stage, self.machine)
        return stage

    def _load(self, found: Checkpoint) -> None:
        """The weights of a checkpoint: of the model, and what objectives have learned."""
        self.run.model.load_state_dict(found.tensors("model"))
        self.run.carried |= found.tensors("objectives")

    def _restore(self, found: Checkpoint) -> None:
        restore_optimizer(self.optimizer, self.parameters, found.each("optimizer"))
        if self.average is not None:
            for name, value in found.each("average"):
                self.average.values[name].copy_(parted_like(value, self.parameters[name]))

    def _take_carried(self, stage: Stage) -> None:
        """Objectives that an earlier stage trained under the same name go on from there.

        What had another shape there, as of other symbols or with other options, is begun anew, and that is said.
        """
        for name, objective in stage.objectives.items():
            start = f"{name}/"
            mine = {k.removeprefix(start): v for k, v in self.run.carried.items() if k.startswith(start)}
            own = objective.state_dict()
            if unlike := [key for key, value in mine.items() if key in own and own[key].shape != value.shape]:
                self.say(f"{self.recipe.name}: {name} begins anew, for {unlike[0]} had another shape before.")
                continue
            objective.load_state_dict(mine, strict=False)

    @contextmanager
    def _averaged(self) -> Iterator[None]:
        """The averaged weights in the model, if there are any."""
        if self.average is not None:
            self.average.swap()
        yield
        if self.average is not None:
            self.average.swap()

    @contextmanager
    def _whole(self) -> Iterator[None]:
        if not self.run.sharded:
            yield
            return
        from isogloss.training.sharding import gathered

        with gathered(self.stage):
            yield


def _own_tensors(stage: Stage) -> dict[str, Tensor]:
    """What the objectives hold themselves, as `OBJECTIVE/NAME`."""
    return {
        f"{name}/{key}": tensor
        for name, objective in stage.objectives.items()
        for key, tensor in objective.state_dict().items()
    }
