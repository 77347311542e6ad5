"""AdamW, and Muon for the matrices in blocks of encoders (Jordan et al. 2024; its rate: Liu et al. 2025, arXiv
2502.16982).

    M ← μ M + (1 - μ) G                              G: gradient of W, (A, B); μ = 0.95
    O = orthogonal(μ M + (1 - μ) G)                  singular values all about 1, singular vectors as they are
    W ← W - η λ W - η ρ · 0.2 √max(A, B) · O         η: rate of AdamW, λ: weight decay, ρ: `muon` of the recipe

With ρ = 1 the entries of a matrix move about as far in a step as under AdamW. The gradient of an encoder that knows
nothing yet has a few directions that outweigh all others, those of blanks and of frequent symbols; Muon goes as far in
the others too. CTC then writes its first symbols after two thirds of the steps (docs/scale.md).

Matrices of one shape are made orthogonal together, in as few kernels as one of them would take; several processes share
them, and each gets what the others computed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby
from math import sqrt
from typing import Any

import torch
from torch import Tensor, distributed, nn

from isogloss.nn.parted import part, parted_like, whole_of

MOMENTUM = 0.95
ITERATIONS = 5
QUINTIC = 3.4445, -4.7750, 2.0315
"""Coefficients of Newton and Schulz's iteration that bring all singular values to between 0.7 and 1.2 in five steps."""
AT_ONCE = 1 << 26
"""Entries of matrices that are made orthogonal together: 256 MB."""


class MuonAdamW(torch.optim.AdamW):
    """AdamW, but groups of parameters with a `muon` above 0 are matrices, which Muon trains at so many times the rate.

    dtype: in which matrices are made orthogonal. found_inf: a scalar above 0 where a step shall change nothing.
    """

    found_inf: Tensor

    def __init__(self, groups: list[dict[str, Any]], dtype: torch.dtype):
        super().__init__(groups, fused=True)
        self._dtype = dtype

    @property
    def matrices(self) -> list[nn.Parameter]:
        """Those that Muon trains."""
        return [parameter for group in self.param_groups if group["muon"] for parameter in group["params"]]

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        """Change the weights by their gradients, which are used up."""
        for group in self.param_groups:
            if group["muon"]:
                for members in _alike(group["params"]):
                    self._change(members, group)
        super().step()

    def _change(self, parameters: list[nn.Parameter], group: dict[str, Any]) -> None:
        """A step of matrices of one shape."""
        unusable = self.found_inf > 0
        momenta = [part(self._momentum(parameter)) for parameter in parameters]
        # Where the step is unusable, the momentum itself comes in for the gradient, and stays what it is.
        gradients = [
            torch.where(unusable, momentum, part(parameter.grad))
            for momentum, parameter in zip(momenta, parameters, strict=True)
            if parameter.grad is not None
        ]
        torch._foreach_lerp_(momenta, gradients, 1 - MOMENTUM)
        ahead = torch._foreach_lerp(gradients, momenta, MOMENTUM)
        matrices = torch.stack([whole_of(value, like) for value, like in zip(ahead, parameters, strict=True)])
        changes = shared_orthogonal(matrices.to(self._dtype)).float()
        rate = torch.where(unusable, 0.0, group["lr"])
        scale = group["muon"] * 0.2 * sqrt(max(matrices.shape[1:]))
        for parameter, change in zip(parameters, changes.unbind(), strict=True):
            weights = part(parameter)
            weights.mul_(1 - rate * group["weight_decay"]).sub_(rate * scale * part(parted_like(change, parameter)))
            parameter.grad = None  # AdamW leaves it alone

    def _momentum(self, parameter: nn.Parameter) -> Tensor:
        state = self.state[parameter]
        if not state:
            state["momentum"] = torch.zeros_like(parameter)
        momentum: Tensor = state["momentum"]
        return momentum


def orthogonal(matrices: Tensor) -> Tensor:
    """(N, A, B) -> the same shape: U Vᵀ of each U S Vᵀ, but for singular values of 0.7 to 1.2; 0 where all is 0."""
    a, b, c = QUINTIC
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x


def shared_orthogonal(matrices: Tensor) -> Tensor:
    """What `orthogonal` gives, of which every process computes a share."""
    world = distributed.get_world_size() if distributed.is_initialized() else 1
    if world == 1:
        return orthogonal(matrices)
    count = -(-len(matrices) // world)
    padded = torch.cat([matrices, matrices.new_zeros(count * world - len(matrices), *matrices.shape[1:])])
    shares = list(padded.chunk(world))
    distributed.all_gather(shares, orthogonal(shares[distributed.get_rank()]).contiguous())
    return torch.cat(shares)[: len(matrices)]


def _alike(parameters: Iterable[nn.Parameter]) -> Iterator[list[nn.Parameter]]:
    """Those that have a gradient, by shape, as many together as memory should hold."""
    having = sorted((parameter for parameter in parameters if parameter.grad is not None), key=lambda p: tuple(p.shape))
    for _, members in groupby(having, key=lambda p: p.shape):
        alike = list(members)
        most = max(1, AT_ONCE // alike[0].numel())
        yield from (alike[first : first + most] for first in range(0, len(alike), most))
