"""Prefix beam search against the sum over all paths, with a language model and with hotwords."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from isogloss.decoding.beam import Beam, beam_search
from isogloss.decoding.greedy import greedy
from isogloss.decoding.hotwords import START, Hotwords
from isogloss.sequence import Sequence
from isogloss.text.ngram import NGram, train_ngram

ALL = Beam(width=10**6, margin=math.inf, bonus=0.0)
MODEL = train_ngram([[1, 2], [1, 2, 1], [2, 2], [1], [3, 1]], 4, 2)


def scores(frames: int, symbols: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (2 * torch.randn(frames, symbols, generator=generator, dtype=torch.float64)).log_softmax(dim=-1)


def enumerated(values: Tensor) -> dict[tuple[int, ...], float]:
    """log of the summed probability of every text."""
    found: dict[tuple[int, ...], float] = {}
    for path in itertools.product(range(values.shape[1]), repeat=len(values)):
        text = tuple(symbol for symbol, _ in itertools.groupby(path) if symbol)
        found[text] = found.get(text, 0.0) + math.exp(sum(float(values[t, s]) for t, s in enumerate(path)))
    return {text: math.log(total) for text, total in found.items()}


def hotword_gain(text: tuple[int, ...], words: list[list[int]], bonus: float) -> float:
    hotwords, state, total = Hotwords(words, bonus), START, 0.0
    for symbol in text:
        state, gain = hotwords.step(state, symbol)
        total += gain
    return total + hotwords.end(state)


@pytest.mark.parametrize("frames", [0, 1, 2, 4, 5])
@pytest.mark.parametrize("model", [None, MODEL])
@pytest.mark.parametrize("words", [[], [[1, 2]], [[2, 1, 3], [1, 1]]], ids=str)
def test_a_wide_beam_sums_every_path_of_every_text(frames: int, model: NGram | None, words: list) -> None:
    values = scores(frames, 4, seed=frames)
    hotwords = Hotwords(words, 0.7) if words else None
    beam = Beam(ALL.width, math.inf, language_model=model, weight=0.6, bonus=0.3, hotwords=hotwords)
    found = beam_search(Sequence.from_list([values]), beam)[0]
    expected = {}
    for text, total in enumerated(values).items():
        expected[text] = total + 0.3 * len(text) + (0.6 * model.log_probability(text) if model else 0)
        expected[text] += hotword_gain(text, words, 0.7)
    assert {tuple(h.tokens): pytest.approx(h.score) for h in found} == expected
    assert [h.score for h in found] == sorted((h.score for h in found), reverse=True)


@given(st.lists(st.integers(0, 25), min_size=1, max_size=4), st.integers(0, 2**31))
@settings(max_examples=25, deadline=None)
def test_a_batch_is_each_utterance_alone(lengths: list[int], seed: int) -> None:
    items = [scores(n, 6, seed + i) for i, n in enumerate(lengths)]
    batch = Sequence.from_list(items)
    batch = Sequence(batch.values.masked_fill(~batch.valid[..., None], float("nan")), batch.lengths)
    together = beam_search(batch, Beam(width=4))
    for item, found in zip(items, together, strict=True):
        assert found == beam_search(Sequence.from_list([item]), Beam(width=4))[0]
        assert 1 <= len(found) <= 4
        for hypothesis in found:
            assert len(hypothesis.frames) == len(hypothesis.tokens) and 0 <= hypothesis.confidence <= 1


def test_sharp_posteriors_are_read_as_greedily() -> None:
    values = (20 * scores(40, 6, 1)).log_softmax(dim=-1)
    best = beam_search(Sequence.from_list([values]), Beam(bonus=0.0))[0][0]
    plain = greedy(Sequence.from_list([values]))[0]
    assert best.tokens == plain.tokens and best.frames == plain.frames


def test_only_allowed_symbols_are_written() -> None:
    allowed = torch.tensor([True, False, True, True, False, False])
    found = beam_search(Sequence.from_list([scores(30, 6, 2)]), Beam(), allowed)[0]
    assert found[0].tokens and set(found[0].tokens) <= {2, 3}


def test_a_hotword_is_heard_where_it_is_nearly_said() -> None:
    """[1 3] is a little likelier than [1 2], of which the hotword is made."""
    rows = torch.tensor([[0.1, 0.8, 0.05, 0.05], [0.9, 0.04, 0.03, 0.03], [0.1, 0.02, 0.38, 0.5]]).double().log()
    batch = Sequence.from_list([rows])
    assert beam_search(batch, Beam())[0][0].tokens == [1, 3]
    assert beam_search(batch, Beam(hotwords=Hotwords([[1, 2]])))[0][0].tokens == [1, 2]
    assert beam_search(batch, Beam(hotwords=Hotwords([[1, 2, 1, 1]])))[0][0].tokens == [1, 3]


@given(
    st.lists(st.lists(st.integers(1, 3), min_size=1, max_size=4), min_size=1, max_size=4),
    st.lists(st.integers(1, 3), max_size=12),
)
@settings(max_examples=200, deadline=None)
def test_hotwords_gain_for_whole_words_only(words: list[list[int]], text: list[int]) -> None:
    gain = hotword_gain(tuple(text), words, 1.0)
    spelled = any(text[i : i + len(word)] == word for word in words for i in range(len(text)))
    assert gain >= 0 and (gain > 0) <= spelled
    if len(words) == 1 and text == words[0]:
        assert gain == len(text)
