"""Multi-head attention: to oneself with positions of several kinds or none, and to the states of another network."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from isogloss.nn.past import Past
from isogloss.nn.position import relative_shift, relative_table, rotary_table, rotate
from isogloss.sequence import Sequence

IN_STEPS = 1 << 20
"""Scores of a head that are kept for the backward pass, at most: those of 40 s at 25 frames a second."""
MIN = torch.finfo(torch.bfloat16).min
Position = Literal["rotary", "rotary_inputs", "relative", "relative_key", "gated", "none"]


class SelfAttention(nn.Module):
    """Self-attention of (B, T, D) frames under a mask of who may look at whom.

    relative: Transformer-XL (arXiv 1901.02860 §3.3) as in Conformer: the score is
    (q + u)ᵀk + (q + v)ᵀ W_R R_{i-j}, u and v learned per head.
    relative_key: a learned vector for each distance, the same for all heads: qᵀ(k + E_{j-i}) (arXiv 1803.02155 eq. 4).
    gated: a bias b_{j-i} of the whole stack, which a gate of each query scales: g_i b_{j-i} (WavLM, arXiv 2110.13900
    §3.2). rotary_inputs: what queries and keys are projected from is rotated, not they themselves (fairseq).
    No dropout on the attention weights: it would force the slow path that materialises them.

    reach: the distances to earlier and to later frames from which on relative_key makes no difference.
    """

    def __init__(self, width: int, heads: int, position: Position, reach: tuple[int, int] = (64, 8)):
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
        elif position == "relative_key":
            self.reach = reach
            self.distance = nn.Embedding(sum(reach) + 1, width // heads)
            nn.init.normal_(self.distance.weight, std=0.02)
        elif position == "gated":
            self.gate = nn.Linear(width // heads, 8)
            self.gate_scale = nn.Parameter(torch.ones(1, heads, 1, 1))

    def forward(
        self, x: Tensor, mask: Tensor | None, past: Past | None = None, bias: Tensor | None = None
    ) -> Tensor:
        """x: (B, T, D); mask: (B, 1, T, P+T) bool, True = may attend, or None. Returns (B, T, D).

        past: the P frames before x, which x may attend to as well; P = 0 without it. bias: (H, T, P+T), for gated.
        """
        batch, frames, width = x.shape
        query, key, value = self._projected(x)
        if past is not None:
            key, value = past.attend(key, value)
        if self.position == "rotary":
            # Only differences of positions matter: they are counted from the oldest frame remembered.
            table = rotary_table(key.shape[2], width // self.heads, x.device)
            query, key = rotate(query, (table[0][-frames:], table[1][-frames:])), rotate(key, table)
        elif self.position == "relative":
            mask = _forbidden(self._relative_bias(query, key.shape[2]), mask)
            query = query + self.content_bias.to(query.dtype)
        elif self.position == "relative_key":
            mask = _forbidden(self._distance_bias(query, key.shape[2]), mask)
        elif self.position == "gated":
            assert bias is not None
            mask = _forbidden((self._gate(x) * bias).to(query.dtype), mask)
        mixed = attend(query, key, value, mask)
        return self.out(mixed.transpose(1, 2).reshape(batch, frames, width))

    def _projected(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, (B, H, T, D/H) each, of (B, T, D)."""

        def by_head(values: Tensor) -> Tensor:
            return values.view(*x.shape[:2], -1, self.heads, x.shape[2] // self.heads).permute(2, 0, 3, 1, 4)

        query, key, value = by_head(self.qkv(x))
        if self.position == "rotary_inputs":
            (parts,) = by_head(x)
            turned = rotate(parts, rotary_table(x.shape[1], parts.shape[-1], x.device))
            query, key, _ = by_head(self.qkv(turned.transpose(1, 2).flatten(2)))
        return query, key, value

    def _relative_bias(self, query: Tensor, keys_seen: int) -> Tensor:
        """The position term of the score, (B, H, T, P+T)."""
        _, _, frames, head_width = query.shape
        table = relative_table(frames, keys_seen, self.heads * head_width, query.device)
        keys = self.relative(table.to(query.dtype))
        keys = keys.view(-1, self.heads, head_width).permute(1, 2, 0)
        scores = (query + self.position_bias.to(query.dtype)) @ keys.to(query.dtype)
        return relative_shift(scores) / math.sqrt(head_width)

    def _distance_bias(self, query: Tensor, keys_seen: int) -> Tensor:
        """The same of relative_key."""
        frames, head_width = query.shape[2:]
        left, right = self.reach
        place = torch.arange(keys_seen, device=query.device)
        distance = (place - place[keys_seen - frames :, None]).clamp(-left, right) + left
        scores = query @ self.distance.weight.to(query.dtype).T  # (B, H, T, left + right + 1)
        return scores.gather(3, distance.expand(*query.shape[:2], -1, -1)) / math.sqrt(head_width)

    def _gate(self, x: Tensor) -> Tensor:
        """(B, T, D) -> (B, H, T, 1): 2 + r (s u − 1), where r and u are in 0 … 1 and s is learned."""
        both = self.gate(x.unflatten(2, (self.heads, -1)).transpose(1, 2))
        reset, update = both.unflatten(-1, (2, 4)).sum(-1).sigmoid().chunk(2, dim=-1)
        return reset * (update * self.gate_scale - 1) + 2


def attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
    """softmax(Q Kᵀ / √E + mask) V: (B, H, T, E), (B, H, P, E) twice, mask (…, T, P) bool or float -> (B, H, T, E)."""
    if not _better_in_steps(query, key):
        return scaled_dot_product_attention(query, key, value, attn_mask=mask)
    scores = query * query.shape[-1] ** -0.5 @ key.mT
    if mask is not None:
        bias = mask if mask.is_floating_point() else torch.zeros_like(mask, dtype=scores.dtype).masked_fill_(~mask, MIN)
        scores = scores + bias
    return scores.softmax(dim=-1, dtype=scores.dtype) @ value


def _better_in_steps(query: Tensor, key: Tensor) -> bool:
    """Whether products and softmax one by one take less time than torch's fused attention, and memory that is there.

    Of a CPU's bf16 the fused one takes 1.3 to 6 times as long, forward and backward (torch 2.13,
    benchmarks/attention.py). Whoever limits torch to some of its kernels (`sdpa_kernel`) has these.
    """
    trains = query.device.type == "cpu" and query.dtype == torch.bfloat16 and query.requires_grad
    return trains and query.shape[2] * key.shape[2] <= IN_STEPS and torch.backends.cuda.mem_efficient_sdp_enabled()


def _forbidden(bias: Tensor, mask: Tensor | None) -> Tensor:
    """A float mask: `bias`, -inf where `mask` is False."""
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
        mixed = attend(query, memory.keys, memory.values, memory.mask)
        return self.out(mixed.transpose(1, 2).flatten(2))
