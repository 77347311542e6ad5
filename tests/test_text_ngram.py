"""The n-gram model against a slow one that follows the formulas, and its laws."""

import math
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isogloss.errors import IsoglossError
from isogloss.text.ngram import load_ngram, save_ngram, train_ngram

TEXTS = ["da", "nu", "da nu", "nu da da", "noapte buna", "buna ziua", "ziua buna", "dadada", "nunu", "an", "ban", "bun"]
SYMBOLS = {c: i for i, c in enumerate(sorted(set("".join(TEXTS))), start=1)}
SENTENCES = [[SYMBOLS[c] for c in text] for text in TEXTS]
VOCABULARY = len(SYMBOLS) + 2  # one symbol never occurs


class Slow:
    """Interpolated modified Kneser-Ney with dictionaries, symbol by symbol."""

    def __init__(self, sentences: list[list[int]], vocabulary: int, order: int):
        self.vocabulary, self.order = vocabulary, order
        raw: list[Counter] = [Counter() for _ in range(order + 1)]
        for tokens in sentences:
            padded = [0] * (order - 1) + tokens + [0]
            for end in range(order, len(padded) + 1):
                for length in range(1, order + 1):
                    raw[length][tuple(padded[end - length : end])] += 1
        self.counts = [Counter() for _ in range(order + 1)]
        self.counts[order] = raw[order]
        for length in range(1, order):
            left = defaultdict(set)
            for gram in raw[length + 1]:
                left[gram[1:]].add(gram[0])
            for gram, uses in raw[length].items():
                begins = length > 1 and gram[0] == 0
                self.counts[length][gram] = uses if begins else len(left[gram])
        self.discounts = [None, *(self._discounts(self.counts[n]) for n in range(1, order + 1))]

    def _discounts(self, counts: Counter) -> list[float]:
        n = Counter(counts.values())
        if not (n[1] and n[2] and n[3]):
            return [0, 0.5, 0.5, 0.5]
        y = n[1] / (n[1] + 2 * n[2])
        found = 1 - 2 * y * n[2] / n[1], 2 - 3 * y * n[3] / n[2], 3 - 4 * y * n[4] / n[3]
        return [0, *(min(max(0.05, d), most) for d, most in zip(found, (0.999, 1.999, 2.999), strict=True))]

    def probability(self, context: tuple[int, ...], symbol: int) -> float:
        length = len(context) + 1
        lower = self.probability(context[1:], symbol) if context else 1 / self.vocabulary
        counts, discounts = self.counts[length], self.discounts[length]
        followers = {gram: c for gram, c in counts.items() if gram[:-1] == context}
        if not followers:
            return lower
        total = sum(followers.values())
        count = followers.get((*context, symbol), 0)
        spared = sum(discounts[min(c, 3)] for c in followers.values())
        return (count - discounts[min(count, 3)]) / total + spared / total * lower


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_every_probability_is_the_formulas(order: int) -> None:
    slow, fast = Slow(SENTENCES, VOCABULARY, order), train_ngram(SENTENCES, VOCABULARY, order)
    contexts = {fast.context(tokens[:n]) for tokens in SENTENCES for n in range(len(tokens) + 1)}
    contexts |= {fast.context([VOCABULARY - 1] * 5), fast.context([1, VOCABULARY - 1, 2])}
    for context in contexts:
        expected = [slow.probability(context, symbol) for symbol in range(VOCABULARY)]
        np.testing.assert_allclose(np.exp(fast.scores(context)), expected, rtol=1e-9)


@given(st.lists(st.lists(st.integers(1, 6), max_size=8), min_size=1, max_size=20).filter(any), st.integers(1, 5))
@settings(max_examples=60)
def test_probabilities_sum_to_one(sentences: list[list[int]], order: int) -> None:
    model = train_ngram(sentences, 7, order)
    for context in {model.context(tokens[:n]) for tokens in sentences for n in range(len(tokens) + 1)}:
        shares = np.exp(model.scores(context))
        assert shares.sum() == pytest.approx(1) and (shares > 0).all()


def test_longer_contexts_are_less_surprised_by_what_was_learned() -> None:
    found = [train_ngram(SENTENCES, VOCABULARY, order).perplexity(SENTENCES) for order in (1, 2, 3, 5)]
    assert found == sorted(found, reverse=True) and found[-1] > 1
    model = train_ngram(SENTENCES, VOCABULARY, 3)
    total = sum(model.log_probability(tokens) for tokens in SENTENCES)
    count = sum(len(tokens) + 1 for tokens in SENTENCES)
    assert model.perplexity(SENTENCES) == pytest.approx(math.exp(-total / count))


def test_it_survives_its_folder_and_knows_its_tokenizer(tmp_path: Path) -> None:
    model = train_ngram(SENTENCES, VOCABULARY, 4)
    save_ngram(model, tmp_path / "lm", "these", {"sentences": len(SENTENCES)})
    again = load_ngram(tmp_path / "lm", "these")
    assert again.perplexity(SENTENCES) == pytest.approx(model.perplexity(SENTENCES), rel=1e-3)  # stored in float16
    assert again.calibration is None
    model.calibration = (0.5, -0.25)
    save_ngram(model, tmp_path / "sure", "these", {})
    assert load_ngram(tmp_path / "sure", "these").calibration == (0.5, -0.25)
    with pytest.raises(IsoglossError, match="other symbols"):
        load_ngram(tmp_path / "lm", "others")
    with pytest.raises(IsoglossError, match="no language model"):
        load_ngram(tmp_path, "these")
    weights = tmp_path / "lm" / "ngram.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(IsoglossError, match="damaged"):
        load_ngram(tmp_path / "lm", "these")


@pytest.mark.parametrize(
    ("sentences", "vocabulary", "order", "said"),
    [([], 5, 3, "no text"), ([[]], 5, 3, "no text"), ([[1]], 5, 0, "not between"), ([[1]], 4096, 6, "between 1 and 5")],
)
def test_what_cannot_be_learned_is_told(sentences: list, vocabulary: int, order: int, said: str) -> None:
    with pytest.raises(IsoglossError, match=said):
        train_ngram(sentences, vocabulary, order)
