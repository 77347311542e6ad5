"""Error rates against hand-made cases and a textbook dynamic programme."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isogloss.metrics.error_rates import (
    ErrorRate,
    error_counts,
    error_rates,
    matching_words,
    nearest_to_others,
    right_words,
)


@pytest.mark.parametrize(
    ("reference", "hypothesis", "unit", "expected"),
    [
        ("the cat sat", "the cat sat", "word", ErrorRate(0.0, 0, 0, 0, 3)),
        ("the cat sat", "the bat sat", "word", ErrorRate(1 / 3, 1, 0, 0, 3)),
        ("the cat sat", "cat sat", "word", ErrorRate(1 / 3, 0, 1, 0, 3)),
        ("the cat", "oh the fat cat", "word", ErrorRate(1.0, 0, 0, 2, 2)),
        ("a", "b c d", "word", ErrorRate(3.0, 1, 0, 2, 1)),
        ("a b", "", "word", ErrorRate(1.0, 0, 2, 0, 2)),
        ("ab cd", "abcd", "character", ErrorRate(1 / 5, 0, 1, 0, 5)),
        ("हिन्दी", "हन्दी", "character", ErrorRate(1 / 6, 0, 1, 0, 6)),
        ("a  b ", " a\tb", "word", ErrorRate(0.0, 0, 0, 0, 2)),
        ("a  b ", " a\u00a0b", "character", ErrorRate(0.0, 0, 0, 0, 3)),
    ],
)
def test_by_hand(reference: str, hypothesis: str, unit: str, expected: ErrorRate) -> None:
    assert error_rates([reference], [hypothesis], unit) == expected  # type: ignore[arg-type]


def test_the_corpus_counts_and_not_the_mean_of_utterances() -> None:
    result = error_rates(["a", "b c d e f g h i j"], ["x", "b c d e f g h i j"])
    assert result == ErrorRate(1 / 10, 1, 0, 0, 10)


def test_an_empty_reference_adds_its_insertions() -> None:
    assert error_rates(["", "a b"], ["x y", "a b"]) == ErrorRate(2 / 2, 0, 0, 2, 2)


@pytest.mark.parametrize(("texts", "insertions"), [(([], []), 0), ((["", ""], ["x", ""]), 1)])
def test_without_reference_units_there_is_no_rate(
    texts: tuple[list[str], list[str]], insertions: int
) -> None:
    result = error_rates(*texts)
    assert math.isnan(result.rate)
    assert (result.insertions, result.total) == (insertions, 0)


def test_lists_of_different_length_are_refused() -> None:
    for figure in (error_rates, error_counts, matching_words, right_words):
        with pytest.raises(ValueError, match="1 references and 2"):
            figure(["a"], ["a", "b"])
        with pytest.raises(ValueError, match="0 references and 1"):
            figure([], ["a"])


def test_nothing_matches_nothing() -> None:
    assert matching_words([], []) == right_words([], []) == []
    assert matching_words([""], ["a"]) == [[]] and right_words([""], ["a"]) == [[False]]


def distance(a: list[str], b: list[str]) -> int:
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, start=1):
        diagonal, row[0] = row[0], i
        for j, y in enumerate(b, start=1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (x != y))
    return row[-1]


sentences = st.lists(st.text(alphabet="abc ", max_size=8), max_size=6)


@given(sentences, sentences)
@settings(max_examples=200)
def test_counts_equal_the_edit_distance_of_each_utterance(first: list[str], second: list[str]) -> None:
    pairs = list(zip(first, second, strict=False))
    references, hypotheses = [a for a, _ in pairs], [b for _, b in pairs]
    words = error_counts(references, hypotheses, "word")
    assert words.errors.tolist() == [distance(a.split(), b.split()) for a, b in pairs]
    assert words.totals.tolist() == [len(a.split()) for a in references]
    characters = error_counts(references, hypotheses, "character")
    tidy = [(" ".join(a.split()), " ".join(b.split())) for a, b in pairs]
    assert characters.errors.tolist() == [distance(list(a), list(b)) for a, b in tidy]
    assert (words.insertions - words.deletions).tolist() == [
        len(b.split()) - len(a.split()) for a, b in pairs
    ]


@given(st.lists(st.text("abc ", max_size=6), min_size=1, max_size=12))
def test_nothing_is_nearer_to_the_others_than_the_nearest(texts: list[str]) -> None:
    def errors(always: str) -> int:
        return int(error_counts(texts, [always] * len(texts), "character").errors.sum())

    found = nearest_to_others(texts)
    assert found in texts
    assert errors(found) == min(map(errors, texts))


def test_the_nearest_is_looked_for_in_a_sample() -> None:
    texts = [f"{number:03d}" for number in range(300)]
    assert nearest_to_others(texts) == nearest_to_others(texts)
    assert nearest_to_others(texts, most=1, seed=3) in texts
