"""The transducer (RNN-T; Graves 2012, arXiv 1211.3711): hidden states and symbols so far -> the next symbol.

    states (B, T, D) ──────── audio ─┐
                                     + ─ tanh ─ output ──> logits (B, T, U+1, V), symbol 0 is blank
    tokens (B, U) ─ predictor ─ text ┘
"""

from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from isogloss.config import Config
from isogloss.nn.lattice import best_path
from isogloss.nn.predictors import LSTMConfig, PredictorConfig
from isogloss.nn.pruned import two_step_loss
from isogloss.nn.transducer import fused_arcs, fused_transducer_loss
from isogloss.sequence import Sequence


class TransducerConfig(Config):
    """Predictor and joiner."""

    predictor: PredictorConfig = Field(default_factory=LSTMConfig, description="reads the symbols so far")
    joiner: int = Field(320, ge=1, description="width J of the joiner; Maestro has 640")
    pruned: int | None = Field(
        None, ge=2, description="train the joiner at this many symbol counts a frame, the likeliest; k2 has 5"
    )


class TransducerHead(nn.Module):
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

    def forward(self, states: Sequence, tokens: Sequence) -> Tensor:
        """-log P(tokens) of each utterance, in nats: (B, T, D) and (B, U) -> (B,).

        With `pruned` it is what two joiners pay, nn/pruned.py.
        """
        heard, read = states.zero_padding().values, self.predictor(tokens)
        joiner = self.audio(heard), self.text(read), self.output.weight, self.output.bias
        lengths = states.lengths, tokens.lengths
        if self.pruned:
            simple = self.simple_audio(heard), self.simple_text(read)
            return two_step_loss(simple, joiner, tokens.zero_padding().values, lengths, self.pruned)
        return fused_transducer_loss(*joiner, tokens.values, *lengths, reduction="none")

    def arcs(self, states: Sequence, tokens: Sequence, graph: bool = False) -> tuple[Tensor, Tensor]:
        """Log-probabilities of blank and of the next symbol: (B, T, D), (B, U) -> (B, T, U+1) each.

        graph: with a gradient, for which all (B, T, U+1, V) logits are kept.
        """
        if graph:
            heard, read = self.audio(states.zero_padding().values), self.text(self.predictor(tokens))
            scores = self.join(heard[:, :, None], read[:, None])
            following = torch.nn.functional.pad(tokens.zero_padding().values, (0, 1))[:, None, :, None]
            return scores[..., 0], scores.gather(3, following.expand(-1, scores.shape[1], -1, -1))[..., 0]
        with torch.no_grad():
            heard, read = self.audio(states.zero_padding().values), self.text(self.predictor(tokens))
            joiner = heard.float(), read.float(), self.output.weight.float(), self.output.bias.float()
            return fused_arcs(*joiner, tokens.zero_padding().values, (states.lengths, tokens.lengths))

    def align(self, states: Sequence, tokens: Sequence) -> Tensor:
        """The frame in which the best path writes each symbol: (B, T, D) and (B, U) -> (B, U) int64, -1 after them."""
        return best_path(*self.arcs(states, tokens), (states.lengths, tokens.lengths))[0]

    def join(self, audio: Tensor, text: Tensor) -> Tensor:
        """Projected states (…, J), broadcast against each other -> float32 log-probabilities (…, V)."""
        return self.output(torch.tanh(audio + text)).float().log_softmax(dim=-1)

    def read(self, symbols: Tensor, state: Any) -> tuple[Tensor, Any]:
        """One more symbol each, (B,) -> projected predictor states (B, J) and what is remembered."""
        output, state = self.predictor.step(symbols, state)
        return self.text(output), state
