"""Beam search over a transducer, frame by frame, with at most one symbol a frame.

Texts that several paths write are one prefix whose probability is their sum. A frame of 40 ms that had to write
two symbols writes the second one into the next frame, which costs little and makes all prefixes of a frame one batch.
"""

from __future__ import annotations

import torch
from torch import Tensor

from isogloss.decoding.beam import Beam, Found, Prefix, ranked, root, total, worth_trying
from isogloss.decoding.hypothesis import Hypothesis
from isogloss.decoding.protocols import TransducerProtocol
from isogloss.decoding.symbols import Symbols, limited
from isogloss.nn.lattice import best_path
from isogloss.nn.predictors import State
from isogloss.sequence import Sequence
from isogloss.text.tokenizers import BLANK


def transducer_beam(head: TransducerProtocol, states: Sequence, beam: Beam) -> list[list[Hypothesis]]:
    """(B, T, D) -> for each utterance up to `beam.most` hypotheses, the best first.

    A symbol's frame is that of the best path through the hypothesis.
    """
    rows = [head.audio(item) for item in states.unpad()]
    return [[_aligned(head, row, found, beam.allowed) for found in _search(head, row, beam)] for row in rows]


class _Texts:
    """What the predictor makes of each prefix: computed once, for all new ones of a frame together."""

    def __init__(self, head: TransducerProtocol, start: Prefix):
        self.head = head
        text, state = head.begin(1)
        self._silence = torch.zeros(text.shape[1], device=text.device)
        self._known: dict[int, tuple[Tensor, State]] = {}
        self._add([start], text, state)

    def read(self, prefixes: list[Prefix]) -> None:
        """Read the last symbols of prefixes that are new."""
        new = [prefix for prefix in prefixes if id(prefix) not in self._known]
        if new:
            symbols = torch.tensor([prefix.symbol for prefix in new], device=self._silence.device)
            states = [self._known[id(prefix.parent)][1] for prefix in new]
            self._add(new, *self.head.step(symbols, tuple(torch.stack(part) for part in zip(*states, strict=True))))

    def states(self, prefixes: list[Prefix]) -> Tensor:
        """(n, J)."""
        return torch.stack([self._known[id(prefix)][0] for prefix in prefixes])

    def internal(self, prefixes: list[Prefix]) -> Tensor:
        """log p of the next symbol without any audio, (n, V): what the network knows of the language."""
        scores = self.head.join(self._silence, self.states(prefixes))
        return scores.index_fill(1, torch.tensor([BLANK], device=scores.device), -torch.inf).log_softmax(dim=1)

    def _add(self, prefixes: list[Prefix], text: Tensor, state: State) -> None:
        for row, prefix in enumerate(prefixes):
            self._known[id(prefix)] = text[row], tuple(part[row] for part in state)


def _search(head: TransducerProtocol, audio: Tensor, beam: Beam) -> list[Found]:
    """(T, J) -> tokens and scores, the best first."""
    start = root(beam)
    texts = _Texts(head, start)
    beams: dict[int, tuple[Prefix, float]] = {id(start): (start, 0.0)}
    for frame in audio:
        prefixes = [prefix for prefix, _ in beams.values()]
        scores = limited(head.join(frame, texts.states(prefixes)), beam.allowed).double().cpu().numpy()
        inner = texts.internal(prefixes).double().cpu().numpy() if beam.internal else None
        found: dict[int, tuple[Prefix, float]] = {}
        for row, (prefix, before) in enumerate(beams.values()):
            _add(found, prefix, before + scores[row, BLANK])
            for symbol in worth_trying(scores[row], beam):
                if not prefix.may_go_on(symbol, beam):
                    continue
                extra = -beam.internal * float(inner[row, symbol]) if inner is not None else 0.0
                _add(found, prefix.then(symbol, beam, extra), before + scores[row, symbol])
        best = ranked(found.values(), beam.width)
        beams = {id(prefix): found[id(prefix)] for prefix in best}
        texts.read(best)
    finished = [(prefix.tokens(), score + prefix.ended(beam)) for prefix, score in beams.values()]
    return sorted(finished, key=lambda pair: -pair[1])[: beam.most]


def _add(found: dict[int, tuple[Prefix, float]], prefix: Prefix, score: float) -> None:
    _, before = found.get(id(prefix), (prefix, -torch.inf))
    found[id(prefix)] = prefix, total(before, float(score))


def _aligned(head: TransducerProtocol, audio: Tensor, found: Found, allowed: Symbols | None) -> Hypothesis:
    """(T, J): frames of symbols by the best path through the lattice, and their probabilities there."""
    tokens, score = found
    written = torch.tensor(tokens, dtype=torch.int64, device=audio.device)
    lengths = torch.tensor([len(audio)], device=audio.device), torch.tensor([len(tokens)], device=audio.device)
    text = head.predict(Sequence(written[None], lengths[1]))[0]
    scores = limited(head.join(audio[:, None], text), allowed)  # (T, U+1, V)
    symbols = torch.cat([written, written.new_zeros(1)])
    label = scores.gather(2, symbols.expand(len(audio), -1)[..., None])[..., 0]
    frames = best_path(scores[None, ..., BLANK], label[None], lengths)[0][0].tolist()[: len(tokens)]
    said = [float(label[frame, place].exp()) for place, frame in enumerate(frames)]
    return Hypothesis(tokens, [(frame, frame + 1) for frame in frames], said, score)
