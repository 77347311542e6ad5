"""What every beam search shares: how to search, and texts as a tree of prefixes with what is known of each.

A text is ranked by

    log p(text | audio) + λ log p_lm(text) + μ |text| + hotwords(text)

where p is CTC's, the transducer's or the attention decoder's: see `ctc_beam`, `transducer_beam`, `attention_beam`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from isogloss.decoding.hotwords import START, Hotwords, State
from isogloss.decoding.symbols import Symbols
from isogloss.text.ngram import BOUNDARY, NGram

Scores = NDArray[np.float64]
Found = tuple[list[int], float]
"""Tokens and score."""


@dataclass(frozen=True)
class Beam:
    """How to search.

    width: texts that go on from step to step. margin: symbols less likely than the best of their step by
    more than this many nats are not tried. most: texts to return. language_model, weight, bonus: p_lm, λ, and
    μ in nats a symbol. internal: weight of the language model inside a transducer, which is subtracted
    (Meng et al. 2021, arXiv 2011.01991). ctc: weight of log p_ctc(text) in ranking what the attention
    decoder wrote. hotwords: what is likelier to be said than anybody would think. allowed: which symbols may
    follow which.
    """

    width: int = 8
    margin: float = 6.0
    most: int = 1
    language_model: NGram | None = None
    weight: float = 0.5
    bonus: float = 0.5
    internal: float = 0.0
    ctc: float = 0.5
    hotwords: Hotwords | None = None
    allowed: Symbols | None = None

    @property
    def most_gained(self) -> float:
        """What another symbol can add to a text's score, but for log p(text | audio)."""
        return self.bonus + (self.hotwords.bonus if self.hotwords else 0.0)


@dataclass(slots=True)
class Prefix:
    """A text, as its last symbol and the prefix before it.

    extra: its score but for log p(text | audio). matched: what of the hotwords it ends in. within: state of the
    word being written, as the beam's allowed symbols have it.
    """

    symbol: int
    parent: Prefix | None
    extra: float
    context: tuple[int, ...] = ()
    matched: State = START
    within: int = 0
    following: dict[int, Prefix] = field(default_factory=dict)

    def tokens(self) -> list[int]:
        """The symbols from the first on."""
        found: list[int] = []
        prefix: Prefix | None = self
        while prefix is not None and prefix.parent is not None:
            found.append(prefix.symbol)
            prefix = prefix.parent
        return found[::-1]

    def then(self, symbol: int, beam: Beam, extra: float = 0.0) -> Prefix:
        """The prefix with another symbol; one object, whichever path comes by. extra: added to its score."""
        found = self.following.get(symbol)
        if found is None:
            extra, context, matched = self.extra + extra + beam.bonus, self.context, self.matched
            within = self.within if beam.allowed is None else beam.allowed.step(self.within, symbol)
            if beam.language_model is not None:
                extra += beam.weight * float(beam.language_model.scores(context)[symbol])
                context = (*context, symbol)[1:] if context else ()
            if beam.hotwords is not None:
                matched, gain = beam.hotwords.step(matched, symbol)
                extra += gain
            found = self.following[symbol] = Prefix(symbol, self, extra, context, matched, within)
        return found

    def may_go_on(self, symbol: int, beam: Beam) -> bool:
        """Whether a symbol may come next."""
        return beam.allowed is None or beam.allowed.may_follow(self.within, symbol)

    def ended(self, beam: Beam) -> float:
        """What is added to log p(text | audio) when the text ends here."""
        extra = self.extra
        if beam.language_model is not None:
            extra += beam.weight * float(beam.language_model.scores(self.context)[BOUNDARY])
        if beam.hotwords is not None:
            extra += beam.hotwords.end(self.matched)
        return extra


def root(beam: Beam) -> Prefix:
    """Before the first symbol."""
    return Prefix(0, None, 0.0, beam.language_model.context(()) if beam.language_model else ())


def worth_trying(scores: Scores, beam: Beam) -> list[int]:
    """The symbols but 0 that are within the margin of the best: (V,) -> ids."""
    return [int(symbol) for symbol in np.flatnonzero(scores >= scores.max() - beam.margin) if symbol]


def ranked(found: Iterable[tuple[Prefix, float]], width: int) -> list[Prefix]:
    """The best of the prefixes with log p each, the best first; impossible ones are left out."""
    scores = [(score + prefix.extra, prefix) for prefix, score in found if score > -math.inf]
    return [prefix for _, prefix in sorted(scores, key=lambda pair: -pair[0])[:width]]


def total(one: float, other: float) -> float:
    """log(eᵃ + eᵇ)."""
    if one < other:
        one, other = other, one
    return one if other == -math.inf else one + math.log1p(math.exp(other - one))
