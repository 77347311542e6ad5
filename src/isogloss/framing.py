"""`Framing`: how many outputs layers over time make, and which inputs each of them sees. The only length arithmetic.

    samples ── features ── embed ──> encoder frames        model.framing = features.framing.then(embed.framing)
"""

import math
from dataclasses import dataclass
from typing import overload

from torch import Tensor


@dataclass(frozen=True)
class Framing:
    """Layers one after another, each a window that moves over its inputs.

    layers: (kernel, stride, padding on each side) of each; without layers every input is an output.
    """

    layers: tuple[tuple[int, int, int], ...] = ()

    def then(self, other: "Framing") -> "Framing":
        """These layers, and behind them those of another."""
        return Framing(self.layers + other.layers)

    @overload
    def frames(self, inputs: int) -> int: ...
    @overload
    def frames(self, inputs: Tensor) -> Tensor: ...
    def frames(self, inputs: int | Tensor) -> int | Tensor:
        """Outputs of so many inputs; a layer makes 1 + ⌊(N + 2 padding − kernel) / stride⌋ of N, or none."""
        for kernel, stride, padding in self.layers:
            count = 1 + (inputs + 2 * padding - kernel) // stride
            inputs = count.clamp(min=0) if isinstance(count, Tensor) else max(0, count)
        return inputs

    @property
    def stride(self) -> int:
        """Inputs from one output to the next."""
        return math.prod(stride for _, stride, _ in self.layers)

    @property
    def receptive_field(self) -> int:
        """Inputs that one output sees, counting those in the padding."""
        return 1 + sum((kernel - 1) * step for (kernel, _, _), step in zip(self.layers, self._steps, strict=True))

    @property
    def padding(self) -> int:
        """Inputs before the very first that the first output sees: output i begins at input i · stride − padding."""
        return sum(padding * step for (_, _, padding), step in zip(self.layers, self._steps, strict=True))

    def least(self, frames: int) -> int:
        """The fewest inputs that make so many outputs."""
        return (frames - 1) * self.stride + self.receptive_field - 2 * self.padding

    def needed(self, frames: int) -> int:
        """Inputs after which the first `frames` outputs are known, whatever follows."""
        return (frames - 1) * self.stride + self.receptive_field - self.padding

    @property
    def _steps(self) -> list[int]:
        """Of each layer: the inputs of the first one that lie between two of its own."""
        strides = [stride for _, stride, _ in self.layers]
        return [math.prod(strides[:place]) for place in range(len(strides))]
