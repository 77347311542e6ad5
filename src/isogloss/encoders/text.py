"""The text encoder: symbols -> states at the frame rate of speech, as if somebody had said them (MAESTRO §2.1).

    symbols (B, U) ─ embedding ─ convolutions ─ blocks ─┬─ e_t (B, U+1, D) ─ upsampling ─ refiner ─> ê_t (B, T, D)
                     + language                         └─ duration network ─> durations (B, U+1) ──┘

Unit 0 stands for the silence before the first symbol (nn/durations.py). From pairs come durations that were
aligned; for text alone they are predicted. With `upsampling: none` there are no durations, and ê_t has a state a unit
(ASTRA, arXiv 2406.06664). ê_t enters the speech encoder after its first blocks; those above
are shared by both.

A symbol's vector is its own (`units: symbols`), or the sum of the vectors of its UTF-8 bytes, each with its place in
the symbol (`units: bytes`): scripts that were never spoken then share parameters with those that were, as in
Maestro-U (arXiv 2210.10027 §3.1), and durations stay those of whole symbols. With `units: latin` it is its own, zero
at first, and those of its Latin letters, ш = s + h: bytes of two scripts have nothing in common, κ, к and k have the
sound. With `units: phonemes` not the transcript is read, but its pronunciation by espeak-ng's rules.
"""

from collections.abc import Iterable
from typing import Literal

import torch
from anyascii import anyascii
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from isogloss.config import Config
from isogloss.encoders.stack import Stack
from isogloss.encoders.transformer import TransformerConfig
from isogloss.errors import IsoglossError, did_you_mean
from isogloss.nn.attention import SelfAttention
from isogloss.nn.dropout import Dropout, evaluating
from isogloss.nn.durations import rounded
from isogloss.nn.lightconv import LightweightBlock
from isogloss.nn.masks import FullContext, attention_mask
from isogloss.nn.upsampling import Upsampler, Upsampling
from isogloss.sequence import Sequence

BYTES = 256
LONGEST_SYMBOL = 16
"""Bytes of a symbol that are told apart; a character has at most four, a piece may have more."""
SLOWEST = 0.64
"""Seconds a unit that a text may last on average: slower than anybody speaks, in any script."""


class TextEncoderConfig(Config):
    """Text encoder, duration network, upsampler and refiner; MAESTRO's sizes are in the descriptions."""

    entry: int = Field(2, ge=0, description="number of first blocks for speech only; MAESTRO 6 of 24, MOST 1")
    units: Literal["symbols", "bytes", "latin", "phonemes"] = Field(
        "symbols", description="text units: symbols, as sums of bytes or of Latin letters, or phonemes"
    )
    convolutions: int = Field(3, ge=0, description="number of convolutions (kernel 5) over the embedded symbols")
    layers: int = Field(2, ge=0, description="Transformer blocks; MAESTRO 6, mSLAM none")
    heads: int = Field(4, ge=1, description="attention heads, in the refiner too; MAESTRO 8")
    duration_layers: int = Field(
        4, ge=0, description="lightweight convolutions (kernel 3) that predict durations; 0 = equal durations"
    )
    upsampling: Upsampling | Literal["none"] = Field(
        "repeat", description="how text is stretched to frames; none = not at all, as in ASTRA"
    )
    refiner: int = Field(2, ge=0, description="layers of lightweight convolution (kernel 17) and attention; 0 = none")
    languages: bool = Field(True, description="add an embedding of the language to every symbol")
    dropout: float = Field(0.1, ge=0, lt=1, description="dropout after every branch")


