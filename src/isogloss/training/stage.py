"""One stage as one module, so that a step is one forward pass for every kind of data and objective."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import NamedTuple

import torch
from torch import Tensor, nn

from isogloss.data.loading import with_tensors
from isogloss.data.needs import Needs
from isogloss.encoders.stack import Stack
from isogloss.errors import IsoglossError, did_you_mean
from isogloss.model.model import Model
from isogloss.nn.ema import EMA
from isogloss.nn.parted import whole
from isogloss.objectives.base import BaseConfig, Clock, Loss, Mean, Objective, Term
from isogloss.training.guards import Guards
from isogloss.training.recipe import StageRecipe
from isogloss.training.streams import Micro

Counts = dict[str, float]
"""Over how much each loss is averaged in a whole step: `OBJECTIVE` utterances, `OBJECTIVE/TERM` something else."""


class Sums(NamedTuple):
    """What one micro-batch adds up to: a differentiable total, and `OBJECTIVE/NAME` terms and statistics.

    kept: what objectives want back after the step, by their names.
    """

    total: Tensor
    terms: dict[str, Term]
    stats: dict[str, Mean]
    kept: Mapping[str, Tensor] = MappingProxyType({})


class Stage(nn.Module):
    """The objectives of a stage over one model.

    clock: how far it is. guards: which objectives take part.
    """

    def __init__(self, recipe: StageRecipe, model: Model):
        super().__init__()
        self.recipe = recipe
        self.model = model
        self.configs: dict[str, BaseConfig] = {config.name: config for config in recipe.objectives}
        self.clock = Clock(0, recipe.steps)
        self.guards = Guards(self.configs)
        built: dict[str, Objective] = {name: config.build(model.spec) for name, config in self.configs.items()}
        self.objectives = built
        self.streams = {name: config.stream or built[name].needs.stream for name, config in self.configs.items()}
        self._check(recipe)
        self._registered = nn.ModuleDict(built)

    def _check(self, recipe: StageRecipe) -> None:
        """Each objective is there once and has data; what is frozen, or has an optimizer of its own, exists."""
        if len(self.objectives) < len(recipe.objectives):
            names = [config.name for config in recipe.objectives]
            twice = next(name for name in names if names.count(name) > 1)
            raise IsoglossError(f'The stage "{recipe.name}" has the objective {twice} twice; give one another stage.')
        if idle := sorted(recipe.seconds.keys() - set(self.streams.values())):
            raise IsoglossError(
                f'The stage "{recipe.name}" has seconds of {idle[0]} and no objective that learns from them; '
                "leave them out."
            )
        for name, stream in self.streams.items():
            if stream not in recipe.seconds:
                raise IsoglossError(
                    f'The objective {name} of the stage "{recipe.name}" learns from {stream} data; '
                    f"add {stream} to its seconds."
                )
        parts = {name for name, _ in [*self.model.named_parameters(), *self.model.named_modules()]}
        # A head that these data need not have is left out, as that of the language where there is only one.
        parts |= self.objectives.keys() | {f"heads.{name}" for name in self.model.config.heads}
        for verb, starts in (("freezes", recipe.freeze), ("has an optimizer of", recipe.optimizers)):
            for start in starts:
                if not any(part.startswith(start.rstrip("/")) for part in parts):
                    near = did_you_mean(start, {part.partition(".")[0] for part in parts} | parts)
                    raise IsoglossError(f'The stage "{recipe.name}" {verb} "{start}", which it does not have.{near}')

    def needs(self) -> dict[str, Needs]:
        """What each stream must hold: all that the objectives that draw from it need."""
        found: dict[str, Needs] = {}
        for name, stream in self.streams.items():
            own = self.objectives[name].needs
            found[stream] = found[stream] | own if stream in found else own
        return found

    def hours(self, steps: int) -> float:
        """Of audio in so many steps, of the streams that have any."""
        return steps * sum(self.recipe.seconds[name] for name, needs in self.needs().items() if needs.audio) / 3600

    def begin(self) -> None:
        """Make the slow copies that objectives learn from, from the model as it is."""
        for objective in self.objectives.values():
            if objective.teacher(self.clock) is not None:
                objective.ema = EMA(objective.followed(self.model), objective.warms_up)

    def weight(self, name: str) -> float:
        """What an objective weighs in the next step: nothing while its guard holds, less while it climbs."""
        config = self.configs[name]
        if not self.guards.open(name):
            return 0.0
        taken = self.clock.step + 1 - self.guards.opened.get(name, 0)
        return config.weight * min(1.0, taken / config.ramp) if config.ramp else config.weight

    def counts(self, micro: Micro) -> Counts:
        """Over how much the losses of a micro-batch are averaged."""
        found: Counts = {}
        for name, objective in self.objectives.items():
            found[name] = len(micro[name].ids)
            found |= {f"{name}/{term}": count for term, count in objective.counts(micro[name]).items()}
        return found

    def forward(self, micro: Micro, counts: Counts) -> Sums:
        """Audio (B, S) by objective -> scalar Σ over terms of weight · (sum here) / (count of the whole step)."""
        totals: list[Tensor] = []
        terms: dict[str, Term] = {}
        stats: dict[str, Mean] = {}
        kept: dict[str, Tensor] = {}
        for name in self.objectives:
            if not (weight := self.weight(name)):
                continue
            loss = self.loss(name, micro)
            totals.append(weight * weighted(name, loss, counts))
            terms |= {f"{name}/{key}": term.detached() for key, term in loss.terms.items()}
            stats |= {f"{name}/{key}": value for key, value in loss.stats.items()}
            kept |= {} if loss.kept is None else {name: loss.kept}
        if not totals:
            raise IsoglossError(
                f'No objective of the stage "{self.recipe.name}" may take part, as all have guards that are not met; '
                "leave the guard of one out."
            )
        return Sums(torch.stack(totals).sum(), terms, stats, kept)

    def loss(self, name: str, micro: Micro) -> Loss:
        """The loss of an objective on its batch."""
        batch = micro[name]
        # Masks, noise and dropout of a micro-batch must not depend on which process computes it.
        torch.manual_seed(batch.seed)
        loss: Loss = self.objectives[name](self.model, batch, self.clock)
        return loss

    def after_step(self, kept: Mapping[str, Tensor]) -> None:
        """What follows an optimizer's step: objectives get what they have kept of it, slow copies follow the model."""
        for name, objective in self.objectives.items():
            if name in kept:
                objective.remember(kept[name])
            decay = objective.teacher(self.clock)
            if objective.ema is not None and decay is not None:
                objective.ema.follow(objective.followed(self.model), decay)


