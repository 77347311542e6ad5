"""The transducer (RNN-T; Graves 2012, arXiv 1211.3711): hidden states and symbols so far -> the next symbol.

    states (B, T, D) ──────── audio ─┐
                                     + ─ tanh ─ output ──> logits (B, T, U+1, V), symbol 0 is blank
    tokens (B, U) ─ predictor ─ text ┘
"""

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from isogloss.decoding.beam import Beam
from isogloss.decoding.greedy import Greedy, GreedyTransducer
from isogloss.decoding.hypothesis import Hypothesis
from isogloss.decoding.symbols import Symbols
from isogloss.decoding.transducer_beam import transducer_beam
from isogloss.heads.base import BaseHeadConfig, Modules, Sizes, SymbolHead
from isogloss.nn.lattice import best_path
from isogloss.nn.predictors import BEGIN, LSTMConfig, PredictorConfig, State
from isogloss.nn.pruned import two_step_loss
from isogloss.nn.transducer import fused_arcs, fused_transducer_loss
from isogloss.sequence import Sequence


class TransducerConfig(BaseHeadConfig):
    """Each symbol given those before it, streaming: predictor and joiner (RNN-T)."""

    kind: Literal["transducer"] = "transducer"
    target: Literal["symbols"] = "symbols"
    predictor: PredictorConfig = Field(default_factory=LSTMConfig, description="network over the symbols so far")
    joiner: int = Field(320, ge=1, description="width J of the joiner; MAESTRO 640")
    pruned: int | None = Field(
        None, ge=2, description="train the joiner only at this many likeliest symbol counts of each frame; k2 5"
    )

    def build(self, sizes: Sizes) -> "TransducerHead":
        """Over states of the encoder's width."""
        return TransducerHead(self, sizes.width, sizes.of(self.target))


class TransducerHead(SymbolHead):
    """Predictor and joiner over encoder states."""

    def __init__(self, config: TransducerConfig, width: int, vocabulary: int):
        super().__init__()
        self.predictor = config.predictor.build(vocabulary)
        self.audio = nn.Linear(width, config.joiner)
        self.text = nn.Linear(self.predictor.width, config.joiner, bias=False)
        self.output = nn.Linear(config.joiner, vocabulary)
        self.pruned = config.pruned
        if config.pruned:
            self.simple_audio = nn.Linear(width, vocabulary)
            self.simple_text = nn.Linear(self.predictor.width, vocabulary)

    def loss(self, states: Sequence, tokens: Sequence) -> Tensor:
        """-log P(tokens) of each utterance, in nats: (B, T, D) and (B, U) -> (B,).

        With `pruned` it is what two joiners pay, nn/pruned.py.
        """
        audio, text = states.zero_padding().values, self.predictor(tokens)
        joiner = self.audio(audio), self.text(text), self.output.weight, self.output.bias
        lengths = states.lengths, tokens.lengths
        if self.pruned:
            simple = self.simple_audio(audio), self.simple_text(text)
            return two_step_loss(simple, joiner, tokens.zero_padding().values, lengths, self.pruned)
        return fused_transducer_loss(*joiner, tokens.values, *lengths, reduction="none")

    def arcs(self, states: Sequence, tokens: Sequence, graph: bool = False) -> tuple[Tensor, Tensor]:
        """Log-probabilities of blank and of the next symbol: (B, T, D), (B, U) -> (B, T, U+1) each.

        graph: with a gradient, for which all (B, T, U+1, V) logits are kept.
        """
        if graph:
            audio, text = self.audio(states.zero_padding().values), self.predict(tokens)
            scores = self.join(audio[:, :, None], text[:, None])
            following = torch.nn.functional.pad(tokens.zero_padding().values, (0, 1))[:, None, :, None]
            return scores[..., 0], scores.gather(3, following.expand(-1, scores.shape[1], -1, -1))[..., 0]
        with torch.no_grad():
            audio, text = self.audio(states.zero_padding().values), self.predict(tokens)
            joiner = audio.float(), text.float(), self.output.weight.float(), self.output.bias.float()
            return fused_arcs(*joiner, tokens.zero_padding().values, (states.lengths, tokens.lengths))

    def align(self, states: Sequence, tokens: Sequence) -> Tensor:
        """The frame in which the best path writes each symbol: (B, T, D) and (B, U) -> (B, U) int64, -1 after them."""
        return best_path(*self.arcs(states, tokens), (states.lengths, tokens.lengths))[0]

    def join(self, audio: Tensor, text: Tensor) -> Tensor:
        """Projected states (…, J), broadcast against each other -> float32 log-probabilities (…, V)."""
        return self.output(torch.tanh(audio + text)).float().log_softmax(dim=-1)

    def predict(self, tokens: Sequence) -> Tensor:
        """(B, U) -> projected predictor states (B, U+1, J); place u has read the symbols before u."""
        return self.text(self.predictor(tokens))

    def begin(self, batch: int) -> tuple[Tensor, State]:
        """Before the first symbol: projected predictor states (B, J) and what is remembered."""
        device = self.output.weight.device
        return self.step(torch.full((batch,), BEGIN, device=device), self.predictor.start(batch, device))

    def step(self, symbols: Tensor, state: State) -> tuple[Tensor, State]:
        """One more symbol each, (B,) -> projected predictor states (B, J) and what is remembered."""
        output, state = self.predictor.step(symbols, state)
        return self.text(output), state

    def greedy(self, batch: int, allowed: Symbols | None = None, heads: Modules | None = None) -> Greedy:
        return GreedyTransducer(self, batch, allowed)

    def beam(self, states: Sequence, beam: Beam, heads: Modules | None = None) -> list[list[Hypothesis]]:
        return transducer_beam(self, states, beam)
