"""The classical pipeline: lexicon, n-gram model of words and CTC's topology in one weighted automaton, searched frame
by frame (Mohri et al. 2002; Miao et al. 2015, arXiv 1507.08240). It writes words of the lexicon and no others.

    G    a state for each context h, p(w | h) on its arcs, γ(h) on an arc to the shorter context
    LG   in place of the arcs of h the tree of its words' symbols, each with its share of -log p as early as possible
    TLG  CTC's topology ∘ LG: every symbol for one frame or more, blanks between

The automata are kaldifst's and the search kaldi-decoder's: pip install isogloss[wfst].
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isogloss.decoding.ctc_beam import aligned
from isogloss.decoding.hypothesis import Hypothesis
from isogloss.errors import IsoglossError
from isogloss.sequence import Sequence
from isogloss.text.ngram import BOUNDARY, NGram, train_ngram
from isogloss.text.tokenizers import BLANK, SentencePieceTokenizer, Tokenizer

EPSILON = 0
"""Of automata; hence symbol s has the label s + 1."""
Context = tuple[int, int]
"""Of the n-gram model: how many words, and which, as a key of `NGram`."""


class WordGraph:
    """All sentences of a lexicon's words as an automaton over CTC's frames."""

    def __init__(self, automaton: Any):
        self.automaton = automaton

    def decode(
        self, log_probabilities: Sequence, beam: float = 16.0, active: int = 7000, weight: float = 0.5
    ) -> list[Hypothesis]:
        """(B, T, V) -> B hypotheses; empty ones where nothing of the lexicon fits.

        beam: paths worse than the best by so much of log p_ctc / λ + log p_lm are given up. active: paths that go
        on at most. weight: λ, of the language model in log p_ctc + λ log p_lm, by which hypotheses are scored.
        """
        values = log_probabilities.values
        rows = (values.float() / weight).cpu().numpy()
        found = []
        for row, frames in enumerate(log_probabilities.lengths.tolist()):
            tokens, score = self._best(np.ascontiguousarray(rows[row, :frames]), beam, active)
            found += aligned(values[row], frames, [(tokens, weight * score)])
        return found

    def _best(self, scores: NDArray[np.float32], beam: float, active: int) -> tuple[list[int], float]:
        """(T, V) -> symbols and score of the best path to the end of a sentence."""
        kaldifst, kaldi = _libraries()
        decoder = kaldi.FasterDecoder(self.automaton, kaldi.FasterDecoderOptions(beam=beam, max_active=active))
        if len(scores):
            decoder.decode(kaldi.DecodableCtc(scores))
        if not len(scores) or not decoder.reached_final():
            return [], -math.inf
        _, path = decoder.get_best_path()
        _, labels, _, cost = kaldifst.get_linear_symbol_sequence(path)
        frames = [label - 1 for label in labels]
        pairs = zip(frames, [BLANK, *frames], strict=False)
        said = [symbol for symbol, before in pairs if symbol not in (BLANK, before)]
        return said, -(cost.value1 + cost.value2)


def word_graph(sentences: Iterable[str], tokenizer: Tokenizer, order: int = 3) -> WordGraph:
    """The words of some normalised sentences, as likely after each other as they are there.

    order: words the language model counts together. Raises IsoglossError for a tokenizer whose symbols reach over
    words, and where there is no text.
    """
    if isinstance(tokenizer, SentencePieceTokenizer):
        raise IsoglossError("A word graph needs a tokenizer that spells words one by one: characters or bytes.")
    texts = [sentence.split() for sentence in sentences]
    words = sorted({word for text in texts for word in text})
    number = {word: n for n, word in enumerate(words, start=1)}
    grammar = train_ngram([[number[word] for word in text] for text in texts], len(words) + 1, order)
    spelled = [[], *(tokenizer.encode(word) for word in words)]
    (space,) = tokenizer.encode(" ")
    return WordGraph(_with_topology(_lexical(_Grammar(grammar), spelled, space), tokenizer.size))


class _Grammar:
    """An n-gram model as G: costs (-log p) of words and ends after each context, and of the way to a shorter one."""

    def __init__(self, model: NGram):
        self.start: Context = model.order - 1, 0
        self.words: dict[Context, list[tuple[int, float, Context]]] = defaultdict(list)
        self.backoffs: dict[Context, tuple[float, Context]] = {}
        self.ends: dict[Context, float] = {}
        contexts = [set(order.contexts.tolist()) for order in model.orders]

        def longest(key: int, length: int) -> Context:
            """What the next word depends on after the last words of a key."""
            while key % model.vocabulary**length not in contexts[length]:
                length -= 1
            return length, key % model.vocabulary**length

        for length, (order, probabilities) in enumerate(zip(model.orders, model.seen(), strict=True)):
            for key, backoff in zip(order.contexts.tolist(), order.backoffs.tolist(), strict=True):
                if length:
                    self.backoffs[length, key] = -math.log(backoff), longest(key, length - 1)
            for key, cost in zip(order.keys.tolist(), (-np.log(probabilities)).tolist(), strict=True):
                before, word = divmod(key, model.vocabulary)
                if word == BOUNDARY:
                    self.ends[length, before] = cost
                else:
                    self.words[length, before].append((word, cost, longest(key, min(length + 1, model.order - 1))))

    def end(self, context: Context) -> float:
        """The cost of a sentence's end after a context."""
        if context in self.ends or context not in self.backoffs:
            return self.ends.get(context, math.inf)
        cost, shorter = self.backoffs[context]
        return cost + self.end(shorter)


