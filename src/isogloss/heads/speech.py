"""Speech written by the attention decoder (SpeechT5; Ao et al. 2022, arXiv 2110.07205 §2.2): states -> log-mel.

    states (B, T, D) ───────────────────────────────────┐                        ┌─ linear ─> is it over?
    frames before ─ 3 × (linear, ReLU, dropout) ─ linear ┴ attention's blocks ───┴─ linear ─> ŷ ─ + 5 convolutions ─> ŷ'

A step writes as many feature frames as an encoder frame has. The blocks are those that write text; what
is here leads into them and out. States of speech and of text may be mixed with codes that both share (§2.3.3):

    u_i or, for a tenth of them, q(u_i)         q: shared codes, chosen by Gumbel softmax (the paper: the nearest)
"""

from itertools import pairwise
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import pad

from isogloss.heads.attention import AttentionConfig, AttentionDecoder
from isogloss.heads.base import BaseHeadConfig, Head, Sizes
from isogloss.nn.dropout import Dropout
from isogloss.nn.quantizers import GumbelQuantizer
from isogloss.nn.subsampling import stack
from isogloss.sequence import Sequence


class SpeechDecoderConfig(BaseHeadConfig):
    """Pre-net and post-net of speech for the attention decoder, and the codes that speech and text share."""

    kind: Literal["speech"] = "speech"
    target: Literal["features"] = "features"
    decoder: str = Field("attention", description="name of the attention decoder that also predicts speech")
    prenet: int = Field(256, ge=1, description="width of the three layers that take in features")
    dropout: float = Field(
        0.5, ge=0, lt=1, description="dropout in those layers, against merely repeating the previous frame"
    )
    channels: int = Field(
        256, ge=1, description="channels of the five convolutions (kernel 5) at the end; SpeechT5 512"
    )
    groups: int = Field(2, ge=1, description="groups of shared codes")
    codes: int = Field(100, ge=2, description="codes in each group")
    mixed: float = Field(0.1, ge=0, le=1, description="share of states replaced by codes during training")

    @property
    def beside(self) -> dict[str, str]:
        """The attention decoder."""
        return {self.decoder: "attention"}

    def build(self, sizes: Sizes) -> "SpeechDecoder":
        """Around the attention decoder."""
        decoder = sizes.heads[self.decoder]
        assert isinstance(decoder, AttentionConfig)
        return SpeechDecoder(self, sizes.width, decoder.width, sizes.features, sizes.stride)


class SpeechDecoder(Head):
    """Pre-net, post-net and shared codes."""

    def __init__(self, config: SpeechDecoderConfig, width: int, decoder_width: int, bins: int, stride: int):
        super().__init__()
        self.bins, self.stride = bins, stride
        self.mixed = config.mixed
        inner = config.prenet
        layers = [(nn.Linear(i, inner), nn.ReLU(), Dropout(config.dropout)) for i in (stride * bins, inner, inner)]
        self.prenet = nn.Sequential(*(module for layer in layers for module in layer), nn.Linear(inner, decoder_width))
        self.frames = nn.Linear(decoder_width, stride * bins)
        self.end = nn.Linear(decoder_width, 1)
        sizes = (bins, *[config.channels] * 4, bins)
        self.postnet = nn.ModuleList(nn.Conv1d(i, o, 5, padding=2) for i, o in pairwise(sizes))
        self.quantizer = GumbelQuantizer(width, config.groups, config.codes, width)

    def forward(
        self, states: Sequence, features: Sequence, decoder: AttentionDecoder
    ) -> tuple[Sequence, Sequence, Tensor]:
        """What is written, told the frames before: states (B, T', D) and features (B, T, F) -> ŷ, ŷ', the end.

        ŷ and ŷ' are (B, T, F); the end is a logit for each step, (B, ceil(T / stride)).
        """
        before = pad(stack(features, self.stride), (0, 0, 1, 0))[:, :-1]
        steps = Sequence(self.prenet(before), states.lengths)
        written = decoder.decode(steps, decoder.begin(states, remember=False))
        frames = self.frames(written).unflatten(-1, (self.stride, self.bins)).flatten(1, 2)
        rough = features.with_values(frames[:, : features.values.shape[1]])
        return rough, self.refine(rough), self.end(written)[..., 0].float()

    def refine(self, rough: Sequence) -> Sequence:
        """ŷ (B, T, F) -> ŷ' (B, T, F): what the convolutions add."""
        x = rough
        for number, convolution in enumerate(self.postnet, start=1):
            found = convolution(x.zero_padding().values.transpose(1, 2)).transpose(1, 2)
            x = x.with_values(found.tanh() if number < len(self.postnet) else found)
        return rough.with_values(rough.values + x.values)

    def mix(self, states: Sequence, temperature: float) -> tuple[Sequence, Tensor]:
        """States (B, T, D) -> the same with codes in some places, and how often each code is likely, (G, V).

        temperature: of the Gumbel softmax that chooses the codes.
        """
        valid = states.valid
        quantised, _, likely = self.quantizer(states.values[valid], temperature)
        replaced = torch.rand(len(quantised), 1, device=valid.device) < (self.mixed if self.training else 0.0)
        values = states.values.clone()
        values[valid] = torch.where(replaced, quantised, values[valid])
        return states.with_values(values), likely.mean(dim=0)
