"""One stage as one module, so that a step is one forward pass for every kind of data and objective."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from isogloss.errors import IsoglossError
from isogloss.model.model import Model
from isogloss.objectives import ObjectiveConfig
from isogloss.objectives.base import Loss, Objective
from isogloss.training.recipe import StageRecipe
from isogloss.training.source import Micro


@dataclass(frozen=True)
class Sums:
    """What one micro-batch adds up to: a differentiable total, and `OBJECTIVE/PART` sums for the log."""

    total: Tensor
    parts: dict[str, Tensor]


class Stage(nn.Module):
    """The objectives of a stage over one model.

    done: steps of the stage so far. figure: the last CER on the dev split, None before there is one.
    opened: the steps at which guards let their objectives in.
    """

    def __init__(self, recipe: StageRecipe, model: Model):
        super().__init__()
        self.configs: dict[str, ObjectiveConfig] = {config.name: config for config in recipe.objectives}
        self.done = 0
        self.figure: float | None = None
        self.opened: dict[str, int] = {}
        built: dict[str, Objective] = {config.name: config.build(model) for config in recipe.objectives}
        self.objectives = built
        self._check(recipe)
        self._registered = nn.ModuleDict(built)

    def _check(self, recipe: StageRecipe) -> None:
        """Each objective is there once, and has data."""
        if len(self.objectives) < len(recipe.objectives):
            names = [config.name for config in recipe.objectives]
            twice = next(name for name in names if names.count(name) > 1)
            raise IsoglossError(f'The stage "{recipe.name}" has the objective {twice} twice; give one another stage.')
        kinds = {objective.kind for objective in self.objectives.values()}
        if idle := sorted(recipe.seconds.keys() - kinds):
            raise IsoglossError(
                f'The stage "{recipe.name}" has seconds of {idle[0]} and no objective that learns from them; '
                "leave them out."
            )
        for name, objective in self.objectives.items():
            if objective.kind not in recipe.seconds:
                raise IsoglossError(
                    f'The objective {name} of the stage "{recipe.name}" learns from {objective.kind} data; '
                    f"add {objective.kind} to its seconds."
                )

    def weight(self, name: str) -> float:
        """What an objective weighs in the next step: nothing while its guard holds, less while it climbs."""
        config = self.configs[name]
        if config.guard is not None and (self.figure is None or self.figure > config.guard):
            return 0.0
        taken = self.done + 1 - self.opened.get(name, 0)
        return config.weight * min(1.0, taken / config.ramp) if config.ramp else config.weight

    def judge(self, figure: float) -> list[str]:
        """Take in a new CER; returns the objectives that it lets in or shuts out."""
        before = {name: self.weight(name) > 0 for name in self.objectives}
        self.figure = figure
        changed = [name for name, open_before in before.items() if (self.weight(name) > 0) != open_before]
        self.opened |= {name: self.done for name in changed if not before[name]}
        return changed

    @property
    def guarded(self) -> bool:
        """Whether any objective waits for the recogniser."""
        return any(config.guard is not None for config in self.configs.values())

    @contextmanager
    def unguarded(self) -> Iterator[None]:
        """Every objective takes part inside: for what must be tried before the recogniser is good enough."""
        figure, self.figure = self.figure, 0.0
        yield
        self.figure = figure

    def counts(self, micro: Micro) -> dict[str, int]:
        """Targets of each objective in a micro-batch."""
        return {name: objective.count(micro[objective.kind]) for name, objective in self.objectives.items()}

    def forward(self, micro: Micro, counts: dict[str, int]) -> Sums:
        """Audio (B, S) by kind -> scalar Σ over objectives of weight · (sum here) / (count of the whole step)."""
        total: Tensor | float = 0.0
        parts: dict[str, Tensor] = {}
        for name, objective in self.objectives.items():
            if not (weight := self.weight(name)):
                continue
            loss = self.loss(objective, micro)
            total = total + weight * loss.total / max(1, counts[name])
            parts[f"{name}/loss"] = loss.total.detach()
            parts |= {f"{name}/{part}": value for part, value in loss.parts.items()}
        if not isinstance(total, Tensor):
            raise IsoglossError("Every objective of this stage is guarded, and none may begin; guard the text alone.")
        return Sums(total, parts)

    def loss(self, objective: Objective, micro: Micro) -> Loss:
        """The loss of an objective on its batch."""
        batch = micro[objective.kind]
        # Masks, noise and dropout of a micro-batch must not depend on which process computes it.
        torch.manual_seed(batch.seed)
        loss: Loss = objective(batch)
        return loss

    def after_step(self) -> None:
        """What follows an optimizer's step."""
        for objective in self.objectives.values():
            objective.after_step()


def gradient_norms(
    stage: Stage, micro: Micro, counts: dict[str, int], parameters: list[nn.Parameter]
) -> dict[str, float]:
    """The norm of the gradient of each objective alone, by its name, as it is weighed."""
    norms = {}
    for name, objective in stage.objectives.items():
        total = stage.weight(name) * stage.loss(objective, micro).total / max(1, counts[name])
        found = torch.autograd.grad(total, parameters, allow_unused=True)
        norms[name] = math.sqrt(sum(float(slope.square().sum()) for slope in found if slope is not None))
    return norms


def begin_training(stage: Stage, freeze: tuple[str, ...], model: Model) -> None:
    """Training mode; but what is frozen has no dropout, and its statistics of features stay as they are."""
    stage.train()
    for name, module in model.named_modules():
        if freeze and name.startswith(freeze):
            module.eval()


@contextmanager
def only_trying(model: Model) -> Iterator[None]:
    """What is heard inside does not count: the model's statistics of features are put back afterwards."""
    kept = {name: buffer.clone() for name, buffer in model.named_buffers()}
    yield
    for name, buffer in model.named_buffers():
        buffer.copy_(kept[name])


def trainable(stage: Stage, freeze: tuple[str, ...], model: Model) -> dict[str, nn.Parameter]:
    """The parameters a stage trains, by name: `encoder.…`, `ctc.…` of the model, `best_rq/…` of objectives.

    Sets `requires_grad` of everything else to False.
    """
    reached = {id(parameter) for parameter in stage.parameters()}
    named = dict(model.named_parameters())
    known = {id(parameter) for parameter in named.values()}
    for name, objective in stage.objectives.items():
        named |= {f"{name}/{key}": p for key, p in objective.named_parameters() if id(p) not in known}
    chosen = {}
    for name, parameter in named.items():
        wanted = id(parameter) in reached and not name.startswith(freeze or ("\0",))
        parameter.requires_grad_(wanted)
        if wanted:
            chosen[name] = parameter
    return chosen