def weighted(name: str, loss: Loss, counts: Counts) -> Tensor:
    """Σ over the terms of an objective of weight · total / count of the whole step."""
    terms = [
        term.weight * term.total / max(1, counts.get(f"{name}/{key}", counts[name]))
        for key, term in loss.terms.items()
    ]
    return torch.stack(terms).sum()


def gradient_norms(stage: Stage, micro: Micro, counts: Counts, parameters: list[nn.Parameter]) -> dict[str, float]:
    """The norm of the gradient of each objective alone, by its name, as it is weighed."""
    norms = {}
    for name in stage.objectives:
        total = stage.weight(name) * weighted(name, stage.loss(name, micro), counts)
        found = torch.autograd.grad(total, parameters, allow_unused=True)
        norms[name] = math.sqrt(sum(float(slope.square().sum()) for slope in found if slope is not None))
    return norms


def begin_training(stage: Stage) -> None:
    """Training mode; but frozen parts of the model have no dropout, and their statistics stay as they are."""
    stage.train()
    for name, module in stage.model.named_modules():
        if stage.recipe.freeze and name.startswith(stage.recipe.freeze):
            module.eval()


def keep_buffers(part: nn.Module) -> Callable[[], None]:
    """What puts the statistics that a model or a whole stage gathers back as they are now.

    Slow copies are none: they follow only after a step.
    """
    kept = {name: buffer.clone() for name, buffer in part.named_buffers() if ".ema." not in name}

    def put_back() -> None:
        for name, buffer in part.named_buffers():
            if name in kept:
                buffer.copy_(kept[name])

    return put_back


def on_device(micro: Micro, device: torch.device) -> Micro:
    """The batches on a device, where the copy need not have arrived yet."""
    return with_tensors(micro, lambda tensor: tensor.to(device, non_blocking=True))


@contextmanager
def only_trying(part: nn.Module) -> Iterator[None]:
    """What is computed inside does not count: the statistics of a model or a stage are put back afterwards."""
    put_back = keep_buffers(part)
    try:
        yield
    finally:
        put_back()


def clip_gradients(parameters: Iterable[nn.Parameter], most: float) -> Tensor:
    """Scale the gradients down until their norm is no more than `most`; returns what it was, of all parts, a scalar."""
    parameters = list(parameters)
    norm = whole(nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None]))
    nn.utils.clip_grads_with_norm_(parameters, most, norm)
    return norm


def hidden_matrices(model: nn.Module) -> set[str]:
    """The names of the weights of linear layers in blocks of encoders."""
    return {
        f"{place}.blocks.{name}.weight"
        for place, part in model.named_modules()
        if isinstance(part, Stack)
        for name, layer in part.blocks.named_modules()
        if isinstance(layer, nn.Linear)
    }


def trainable(stage: Stage) -> dict[str, nn.Parameter]:
    """The parameters a stage trains, by name: those of the model but for `freeze`, and `best_rq/…` of objectives.

    Sets `requires_grad` of all others to False.
    """
    named = dict(stage.model.named_parameters())
    for name, objective in stage.objectives.items():
        named |= {f"{name}/{key}": parameter for key, parameter in objective.named_parameters()}
    frozen = stage.recipe.freeze or ("\0",)
    for name, parameter in named.items():
        parameter.requires_grad_(not name.startswith(frozen))
    return {name: parameter for name, parameter in named.items() if parameter.requires_grad}
