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


@pytest.mark.parametrize("shape", [(0, 0), (2, 3), (4,)])
def test_nothing_to_retrieve_is_told(shape: tuple[int, ...]) -> None:
    with pytest.raises(IsoglossError, match="as many queries as candidates"):
        retrieval(np.zeros(shape))


def test_pools_are_drawn_without_repetition() -> None:
    drawn = pools(50, size=20, resamples=5)
    assert len(drawn) == 5 and all(len(set(pool.tolist())) == 20 for pool in drawn)
    assert len({tuple(sorted(pool.tolist())) for pool in drawn}) == 5
    assert [pool.tolist() for pool in pools(3)] == [[0, 1, 2]]
