"""Word graphs: the n-gram model on their arcs, and the best path against the score of every sentence."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from isogloss.decoding.word_graph import _Grammar, word_graph
from isogloss.errors import IsoglossError
from isogloss.nn.ctc import ctc_best_path
from isogloss.sequence import Sequence
from isogloss.text.ngram import train_ngram
from isogloss.text.tokenizers import ByteTokenizer, CharactersConfig, SentencePieceConfig, build_tokenizer

SENTENCES = ["ab a", "a ab", "ab ba a", "b", "ba b a", "a a b"]
TOKENIZER = build_tokenizer(CharactersConfig(), SENTENCES)
WORDS = sorted({word for sentence in SENTENCES for word in sentence.split()})


def model(order: int):
    number = {word: n for n, word in enumerate(WORDS, start=1)}
    texts = [[number[word] for word in sentence.split()] for sentence in SENTENCES]
    return train_ngram(texts, len(WORDS) + 1, order), number


def costs(grammar: _Grammar, sentence: list[int]) -> float:
    """What the words cost, each by its arc at the longest context that has one."""
    context, paid = grammar.start, 0.0
    for word in sentence:
        while True:
            arcs = {arc[0]: arc for arc in grammar.words[context]}
            if word in arcs:
                _, cost, context = arcs[word]
                paid += cost
                break
            cost, context = grammar.backoffs[context]
            paid += cost
    return paid + grammar.end(context)


@given(st.integers(1, 4), st.lists(st.integers(1, len(WORDS)), max_size=5))
@settings(max_examples=60)
def test_arcs_cost_what_the_language_model_says(order: int, sentence: list[int]) -> None:
    ngram, _ = model(order)
    assert costs(_Grammar(ngram), sentence) == pytest.approx(-ngram.log_probability(sentence), rel=1e-9)


@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("weight", [0.3, 1.0])
def test_the_best_path_is_that_of_all_sentences(order: int, weight: float) -> None:
    pytest.importorskip("kaldi_decoder")
    ngram, number = model(order)
    generator = torch.Generator().manual_seed(order)
    scores = (2 * torch.randn(4, 7, TOKENIZER.size, generator=generator)).log_softmax(dim=-1)
    frames = Sequence(scores, torch.tensor([7, 5, 3, 1]))
    graph = word_graph(SENTENCES, TOKENIZER, order)
    for row, found in enumerate(graph.decode(frames, beam=1000.0, weight=weight)):
        length = int(frames.lengths[row])
        best, text = -math.inf, ""
        for count in range(1, 4):
            for words in itertools.product(WORDS, repeat=count):
                tokens = TOKENIZER.encode(" ".join(words))
                if len(tokens) > length:
                    continue
                one = Sequence.from_list([torch.tensor(tokens)])
                _, total = ctc_best_path(Sequence(scores[row, None, :length], torch.tensor([length])), one)
                score = float(total[0]) + weight * ngram.log_probability([number[word] for word in words])
                if score > best:
                    best, text = score, " ".join(words)
        assert TOKENIZER.decode(found.tokens) == text
        assert found.score == pytest.approx(best, abs=1e-3)
        assert len(found.frames) == len(found.tokens)


def test_nothing_to_hear_writes_nothing() -> None:
    pytest.importorskip("kaldi_decoder")
    frames = Sequence(torch.zeros(2, 0, TOKENIZER.size), torch.tensor([0, 0]))
    assert [found.tokens for found in word_graph(SENTENCES, TOKENIZER).decode(frames)] == [[], []]


def test_bytes_spell_words_too() -> None:
    pytest.importorskip("kaldi_decoder")
    tokenizer = ByteTokenizer()
    said = [0, *itertools.chain.from_iterable((symbol, 0) for symbol in tokenizer.encode("не да"))]
    scores = torch.full((1, len(said), tokenizer.size), -20.0)
    scores[0, np.arange(len(said)), said] = -0.01
    found = word_graph(["да не", "не да"], tokenizer).decode(Sequence(scores, torch.tensor([len(said)])))
    assert tokenizer.decode(found[0].tokens) == "не да"


def test_pieces_of_words_and_no_text_are_refused() -> None:
    pieces = build_tokenizer(SentencePieceConfig(size=300), SENTENCES * 20)
    with pytest.raises(IsoglossError, match="spells words one by one"):
        word_graph(SENTENCES, pieces)
    with pytest.raises(IsoglossError, match="no text"):
        word_graph([], TOKENIZER)
