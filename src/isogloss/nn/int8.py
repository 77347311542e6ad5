"""Weights of linear layers as 8-bit integers with a scale for each output: a quarter of the memory and of the file.

    scale_o = max_i |w_oi| / 127        q_oi = round(w_oi / scale_o)        y = x (q · scale)ᵀ + b

Weights are made floating-point again layer by layer when they are used, so that nothing but they is rounded.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

LARGEST = 127


class Int8Linear(nn.Module):
    """A linear layer that cannot be trained as it is."""

    weight: Tensor
    scale: Tensor
    bias: Tensor | None

    def __init__(self, layer: nn.Linear):
        super().__init__()
        weight = layer.weight.detach()
        scale = (weight.abs().amax(dim=1, keepdim=True) / LARGEST).clamp(min=torch.finfo(weight.dtype).tiny)
        self.register_buffer("weight", (weight / scale).round().to(torch.int8))
        self.register_buffer("scale", scale)
        self.register_buffer("bias", None if layer.bias is None else layer.bias.detach())

    def forward(self, x: Tensor) -> Tensor:
        """(…, in) -> (…, out)."""
        weight = (self.weight * self.scale).to(x.dtype)
        return functional.linear(x, weight, self.bias)


    def floating(self) -> nn.Linear:
        """The linear layer that computes the same and can be trained."""
        rows, columns = self.weight.shape
        layer = nn.Linear(columns, rows, bias=self.bias is not None, device=self.weight.device, dtype=self.scale.dtype)
        with torch.no_grad():
            layer.weight.copy_(self.weight * self.scale)
            if self.bias is not None:
                layer.bias.copy_(self.bias)
        return layer


def with_int8_weights(module: nn.Module) -> None:
    """Put an `Int8Linear` in the place of every linear layer of a module."""
    for parent in list(module.modules()):
        for name, child in parent.named_children():
            if type(child) is nn.Linear:
                setattr(parent, name, Int8Linear(child))


def with_floating_weights(module: nn.Module) -> None:
    """Put a linear layer in the place of every `Int8Linear` of a module."""
    for parent in list(module.modules()):
        for name, child in parent.named_children():
            if isinstance(child, Int8Linear):
                setattr(parent, name, child.floating())
