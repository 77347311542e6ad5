"""One stage as one module, so that a step is one forward pass for every kind of data and objective."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from isogloss.model.model import Model
from isogloss.objectives.base import Objective
from isogloss.training.recipe import StageRecipe
from isogloss.training.source import Micro


@dataclass(frozen=True)
class Sums:
    """What one micro-batch adds up to: a differentiable total, and `OBJECTIVE/PART` sums for the log."""

    total: Tensor
    parts: dict[str, Tensor]


class Stage(nn.Module):
    """The objectives of a stage over one model."""

    def __init__(self, recipe: StageRecipe, model: Model):
        super().__init__()
        self.weights: dict[str, float] = {config.name: config.weight for config in recipe.objectives}
        built: dict[str, Objective] = {config.name: config.build(model) for config in recipe.objectives}
        self.objectives = built
        self._registered = nn.ModuleDict(built)

    def counts(self, micro: Micro) -> dict[str, int]:
        """Targets of each objective in a micro-batch."""
        return {name: objective.count(micro[objective.kind]) for name, objective in self.objectives.items()}

    def forward(self, micro: Micro, counts: dict[str, int]) -> Sums:
        """Audio (B, S) by kind -> scalar Σ over objectives of weight · (sum here) / (count of the whole step)."""
        total: Tensor | float = 0.0
        parts: dict[str, Tensor] = {}
        for name, objective in self.objectives.items():
            batch = micro[objective.kind]
            # Masks, noise and dropout of a micro-batch must not depend on which process computes it.
            torch.manual_seed(batch.seed)
            loss = objective(batch)
            total = total + self.weights[name] * loss.total / max(1, counts[name])
            parts[f"{name}/loss"] = loss.total.detach()
            parts |= {f"{name}/{part}": value for part, value in loss.parts.items()}
        assert isinstance(total, Tensor)
        return Sums(total, parts)


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
