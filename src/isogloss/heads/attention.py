"""The attention decoder (LAS; Chan et al. 2016, arXiv 1508.01211) as a Transformer: states -> text, left to right.

    begin y_1 … y_U ─ embedding ─ [+ self-attention ─ + attention to states ─ + feed-forward] × N ─> y_1 … y_U end
                                                   (B, T, D)

Symbol 0 is begin on the way in and end on the way out. It sees the whole utterance before it writes, and
nothing makes it follow the audio: on long or strange audio it may stop early or go on without end.
"""

from dataclasses import dataclass

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, pad

from isogloss.config import Config
from isogloss.nn.attention import CrossAttention, Memory, SelfAttention
from isogloss.nn.dropout import Dropout
from isogloss.nn.feedforward import FeedForward
from isogloss.nn.masks import LocalContext, attention_mask
from isogloss.nn.past import Past
from isogloss.sequence import Sequence

END = 0
EVERYTHING = 1 << 30
"""Symbols a symbol may look back to."""


class AttentionConfig(Config):
    """A Transformer decoder."""

    layers: int = Field(4, ge=1, description="decoder blocks; SLAM's has 4, mSLAM's 6")
    width: int = Field(144, ge=8, description="model width; SLAM's is 384, mSLAM's 512")
    heads: int = Field(4, ge=1, description="attention heads")
    dropout: float = Field(0.1, ge=0, lt=1, description="after every branch")
    smoothing: float = Field(0.1, ge=0, lt=1, description="label smoothing: this share of the target is spread evenly")


@dataclass
class Writing:
    """What the decoder remembers while it writes: of the audio, and of the symbols written."""

    memories: list[Memory]
    pasts: list[Past | None]


class AttentionDecoder(nn.Module):
    """Transformer decoder over encoder states."""

    def __init__(self, config: AttentionConfig, width: int, vocabulary: int):
        super().__init__()
        self.smoothing = config.smoothing
        self.embedding = nn.Embedding(vocabulary, config.width)
        self.blocks = nn.ModuleList(DecoderBlock(config, width) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.width)
        self.output = nn.Linear(config.width, vocabulary)

    def forward(self, states: Sequence, tokens: Sequence) -> Tensor:
        """Cross-entropy of the symbols and the end, in nats: (B, T, D) and (B, U) -> (B,)."""
        scores = self.told(states, tokens)
        ends = pad(tokens.zero_padding().values, (0, 1), value=END)
        losses = cross_entropy(
            scores.values.transpose(1, 2), ends, reduction="none", label_smoothing=self.smoothing
        )
        return scores.with_values(losses).zero_padding().values.sum(dim=1)

    def told(self, states: Sequence, tokens: Sequence) -> Sequence:
        """Logits of each symbol and of the end, told those before: (B, T, D) and (B, U) -> (B, U+1, V) float32."""
        begun = Sequence(pad(tokens.zero_padding().values, (1, 0), value=END), tokens.lengths + 1)
        return begun.with_values(self.scores(begun, self.begin(states, remember=False)))

    def begin(self, states: Sequence, remember: bool = True) -> Writing:
        """Before the first symbol is written; with `remember`, symbols may follow one by one."""
        crossed = [module for module in self.blocks.modules() if isinstance(module, CrossAttention)]
        pasts = [Past(EVERYTHING) if remember else None for _ in crossed]
        return Writing([module.memory(states) for module in crossed], pasts)

    def step(self, symbols: Tensor, writing: Writing) -> Tensor:
        """One more symbol each, (B,); `END` comes first -> log-probabilities of the next, (B, V)."""
        one = Sequence(symbols[:, None], torch.ones_like(symbols))
        return self.scores(one, writing)[:, 0].log_softmax(dim=-1)

    def scores(self, symbols: Sequence, writing: Writing) -> Tensor:
        """(B, U) -> float32 logits (B, U, V)."""
        return self.output(self.decode(symbols.map(self.embedding), writing)).float()

    def decode(self, inputs: Sequence, writing: Writing) -> Tensor:
        """Embedded symbols, or whatever else is written step by step: (B, U, P) -> (B, U, P)."""
        x = inputs.values
        seen = writing.pasts[0].frames if writing.pasts[0] is not None else 0
        mask = attention_mask(inputs.valid, LocalContext(left=EVERYTHING, right=0), seen)
        for block, memory, past in zip(self.blocks, writing.memories, writing.pasts, strict=True):
            x = block(x, mask, memory, past)
        return self.norm(x)


class DecoderBlock(nn.Module):
    """Self-attention, attention to the encoder's states, feed-forward; pre-norm."""

    def __init__(self, config: AttentionConfig, memory_width: int):
        super().__init__()
        self.norm_self = nn.LayerNorm(config.width)
        self.attention = SelfAttention(config.width, config.heads, "rotary")
        self.norm_cross = nn.LayerNorm(config.width)
        self.cross = CrossAttention(config.width, memory_width, config.heads)
        self.feed = FeedForward(config.width, config.dropout, nn.GELU)
        self.dropout = Dropout(config.dropout)

    def forward(self, x: Tensor, mask: Tensor | None, memory: Memory, past: Past | None) -> Tensor:
        """x: (B, U, P), mask: (B, 1, U, seen + U) bool or None -> (B, U, P)."""
        x = x + self.dropout(self.attention(self.norm_self(x), mask, past))
        x = x + self.dropout(self.cross(self.norm_cross(x), memory))
        return x + self.feed(x)