@dataclass
class _Tree:
    """Words that share their first symbols. least: the smallest cost of one; ends: costs of those that end here."""

    least: float = math.inf
    following: dict[int, _Tree] = field(default_factory=dict)
    ends: list[tuple[float, Context]] = field(default_factory=list)

    def add(self, symbols: list[int], cost: float, after: Context) -> None:
        """A word, and the context that it leads to."""
        path = [self]
        for symbol in symbols:
            path.append(path[-1].following.setdefault(symbol, _Tree()))
        for tree in path:
            tree.least = min(tree.least, cost)
        path[-1].ends.append((cost, after))


def _lexical(grammar: _Grammar, spelled: list[list[int]], space: int) -> Any:
    """LG, over symbols."""
    fst = _libraries()[0].StdVectorFst()
    states: dict[Context, int] = defaultdict(fst.add_state)
    end = fst.add_state()
    fst.set_final(end, 0.0)
    fst.start = states[grammar.start]
    for context, (cost, shorter) in grammar.backoffs.items():
        _add(fst, states[context], EPSILON, cost, states[shorter])
    for context, words in grammar.words.items():
        tree = _Tree()
        for word, cost, after in words:
            tree.add(spelled[word], cost, after)
        todo = [(tree, states[context], 0.0)]
        while todo:
            tree, state, paid = todo.pop()
            for symbol, below in tree.following.items():
                todo.append((below, fst.add_state(), below.least))
                _add(fst, state, symbol + 1, below.least - paid, todo[-1][1])
            for cost, after in tree.ends:
                _add(fst, state, space + 1, cost - paid, states[after])
                _add(fst, state, EPSILON, cost - paid + grammar.end(after), end)
    return fst


def _with_topology(lexical: Any, symbols: int) -> Any:
    """T ∘ LG. T: in state s the last frame was symbol s; a symbol is written when its first frame comes."""
    kaldifst = _libraries()[0]
    topology = kaldifst.StdVectorFst()
    for symbol in range(symbols):
        topology.add_state()
        topology.set_final(symbol, 0.0)
    topology.start = BLANK
    for before in range(symbols):
        for symbol in range(symbols):
            silent = symbol in (BLANK, before)
            _add(topology, before, symbol + 1, 0.0, symbol, EPSILON if silent else symbol + 1)
    kaldifst.arcsort(topology, "olabel")
    kaldifst.arcsort(lexical, "ilabel")
    return kaldifst.compose(topology, lexical)


def _add(fst: Any, state: int, label: int, cost: float, following: int, written: int | None = None) -> None:
    """An arc that reads a label and writes the same one, or another."""
    arc = _libraries()[0].StdArc(label, label if written is None else written, cost, following)
    fst.add_arc(state, arc)


@cache
def _libraries() -> tuple[Any, Any]:
    """kaldifst and kaldi-decoder, which are not always installed."""
    try:
        import kaldi_decoder
        import kaldifst
    except ImportError:
        raise IsoglossError("Word graphs need kaldifst and kaldi-decoder: pip install isogloss[wfst].") from None
    return kaldifst, kaldi_decoder
