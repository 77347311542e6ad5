"""The attention decoder (LAS; Chan et al. 2016, arXiv 1508.01211) as a Transformer: states -> text, left to right.

    begin y_1 … y_U ─ embedding ─ [+ self-attention ─ + attention to states ─ + feed-forward] × N ─> y_1 … y_U end
                                                   (B, T, D)

Symbol 0 is begin on the way in and end on the way out. It sees the whole utterance before it writes, and
nothing makes it follow the audio: on long or strange audio it may stop early or go on without end.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, pad

from isogloss.decoding.attention_beam import attention_beam
from isogloss.decoding.beam import Beam
from isogloss.decoding.greedy import Greedy, GreedyAttention
from isogloss.decoding.hypothesis import Hypothesis
from isogloss.decoding.symbols import Symbols
from isogloss.errors import IsoglossError
from isogloss.heads.base import BaseHeadConfig, Modules, Sizes, SymbolHead
from isogloss.nn.attention import CrossAttention, Memory, SelfAttention
from isogloss.nn.dropout import Dropout
from isogloss.nn.feedforward import FeedForward
from isogloss.nn.masks import LocalContext, attention_mask
from isogloss.nn.past import Past
from isogloss.sequence import Sequence
from isogloss.text.tokenizers import END

EVERYTHING = 1 << 30
"""Symbols a symbol may look back to."""


class AttentionConfig(BaseHeadConfig):
    """Each symbol given those before it and the whole utterance: a Transformer decoder."""

    kind: Literal["attention"] = "attention"
    target: Literal["symbols"] = "symbols"
    layers: int = Field(4, ge=1, description="decoder blocks; SLAM 4, mSLAM 6")
    width: int = Field(144, ge=8, description="model width; SLAM 384, mSLAM 512")
    heads: int = Field(4, ge=1, description="attention heads")
    dropout: float = Field(0.1, ge=0, lt=1, description="dropout after every branch")
    smoothing: float = Field(0.1, ge=0, lt=1, description="label smoothing: share of the target that is spread evenly")
    aligner: str = Field("ctc", description="name of the CTC head that gives times of symbols and helps to rank texts")

    @property
    def beside(self) -> dict[str, str]:
        """The aligner."""
        return {self.aligner: "ctc"}

    def build(self, sizes: Sizes) -> "AttentionDecoder":
        """Over states of the encoder's width."""
        return AttentionDecoder(self, sizes.width, sizes.of(self.target))


@dataclass
class Memories:
    """What the decoder remembers while it writes: of the audio, and of the symbols written."""

    audio: list[Memory]
    pasts: list[Past | None]


class AttentionDecoder(SymbolHead):
    """Transformer decoder over encoder states."""

    streams = False

    def __init__(self, config: AttentionConfig, width: int, vocabulary: int):
        super().__init__()
        self.smoothing = config.smoothing
        self.aligner = config.aligner
        self.embedding = nn.Embedding(vocabulary, config.width)
        self.blocks = nn.ModuleList(DecoderBlock(config, width) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.width)
        self.output = nn.Linear(config.width, vocabulary)

    def loss(self, states: Sequence, tokens: Sequence) -> Tensor:
        """Cross-entropy of the symbols and the end, smoothed, in nats: (B, T, D) and (B, U) -> (B,)."""
        scores = self.teacher_forced_logits(states, tokens)
        ends = pad(tokens.zero_padding().values, (0, 1), value=END)
        losses = cross_entropy(
            scores.values.transpose(1, 2), ends, reduction="none", label_smoothing=self.smoothing
        )
        return scores.with_values(losses).zero_padding().values.sum(dim=1)

    def teacher_forced_logits(self, states: Sequence, tokens: Sequence) -> Sequence:
        """Logits of each symbol and of the end after the true ones: (B, T, D), (B, U) -> (B, U+1, V) float32."""
        begun = Sequence(pad(tokens.zero_padding().values, (1, 0), value=END), tokens.lengths + 1)
        return begun.with_values(self.logits(begun, self.begin(states, remember=False)))

    def begin(self, states: Sequence, remember: bool = True) -> Memories:
        """Before the first symbol is written; with `remember`, symbols may follow one by one."""
        crossed = [module for module in self.blocks.modules() if isinstance(module, CrossAttention)]
        pasts = [Past(EVERYTHING) if remember else None for _ in crossed]
        return Memories([module.memory(states) for module in crossed], pasts)

    def step(self, symbols: Tensor, memories: Memories) -> Tensor:
        """One more symbol each, (B,); `END` comes first -> log-probabilities of the next, (B, V)."""
        one = Sequence(symbols[:, None], torch.ones_like(symbols))
        return self.logits(one, memories)[:, 0].log_softmax(dim=-1)

    def following(self, prefixes: Tensor, memories: Memories) -> Tensor:
        """Prefixes of one utterance's text, (n, U), `END` first -> log-probabilities of the next symbol, (n, V)."""
        count, length = prefixes.shape
        many = (count, -1, -1, -1)
        audio = [Memory(m.keys.expand(many), m.values.expand(many), m.mask.expand(many)) for m in memories.audio]
        begun = Sequence(prefixes, torch.full((count,), length, device=prefixes.device))
        return self.logits(begun, Memories(audio, memories.pasts))[:, -1].log_softmax(dim=-1)

    def logits(self, symbols: Sequence, memories: Memories) -> Tensor:
        """(B, U) -> float32 logits (B, U, V)."""
        return self.output(self.decode(symbols.map(self.embedding), memories)).float()

    def decode(self, inputs: Sequence, memories: Memories) -> Tensor:
        """Embedded symbols, or whatever else is written step by step: (B, U, P) -> (B, U, P)."""
        x = inputs.values
        seen = memories.pasts[0].frames if memories.pasts[0] is not None else 0
        mask = attention_mask(inputs.valid, LocalContext(left=EVERYTHING, right=0), seen)
        for block, memory, past in zip(self.blocks, memories.audio, memories.pasts, strict=True):
            x = block(x, mask, memory, past)
        return self.norm(x)

    def greedy(self, batch: int, allowed: Symbols | None = None, heads: Modules | None = None) -> Greedy:
        return GreedyAttention(self, self._aligner(heads), batch, allowed)

    def beam(self, states: Sequence, beam: Beam, heads: Modules | None = None) -> list[list[Hypothesis]]:
        return attention_beam(self, self._aligner(heads), states, beam)

    def _aligner(self, heads: Modules | None) -> nn.Module:
        if heads is None or self.aligner not in heads:
            raise IsoglossError(f'The attention decoder wants the CTC head "{self.aligner}" beside it.')
        return heads[self.aligner]


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
