"""A stack of blocks over hidden states: what speech, text and shared encoders all are."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from isogloss.encoders.conformer import ConformerConfig
from isogloss.encoders.transformer import TransformerConfig
from isogloss.nn.adapters import Branch
from isogloss.nn.masks import Context, attention_mask
from isogloss.nn.past import Past
from isogloss.sequence import Sequence

Between = Mapping[int, Callable[[Tensor], Tensor]]
"""By the number of a block, what is done to its output before the next one has it: (B, T, D) -> (B, T, D)."""
BlocksConfig = Annotated[ConformerConfig | TransformerConfig, Field(discriminator="kind")]


@dataclass(frozen=True)
class Encoded:
    """What an encoder returns.

    final: (B, T, D) after the last norm. layers: outputs of the blocks asked for, by number;
    0 is the input of the first block, n the output of block n.
    """

    final: Sequence
    layers: dict[int, Sequence]


class Stack(nn.Module):
    """Blocks of one kind and a final LayerNorm, under one context policy."""

    def __init__(self, config: ConformerConfig | TransformerConfig, recompute: bool = False):
        super().__init__()
        self.blocks = nn.ModuleList(config.block() for _ in range(config.layers))
        # A Conformer block ends in a LayerNorm of its own.
        self.norm = nn.Identity() if isinstance(config, ConformerConfig) else nn.LayerNorm(config.width)
        self.feeds = config.feeds
        self.recompute = recompute

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
        output then is final as it is. With `recompute`, activations inside blocks are computed
        again in the backward pass instead of being kept: memory for time.
        """
        valid = states.valid
        mask = attention_mask(valid, context, past[0].frames if past else 0)
        x = states.zero_padding().values
        kept: dict[int, Sequence] = {after: states.with_values(x)} if after in layers else {}
        for number, block in enumerate(self.blocks[after:until], start=after + 1):
            extra: dict[str, Any] = {"past": past[number - 1]} if past else {}
            if adapters:
                extra["adapters"] = adapters[(number - 1) * self.feeds : number * self.feeds]
            x = self._run(block, x, valid, mask, extra)
            if number in layers:
                kept[number] = states.with_values(x)
            if between and number in between:
                x = between[number](x)
        return Encoded(states.with_values(self.norm(x) if until is None else x), kept)

    def _run(self, block: nn.Module, x: Tensor, valid: Tensor, mask: Tensor | None, extra: dict[str, Any]) -> Tensor:
        if self.recompute and self.training and "past" not in extra:
            return checkpoint(block, x, valid, mask, use_reentrant=False, **extra)
        return block(x, valid, mask, **extra)
