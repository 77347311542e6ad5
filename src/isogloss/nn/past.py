"""What is carried from chunk to chunk when audio is encoded as it arrives."""

from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass
class SubsamplingPast:
    """The last feature frame, (B, 1, 1, F), and the last frame between the convolutions, (B, C, 1, F/2)."""

    features: Tensor | None = None
    middle: Tensor | None = None


@dataclass
class Past:
    """What a block remembers of the frames before a chunk; it is updated by the block that reads it.

    keep: frames whose keys and values later chunks may attend to.
    keys, values: (B, H, P, D/H) of the last frames, P <= keep, before positions are added to them.
    gated: (B, K-1, D), the last inputs of a causal convolution; nothing at the start.
    state: of a recurrent layer, as torch has it: (1, B, D), for an LSTM two of them; of a quasi-recurrent one the last
        frame that came in, (B, 1, E), and its state, (B, 1, H).
    """

    keep: int = 0
    keys: Tensor | None = None
    values: Tensor | None = None
    gated: Tensor | None = None
    state: Tensor | tuple[Tensor, Tensor] | None = None

    @property
    def frames(self) -> int:
        """Frames P that are remembered."""
        return 0 if self.keys is None else self.keys.shape[2]

    def attend(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of a chunk behind those remembered, (B, H, P+T, D/H) each."""
        if self.keys is not None and self.values is not None:
            keys, values = torch.cat([self.keys, keys], dim=2), torch.cat([self.values, values], dim=2)
        self.keys, self.values = (part[:, :, max(0, part.shape[2] - self.keep) :] for part in (keys, values))
        return keys, values


@dataclass
class EncoderPast:
    """What a speech encoder remembers: where frames become fewer, and of each block."""

    blocks: list[Past]
    embed: SubsamplingPast = field(default_factory=SubsamplingPast)
