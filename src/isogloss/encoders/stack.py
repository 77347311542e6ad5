"""A stack of blocks over hidden states: what speech, text and shared encoders all are."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from isogloss.encoders.blocks import BlocksConfig
from isogloss.errors import IsoglossError
from isogloss.nn.adapters import Branch
from isogloss.nn.masks import Context, attention_mask
from isogloss.nn.past import Past
from isogloss.sequence import Sequence

Between = Mapping[int, Callable[[Tensor], Tensor]]
"""By the number of a block, what is done to its output before the next one has it: (B, T, D) -> (B, T, D)."""


@dataclass(frozen=True)
class Encoded:
    """What an encoder returns.

    final: (B, T, D) after the last norm. layers: outputs of the blocks asked for, by number;
    0 is the input of the first block (with positions, if it is given any), n the output of block n.
    """

    final: Sequence
    layers: dict[int, Sequence]


class Stack(nn.Module):
    """Blocks of one kind under one context policy, with what stands before the first and after the last.

    inputs: the width of what comes in, by default that of the blocks.
    """

    def __init__(self, config: BlocksConfig, recompute: bool = False, inputs: int | None = None):
        super().__init__()
        inputs = inputs or config.width
        if inputs != config.width and not config.any_width:
            raise IsoglossError(
                f"{config.kind.capitalize()} blocks of width {config.width} cannot take features of width {inputs} as "
                "they are; set encoder.embed to a projection or subsampling."
            )
        self.attends = config.attends
        self.feeds = config.feeds
        self.recompute = recompute
        self.layer_drop = config.layer_drop
        self.entry = config.entry()
        self.bias = config.bias_of_positions()
        self.blocks = nn.ModuleList(config.build(inputs))
        self.norm = nn.LayerNorm(config.width) if config.final_norm else nn.Identity()

    def forward(
        self,
        states: Sequence,
        context: Context,
        layers: tuple[int, ...] = (),
        past: list[Past] | None = None,
        adapters: list[Branch | None] | None = None,
        between: Between | None = None,
        after: int = 0,
        until: int | None = None,
    ) -> Encoded:
        """(B, T, D) -> (B, T, D); `layers` names the hidden states to return as well.

        past: of each block, where the states go on from earlier ones. adapters: one for
        each feed-forward module, in order. between: what happens after blocks; `layers` are
        as they were before that. after, until: only the blocks after this one, and up to that one, whose
        output then is final as it is; what stands before the first block belongs to it. With `recompute`,
        activations inside blocks are computed again in the backward pass instead of being kept: memory for time.
        In training each block is left out with a probability, for all clips alike (Fan et al. 2020, arXiv 1909.11556).
        """
        valid = states.valid
        before = past[0].frames if past else 0
        mask = attention_mask(valid, context, before) if self.attends else None
        x = states.zero_padding().values
        if after == 0 and until != 0 and self.entry is not None:
            x = self.entry(x, valid)
        shared = {} if self.bias is None else {"bias": self.bias(x.shape[1], before + x.shape[1])}
        kept: dict[int, Sequence] = {after: states.with_values(x)} if after in layers else {}
        for number, block in enumerate(self.blocks[after:until], start=after + 1):
            extra: dict[str, Any] = shared | ({"past": past[number - 1]} if past else {})
            if adapters:
                extra["adapters"] = adapters[(number - 1) * self.feeds : number * self.feeds]
            x = self._run(block, x, valid, mask, extra)
            if number in layers:
                kept[number] = states.with_values(x)
            if between and number in between:
                x = between[number](x)
        return Encoded(states.with_values(self.norm(x) if until is None else x), kept)

    def _run(self, block: nn.Module, x: Tensor, valid: Tensor, mask: Tensor | None, extra: dict[str, Any]) -> Tensor:
        after = self._block(block, x, valid, mask, extra)
        if not (self.training and self.layer_drop):
            return after
        # A block that is left out is computed all the same: the gradient of its weights is 0, and not missing, which
        # would keep other processes waiting.
        return torch.where(torch.rand((), device=x.device) < self.layer_drop, x, after)

    def _block(self, block: nn.Module, x: Tensor, valid: Tensor, mask: Tensor | None, extra: dict[str, Any]) -> Tensor:
        if self.recompute and self.training and "past" not in extra:
            return checkpoint(block, x, valid, mask, use_reentrant=False, **extra)
        return block(x, valid, mask, **extra)
