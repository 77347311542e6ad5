"""A slow copy of a network: teachers and aligners."""

import copy
from typing import Generic, Self, TypeVar

import torch
from torch import Tensor, nn

from isogloss.nn.parted import is_parted, whole

Followed = TypeVar("Followed", bound=nn.Module, covariant=True)


class EMA(nn.Module, Generic[Followed]):
    """The exponential moving average of a module's weights, in evaluation mode whatever is trained around it.

    Its weights are buffers: they are saved with whoever holds it, and no optimizer ever sees them. warms_up: it follows
    faster in the beginning.
    """

    def __init__(self, module: Followed, warms_up: bool = True):
        super().__init__()
        self.warms_up = warms_up
        self.steps: Tensor
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        self.copy: Followed = copy.deepcopy(module)
        for part in self.copy.modules():
            for name, parameter in list(part.named_parameters(recurse=False)):
                del part._parameters[name]
                part.register_buffer(name, parameter.detach())
        self.train(False)

    def train(self, mode: bool = True) -> Self:
        """Evaluation mode, always."""
        return super().train(False)

    @torch.no_grad()
    def follow(self, module: nn.Module, decay: float) -> None:
        """w ← decay · w + (1 - decay) · w of `module`, with a decay that warms up unless it was told not to."""
        self.steps += 1
        theirs, mine = module.state_dict(), self.copy.state_dict()
        moving = [name for name, value in mine.items() if value.is_floating_point()]
        share = 1 - (warmed_up(decay, int(self.steps)) if self.warms_up else decay)
        # What lies in parts is made whole one by one: together it might not fit.
        groups = [[name] for name in moving] if any(map(is_parted, theirs.values())) else [moving]
        for names in groups:
            torch._foreach_lerp_([mine[name] for name in names], [whole(theirs[name]) for name in names], share)
        for name in mine.keys() - set(moving):
            mine[name].copy_(theirs[name])


def warmed_up(decay: float, step: int) -> float:
    """The decay of an average at a step, the first is 1: it rises to its value, so that early weights go soon."""
    return min(decay, (1 + step) / (10 + step))
