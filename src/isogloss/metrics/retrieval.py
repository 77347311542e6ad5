"""Retrieval: how often the nearest of a pool of candidates is the right one.

Query n belongs to candidate n. Candidates that are as near as the right one share its places evenly, as if ties
were broken by chance: a score that is the same for all is worth exactly chance.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from isogloss.metrics.checks import finite


@dataclass(frozen=True)
class Retrieval:
    """Shares of queries whose candidate is the nearest, or among the five nearest; mean reciprocal rank.

    NaN without queries.
    """

    first: float
    five: float
    reciprocal: float
    queries: int


def retrieval(scores: npt.NDArray[np.float64]) -> Retrieval:
    """Scores (N, N) of N queries (rows) and N candidates, higher is nearer -> how often the diagonal wins.

    Raises ValueError for another shape, and IsoglossError for scores that are NaN or infinite.
    """
    if scores.ndim != 2 or scores.shape[0] != scores.shape[1]:
        raise ValueError(f"Retrieval needs as many queries as candidates, not {scores.shape}.")
    if not len(scores):
        return Retrieval(math.nan, math.nan, math.nan, 0)
    scores = finite("scores of retrieval", scores)
    right = np.diagonal(scores)[:, None]
    nearer = (scores > right).sum(axis=1)
    ties = (scores == right).sum(axis=1)  # the right one among them
    first, five = (float(np.clip((most - nearer) / ties, 0.0, 1.0).mean()) for most in (1, 5))
    harmonic = np.concatenate([[0.0], np.cumsum(1 / np.arange(1, len(scores) + 1))])
    reciprocal = (harmonic[nearer + ties] - harmonic[nearer]) / ties
    return Retrieval(first, five, float(reciprocal.mean()), len(scores))


def pools(pairs: int, size: int = 1000, resamples: int = 5, seed: int = 0) -> list[npt.NDArray[np.int64]]:
    """Random pools of `size` of the pairs; all of them, once, where there are no more.

    Raises ValueError for pools of nothing.
    """
    if size < 1 or resamples < 1:
        raise ValueError(f"{resamples} pools of {size} pairs hold nothing")
    if pairs <= size:
        return [np.arange(pairs)]
    random = np.random.default_rng(seed)
    return [random.choice(pairs, size, replace=False) for _ in range(resamples)]
