"""CTC prefix beam search with a language model and hotwords (Hannun et al. 2014, arXiv 1408.2873).

A prefix is a text that some paths have written so far; its probability is the sum over those that end in
blank and those that end in its last symbol. Prefixes are ranked by

    log p_ctc(prefix) + λ log p_lm(prefix) + μ |prefix| + hotwords(prefix)

and the best go on to the next frame.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from isogloss.decoding.greedy import limited
from isogloss.decoding.hotwords import Hotwords
from isogloss.decoding.hypothesis import Hypothesis
from isogloss.heads.ctc import BLANK
from isogloss.nn.ctc import ctc_best_path
from isogloss.sequence import Sequence
from isogloss.text.ngram import BOUNDARY, NGram

Scores = NDArray[np.float64]


@dataclass(frozen=True)
class Beam:
    """How to search.

    width: prefixes that go on. margin: symbols less likely than the best of their frame by more than
    this many nats are not tried. language_model, weight, bonus: p_lm, λ, and μ in nats a symbol.
    hotwords: what is likelier to be said than anybody would think.
    """

    width: int = 8
    margin: float = 8.0
    language_model: NGram | None = None
    weight: float = 0.5
    bonus: float = 0.5
    hotwords: Hotwords | None = None


@dataclass(slots=True)
class _Prefix:
    """A text, as its last symbol and the prefix before it.

    extra: all but log p_ctc. matched: what of the hotwords it ends in.
    """

    symbol: int
    parent: _Prefix | None
    extra: float
    context: tuple[int, ...] = ()
    matched: int = 0
    following: dict[int, _Prefix] = field(default_factory=dict)

    def tokens(self) -> list[int]:
        found: list[int] = []
        prefix: _Prefix | None = self
        while prefix is not None and prefix.parent is not None:
            found.append(prefix.symbol)
            prefix = prefix.parent
        return found[::-1]


Beams = dict[int, tuple[_Prefix, float, float]]
"""By identity: a prefix, and log p of the paths that end in blank and in its last symbol."""


def beam_search(
    log_probabilities: Sequence, beam: Beam, allowed: Tensor | None = None, most: int | None = None
) -> list[list[Hypothesis]]:
    """(B, T, V) -> for each utterance up to `width` hypotheses, the best first.

    allowed: (V,) bool, the symbols that may be written, blank among them. most: return no more than
    so many. Frames of symbols are those of the best path through the hypothesis.
    """
    values = limited(log_probabilities.values, allowed)
    rows = values.double().cpu().numpy()
    lengths = log_probabilities.lengths.tolist()
    return [_aligned(values[i], n, _search(rows[i, :n], beam)[:most]) for i, n in enumerate(lengths)]


def _search(frames: Scores, beam: Beam) -> list[tuple[list[int], float]]:
    """(T, V) -> tokens and scores, the best first."""
    context = beam.language_model.context(()) if beam.language_model else ()
    root = _Prefix(BLANK, None, 0.0, context)
    beams: Beams = {id(root): (root, 0.0, -math.inf)}
    for scores in frames:
        symbols = np.flatnonzero(scores >= scores.max() - beam.margin)
        tried = [int(symbol) for symbol in symbols if symbol != BLANK]
        beams = _best(_extended(beams, scores, tried, beam), beam.width)
    finished = [(prefix.tokens(), _total(b, s) + _ended(prefix, beam)) for prefix, b, s in beams.values()]
    return sorted(finished, key=lambda pair: -pair[1])


def _extended(beams: Beams, scores: Scores, symbols: list[int], beam: Beam) -> Beams:
    """Every prefix by one frame: as it is, and with every symbol tried."""
    found: Beams = {}

    def add(prefix: _Prefix, blank: float, symbol: float) -> None:
        _, before, said = found.get(id(prefix), (prefix, -math.inf, -math.inf))
        found[id(prefix)] = (prefix, _total(before, blank), _total(said, symbol))

    for prefix, blank, said in beams.values():
        total = _total(blank, said)
        add(prefix, total + scores[BLANK], said + scores[prefix.symbol] if prefix.parent else -math.inf)
        for symbol in symbols:
            # The last symbol again is a second one only after a blank.
            before = blank if symbol == prefix.symbol else total
            add(_next(prefix, symbol, beam), -math.inf, before + scores[symbol])
    return found


def _best(beams: Beams, width: int) -> Beams:
    scores = {key: _total(blank, said) + prefix.extra for key, (prefix, blank, said) in beams.items()}
    possible = [key for key, score in scores.items() if score > -math.inf]
    return {key: beams[key] for key in sorted(possible, key=lambda key: -scores[key])[:width]}


def _next(prefix: _Prefix, symbol: int, beam: Beam) -> _Prefix:
    """The prefix with another symbol; one object, whichever path comes by."""
    found = prefix.following.get(symbol)
    if found is None:
        extra, context, matched = prefix.extra + beam.bonus, prefix.context, prefix.matched
        if beam.language_model is not None:
            extra += beam.weight * float(beam.language_model.scores(context)[symbol])
            context = (*context, symbol)[1:] if context else ()
        if beam.hotwords is not None:
            matched, gain = beam.hotwords.step(matched, symbol)
            extra += gain
        found = prefix.following[symbol] = _Prefix(symbol, prefix, extra, context, matched)
    return found


def _ended(prefix: _Prefix, beam: Beam) -> float:
    """What is added to log p_ctc when the text ends here."""
    extra = prefix.extra
    if beam.language_model is not None:
        extra += beam.weight * float(beam.language_model.scores(prefix.context)[BOUNDARY])
    if beam.hotwords is not None:
        extra += beam.hotwords.end(prefix.matched)
    return extra


def _total(one: float, other: float) -> float:
    """log(eᵃ + eᵇ)."""
    if one < other:
        one, other = other, one
    return one if other == -math.inf else one + math.log1p(math.exp(other - one))


def _aligned(values: Tensor, frames: int, found: list[tuple[list[int], float]]) -> list[Hypothesis]:
    """(T, V) of one utterance: frames of symbols by the best path, and their mean probability there."""
    texts = Sequence.from_list([torch.tensor(tokens, dtype=torch.int64, device=values.device) for tokens, _ in found])
    scores = Sequence(values.expand(len(found), -1, -1), torch.full_like(texts.lengths, frames))
    spans, _ = ctc_best_path(scores, texts)
    hypotheses = []
    for (tokens, score), places in zip(found, spans.tolist(), strict=True):
        own = [(start, end) for start, end in places[: len(tokens)]]
        said = [values[start:end, token].exp() for token, (start, end) in zip(tokens, own, strict=True)]
        hypotheses.append(Hypothesis(tokens, own, float(torch.cat(said).mean()) if said else 0.0, score))
    return hypotheses
