"""Learning rates, and averaged weights."""

import math
from collections.abc import Collection

import torch
from torch import nn

from isogloss.nn.ema import warmed_up
from isogloss.training.muon import MuonAdamW
from isogloss.training.recipe import AdamWRecipe, StageRecipe


def learning_rate(recipe: AdamWRecipe, step: int, steps: int) -> float:
    """The rate of a step (the first is 0) of a stage of `steps`: a linear climb, then the schedule."""
    warmup = max(1, round(recipe.warmup * steps))
    if step < warmup:
        return recipe.peak * (step + 1) / warmup
    progress = (step - warmup + 1) / max(1, steps - warmup)
    shape = {
        "cosine": 0.5 * (1 + math.cos(math.pi * progress)),
        "linear": 1 - progress,
        "inverse_sqrt": math.sqrt(warmup / (step + 1)),
        "constant": 1.0,
    }[recipe.schedule]
    return recipe.peak * max(shape, recipe.floor)


def build_optimizer(
    stage: StageRecipe,
    parameters: dict[str, nn.Parameter],
    matrices: Collection[str] = (),
    dtype: torch.dtype = torch.float32,
) -> MuonAdamW:
    """AdamW over named parameters, each by the recipe its name asks for, with Muon for those that are `matrices`."""
    recipes: dict[str, AdamWRecipe] = {"": stage.optimizer, **stage.optimizers}
    groups: dict[tuple[str, bool, float], list[nn.Parameter]] = {}
    for name, parameter in parameters.items():
        own = max((start for start in stage.optimizers if name.startswith(start)), key=len, default="")
        muon = recipes[own].muon if name in matrices else 0.0
        groups.setdefault((own, decays(name, parameter), muon), []).append(parameter)
    settings = [
        {
            "params": members,
            "recipe": recipes[own],
            "lr": recipes[own].peak,
            "betas": recipes[own].betas,
            "weight_decay": recipes[own].weight_decay if decayed else 0.0,
            "muon": muon,
        }
        for (own, decayed, muon), members in groups.items()
    ]
    return MuonAdamW(settings, dtype)


def decays(name: str, parameter: nn.Parameter) -> bool:
    """Whether weight decay applies: to matrices and kernels, never to norms, gains and biases.

    A bias may have several dimensions: one for each head of attention, one for each language of adapters. So may the
    gains of weight normalisation, which torch calls original0 beside the direction, original1.
    """
    return parameter.dim() >= 2 and not name.endswith(("bias", "original0"))


def set_rates(optimizer: torch.optim.Optimizer, step: int, steps: int) -> None:
    """Give every group of an optimizer made by `build_optimizer` the rate of this step."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate(group["recipe"], step, steps)


class Average:
    """Exponential moving average of parameters, with a decay that warms up."""

    def __init__(self, decay: float, parameters: dict[str, nn.Parameter]):
        self.decay = decay
        self.parameters = parameters
        self.values = {name: parameter.detach().clone() for name, parameter in parameters.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        share = 1 - warmed_up(self.decay, step)
        torch._foreach_lerp_(list(self.values.values()), list(self.parameters.values()), share)

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange the averaged weights with those of the model; call again to undo."""
        for name, parameter in self.parameters.items():
            kept = parameter.detach().clone()
            parameter.copy_(self.values[name])
            self.values[name].copy_(kept)
