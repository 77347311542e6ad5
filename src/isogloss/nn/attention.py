"""Multi-head attention: to oneself with rotary, relative or no positions, and to the states of another network."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from isogloss.nn.past import Past
from isogloss.nn.position import relative_shift, relative_table, rotary_table, rotate
from isogloss.sequence import Sequence

Position = Literal["rotary", "relative", "none"]


class SelfAttention(nn.Module):
    """Self-attention of (B, T, D) frames under a mask of who may look at whom.

    relative: Transformer-XL (arXiv 1901.02860 §3.3) as in Conformer: the score is
    (q + u)ᵀk + (q + v)ᵀ W_R R_{i-j}, u and v learned per head. No dropout on the attention
    weights: it would force the slow path that materialises them.
    """

    def __init__(self, width: int, heads: int, position: Position):
        super().__init__()
        if width % heads or (width // heads) % 2:
            raise ValueError(f"width {width} does not divide into {heads} heads of even width")
        self.heads = heads
        self.position = position
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        if position == "relative":
            self.relative = nn.Linear(width, width, bias=False)
            self.content_bias = nn.Parameter(torch.zeros(heads, 1, width // heads))
            self.position_bias = nn.Parameter(torch.zeros(heads, 1, width // heads))

    def forward(self, x: Tensor, mask: Tensor | None, past: Past | None = None) -> Tensor:
        """x: (B, T, D); mask: (B, 1, T, P+T) bool, True = may attend, or None. Returns (B, T, D).

        past: the P frames before x, which x may attend to as well; P = 0 without it.
        """
        batch, frames, width = x.shape
        qkv = self.qkv(x).view(batch, frames, 3, self.heads, width // self.heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)  # each (B, H, T, D/H)
        if past is not None:
            key, value = past.attend(key, value)
        if self.position == "rotary":
            # Only differences of positions matter: they are counted from the oldest frame remembered.
            table = rotary_table(key.shape[2], width // self.heads, x.device)
            query, key = rotate(query, (table[0][-frames:], table[1][-frames:])), rotate(key, table)
        elif self.position == "relative":
            mask = self._relative_bias(query, key.shape[2], mask)
            query = query + self.content_bias.to(query.dtype)
        mixed = scaled_dot_product_attention(query, key, value, attn_mask=mask)
        return self.out(mixed.transpose(1, 2).reshape(batch, frames, width))

    def _relative_bias(self, query: Tensor, keys_seen: int, mask: Tensor | None) -> Tensor:
        """The position term of the score as a float mask (B, H, T, P+T), -inf where `mask` forbids."""
        _, _, frames, head_width = query.shape
        table = relative_table(frames, keys_seen, self.heads * head_width, query.device)
        keys = self.relative(table.to(query.dtype))
        keys = keys.view(-1, self.heads, head_width).permute(1, 2, 0)
        scores = (query + self.position_bias.to(query.dtype)) @ keys.to(query.dtype)
        bias = relative_shift(scores) / math.sqrt(head_width)
        return bias if mask is None else bias.masked_fill(~mask, -torch.inf)


@dataclass(frozen=True)
class Memory:
    """Keys and values of the states attended to, (B, H, T, D/H) each, and which are valid, (B, 1, 1, T) bool."""

    keys: Tensor
    values: Tensor
    mask: Tensor


class CrossAttention(nn.Module):
    """Attention of (B, U, D) to the states of another network, without positions."""

    def __init__(self, width: int, memory_width: int, heads: int):
        super().__init__()
        if width % heads:
            raise ValueError(f"width {width} does not divide into {heads} heads")
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(memory_width, 2 * width)
        self.out = nn.Linear(width, width)

    def memory(self, states: Sequence) -> Memory:
        """What is attended to, (B, T, memory_width), computed once for all symbols."""
        values = states.zero_padding().values
        both = self.key_value(values).view(*values.shape[:2], 2, self.heads, -1)
        keys, values = both.permute(2, 0, 3, 1, 4)
        # Where there is no frame the first one of padding is seen: no row of the softmax is empty.
        valid = states.valid
        valid[:, 0] |= states.lengths == 0
        return Memory(keys, values, valid[:, None, None])

    def forward(self, x: Tensor, memory: Memory) -> Tensor:
        """(B, U, D) -> (B, U, D)."""
        query = self.query(x).view(*x.shape[:2], self.heads, -1).transpose(1, 2)
        mixed = scaled_dot_product_attention(query, memory.keys, memory.values, attn_mask=memory.mask)
        return self.out(mixed.transpose(1, 2).flatten(2))