class TextEncoder(nn.Module):
    """Symbols of a vocabulary -> states of the encoder's width.

    spelling: the bytes of every symbol, where they make up its vector. languages: those with a vector. frame_seconds:
    from one frame of speech to the next.
    """

    def __init__(
        self,
        config: TextEncoderConfig,
        width: int,
        spelling: list[bytes],
        languages: tuple[str, ...],
        frame_seconds: float,
    ):
        super().__init__()
        self.entry = config.entry
        self.slowest = round(SLOWEST / frame_seconds)
        self.symbols: nn.Module
        if config.units in ("symbols", "phonemes"):
            self.symbols = nn.Embedding(len(spelling), width)
        else:
            romanised = config.units == "latin"
            self.symbols = SpelledEmbedding(list(map(latin, spelling)) if romanised else spelling, width, own=romanised)
        self.known = languages if config.languages else ()
        self.language = nn.Embedding(1 + len(self.known), width) if self.known else None  # the first: unknown
        self.convolutions = nn.ModuleList(nn.Conv1d(width, width, 5, padding=2) for _ in range(config.convolutions))
        self.stack = None
        if config.layers:
            blocks = TransformerConfig(layers=config.layers, width=width, heads=config.heads, dropout=config.dropout)
            self.stack = Stack(blocks)
        self.duration = self.upsampler = None
        if config.upsampling != "none":
            self.duration = DurationNetwork(width, config.duration_layers, config.heads, config.dropout)
            self.upsampler = Upsampler(config.upsampling, width)
        self.refiner = nn.ModuleList(RefinerLayer(width, config.heads, config.dropout) for _ in range(config.refiner))
        self.norm = nn.LayerNorm(width)

    def forward(self, units: Sequence, durations: Sequence | None = None) -> Sequence:
        """e_t (B, U+1, D) from `embed` -> ê_t (B, T, D), T the sum of the durations; U+1 without upsampling.

        durations: whole, (B, U+1); predicted if not given.
        """
        frames = units
        if self.upsampler is not None:
            frames = self.upsampler(units, durations or self.durations(units))
        valid = frames.valid
        mask = attention_mask(valid, FullContext())
        x = frames.zero_padding().values
        for layer in self.refiner:
            x = layer(x, valid, mask)
        return frames.with_values(self.norm(x))

    def embed(self, tokens: Sequence, languages: Iterable[str | None] | None = None) -> Sequence:
        """(B, U) symbols -> e_t (B, U+1, D); unit 0 is the silence before them."""
        # Symbol 0, blank, is never written: its vector is that of silence.
        ids = functional.pad(tokens.zero_padding().values, (1, 0))
        units = Sequence(self.symbols(ids), tokens.lengths + 1)
        if self.language is not None:
            index = torch.tensor([self._index(tag) for tag in languages or [None] * len(ids)], device=ids.device)
            units = units.with_values(units.values + self.language(index)[:, None])
        valid = units.valid[..., None]
        for convolution in self.convolutions:
            x = units.zero_padding().values
            mixed = convolution(x.transpose(1, 2)).transpose(1, 2)
            units = units.with_values(torch.where(valid, x + functional.relu(mixed), 0.0))
        return self.stack(units, FullContext()).final if self.stack is not None else units

    def durations(self, units: Sequence) -> Sequence:
        """e_t (B, U+1, D) -> predicted whole durations (B, U+1), a text's 1 frame to `SLOWEST` (U+1) s together."""
        if self.duration is None:
            raise IsoglossError("This text encoder does not stretch texts (upsampling: none), and knows no durations.")
        with torch.no_grad(), evaluating(self.duration):
            predicted = units.with_values(self.duration(units).clamp(0, 20).expm1()).zero_padding()
            # An untrained network may ask for minutes.
            slowness = predicted.values.sum(dim=1) / (self.slowest * units.lengths.clamp(min=1))
            frames = rounded(predicted.map(lambda values: values / slowness.clamp(min=1)[:, None])).values
        frames[:, 0] += frames.sum(dim=1) == 0
        return units.with_values(frames)

    def _index(self, tag: str | None) -> int:
        """The place of a language's vector."""
        if tag is None:
            return 0
        if tag not in self.known:
            near = did_you_mean(tag, self.known)
            known = ", ".join(self.known)
            raise IsoglossError(f'The text encoder does not know the language "{tag}".{near} It knows: {known}.')
        return 1 + self.known.index(tag)


def latin(spelled: bytes) -> bytes:
    """A symbol in small Latin letters, without marks: ш is sh, ș is s; what is no text, or has no letters, is empty."""
    return anyascii(spelled.decode(errors="ignore")).lower().encode()


class SpelledEmbedding(nn.Module):
    """Symbols as sums over their bytes: Σ_i E[byte_i] + P[i]; what has no bytes has a vector for that.

    own: and a vector of each symbol itself, zero at first.
    """

    def __init__(self, spelling: list[bytes], width: int, own: bool = False):
        super().__init__()
        self.own = nn.Embedding(len(spelling), width) if own else None
        if self.own is not None:
            nn.init.zeros_(self.own.weight)
        self.byte = nn.Embedding(BYTES + 2, width, padding_idx=BYTES + 1)  # and: no bytes, no byte
        self.place = nn.Embedding(LONGEST_SYMBOL + 1, width, padding_idx=LONGEST_SYMBOL)
        shape = len(spelling), LONGEST_SYMBOL
        table = torch.full(shape, BYTES + 1)
        for symbol, text in enumerate(spelling):
            found = list(text[:LONGEST_SYMBOL]) or [BYTES]
            table[symbol, : len(found)] = torch.tensor(found)
        self.table: Tensor
        self.register_buffer("table", table, persistent=False)

    def forward(self, ids: Tensor) -> Tensor:
        """(B, U) -> (B, U, D)."""
        spelled = self.table[ids]
        places = torch.arange(LONGEST_SYMBOL, device=ids.device)
        places = torch.where(spelled == BYTES + 1, LONGEST_SYMBOL, places)
        made = (self.byte(spelled) + self.place(places)).sum(dim=2)
        return made if self.own is None else made + self.own(ids)


class DurationNetwork(nn.Module):
    """Lightweight convolutions and one linear layer: log(1 + frames) of every unit; without any, one number for all."""

    def __init__(self, width: int, layers: int, heads: int, dropout: float):
        super().__init__()
        self.blocks = nn.ModuleList(LightweightBlock(width, heads, 3, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.output = nn.Linear(width, 1)

    def forward(self, units: Sequence) -> Tensor:
        """(B, U+1, D) -> (B, U+1) float32."""
        valid = units.valid
        x = units.zero_padding().values if self.blocks else torch.zeros_like(units.values)
        for block in self.blocks:
            x = block(x, valid)
        return self.output(self.norm(x))[..., 0].float()


class RefinerLayer(nn.Module):
    """Lightweight convolution of 17 frames, then self-attention."""

    def __init__(self, width: int, heads: int, dropout: float):
        super().__init__()
        self.block = LightweightBlock(width, heads, 17, dropout)
        self.norm = nn.LayerNorm(width)
        self.attention = SelfAttention(width, heads, "rotary")
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor, valid: Tensor, mask: Tensor | None) -> Tensor:
        """x: (B, T, D), valid: (B, T) bool, mask: as of `SelfAttention` -> (B, T, D)."""
        x = self.block(x, valid)
        return x + self.dropout(self.attention(self.norm(x), mask))
