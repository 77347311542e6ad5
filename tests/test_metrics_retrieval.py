"""Retrieval by hand, ties as chance, pools."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isogloss.errors import IsoglossError
from isogloss.metrics.retrieval import pools, retrieval


def test_by_hand() -> None:
    scores = np.array([[0.9, 0.1, 0.2], [0.8, 0.5, 0.1], [0.7, 0.6, 0.3]])
    found = retrieval(scores)  # ranks 1, 2, 3
    assert (found.first, found.five, found.queries) == (pytest.approx(1 / 3), 1.0, 3)
    assert found.reciprocal == pytest.approx((1 + 1 / 2 + 1 / 3) / 3)


@given(st.integers(1, 40))
def test_equal_scores_are_chance(pairs: int) -> None:
    found = retrieval(np.zeros((pairs, pairs)))
    assert found.first == pytest.approx(1 / pairs)
    assert found.five == pytest.approx(min(1.0, 5 / pairs))
    assert found.reciprocal == pytest.approx(sum(1 / rank for rank in range(1, pairs + 1)) / pairs)


def test_a_perfect_score_and_a_ridden_pool() -> None:
    assert retrieval(np.eye(7)).first == 1.0
    doubled = np.kron(np.eye(3), np.ones((2, 2)))  # every candidate is there twice
    assert retrieval(doubled).first == 0.5 and retrieval(doubled).five == 1.0


@given(st.lists(st.integers(0, 3), min_size=36, max_size=36), st.permutations(range(6)))
def test_ties_do_not_depend_on_the_place(values: list[int], order: list[int]) -> None:
    """Whatever the order of the candidates, the figures are the mean over all ways to break the ties."""
    scores = np.array(values, dtype=np.float64).reshape(6, 6)
    moved = scores[np.ix_(order, order)]
    found, again = retrieval(scores), retrieval(moved)
    assert (found.first, found.five, found.reciprocal) == pytest.approx((again.first, again.five, again.reciprocal))
    ranks = [
        [1 + int((row > row[n]).sum()) + earlier for earlier in range(int((row == row[n]).sum()))]
        for n, row in enumerate(scores)
    ]
    assert found.first == pytest.approx(np.mean([np.mean([rank <= 1 for rank in tied]) for tied in ranks]))
    assert found.five == pytest.approx(np.mean([np.mean([rank <= 5 for rank in tied]) for tied in ranks]))
    assert found.reciprocal == pytest.approx(np.mean([np.mean([1 / rank for rank in tied]) for tied in ranks]))


@pytest.mark.parametrize("shape", [(0, 3), (2, 3), (4,)])
def test_what_has_no_diagonal_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="as many queries as candidates"):
        retrieval(np.zeros(shape))


def test_without_queries_there_is_no_figure() -> None:
    found = retrieval(np.zeros((0, 0)))
    assert found.queries == 0 and np.isnan([found.first, found.five, found.reciprocal]).all()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_broken_vectors_are_never_a_perfect_score(value: float) -> None:
    vectors = np.full((5, 3), value)
    with np.errstate(invalid="ignore"), pytest.raises(IsoglossError, match="25 of 25 scores of retrieval are NaN"):
        retrieval(vectors @ vectors.T)
    scores = np.eye(5)
    scores[1, 3] = value
    with pytest.raises(IsoglossError, match="1 of 25 scores"):
        retrieval(scores)


def test_pools_are_drawn_without_repetition() -> None:
    drawn = pools(50, size=20, resamples=5)
    assert len(drawn) == 5 and all(len(set(pool.tolist())) == 20 for pool in drawn)
    assert len({tuple(sorted(pool.tolist())) for pool in drawn}) == 5
    assert [pool.tolist() for pool in pools(3)] == [[0, 1, 2]]
    with pytest.raises(ValueError, match="0 pools of 20 pairs"):
        pools(50, size=20, resamples=0)
