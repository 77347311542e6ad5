"""`Sequence`: a padded batch that knows its lengths. The one type every room passes on."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Sequence:
    """Padded values with absolute integer lengths; what stands after a length means nothing.

    values: (B, T, ...) of any dtype.
    lengths: (B,) int64, 0 <= length <= T, on the same device.
    """

    values: Tensor
    lengths: Tensor

    @classmethod
    def from_list(cls, items: list[Tensor]) -> "Sequence":
        """Pad tensors of shape (T_i, ...) with zeros to (B, max T_i, ...)."""
        lengths = torch.tensor([len(item) for item in items], device=items[0].device)
        return cls(torch.nn.utils.rnn.pad_sequence(items, batch_first=True), lengths)

    @property
    def valid(self) -> Tensor:
        """(B, T) bool, True on real positions."""
        steps = torch.arange(self.values.shape[1], device=self.values.device)
        return steps < self.lengths[:, None]

    @property
    def device(self) -> torch.device:
        return self.values.device

    def __len__(self) -> int:
        return len(self.lengths)

    def with_values(self, values: Tensor) -> "Sequence":
        """The same lengths over other values of the same T."""
        return Sequence(values, self.lengths)

    def map(self, function: Callable[[Tensor], Tensor]) -> "Sequence":
        """Apply a function that keeps T to the values."""
        return self.with_values(function(self.values))

    def zero_padding(self) -> "Sequence":
        """Zeros after each length: the only safe input of whatever mixes time steps.

        `torch.where` and not a product: NaN * 0 is NaN.
        """
        valid = self.valid.reshape(*self.valid.shape, *[1] * (self.values.dim() - 2))
        return self.with_values(torch.where(valid, self.values, self.values.new_zeros(())))

    def unpad(self) -> list[Tensor]:
        """The items without padding, B tensors of shape (T_i, ...)."""
        return [item[:n] for item, n in zip(self.values, self.lengths.tolist(), strict=True)]

    def to(self, device: torch.device | str) -> "Sequence":
        return Sequence(self.values.to(device), self.lengths.to(device))
