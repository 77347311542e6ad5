"""Percentile bootstrap over utterances (Bisani and Ney 2004) for any rate errors / totals."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from isogloss.metrics.checks import finite, require_level

# Resamples are drawn in blocks of about this many entries, so that memory stays near 32 MB.
_BLOCK = 1 << 20


@dataclass(frozen=True)
class Interval:
    """A confidence interval; both ends are NaN if there was nothing to resample."""

    low: float
    high: float


@dataclass(frozen=True)
class PairedDifference:
    """Rate of system A minus rate of system B on the same utterances, with its interval.

    Negative means A is better; an interval without 0 means the difference is not chance.
    """

    difference: float
    interval: Interval


def bootstrap_interval(
    errors: npt.ArrayLike,
    totals: npt.ArrayLike,
    *,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """The interval of sum(errors) / sum(totals) when utterances are drawn again with replacement.

    errors, totals: (N,) per utterance, N utterances. With few utterances (below about 20) or few
    speakers the interval is too narrow: utterances of one speaker are not independent.
    NaN where all totals are 0. Raises ValueError for shapes that differ, no resamples or a level outside (0, 1), and
    IsoglossError for counts that are NaN or infinite.
    """
    require_level(level)
    sums = _resampled_sums(_columns(errors, totals), resamples, seed)
    return _percentiles(_rates(sums[:, 0], sums[:, 1]), level)


def paired_difference(
    errors_a: npt.ArrayLike,
    errors_b: npt.ArrayLike,
    totals: npt.ArrayLike,
    *,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> PairedDifference:
    """Compare two systems on the same utterances: each resample draws the same ones for both.

    errors_a, errors_b, totals: (N,) per utterance. Much sharper than two separate intervals, since
    what is hard for one system is mostly hard for the other. NaN and errors as in `bootstrap_interval`.
    """
    require_level(level)
    columns = _columns(errors_a, errors_b, totals)
    sums = _resampled_sums(columns, resamples, seed)
    whole = columns.sum(axis=0, keepdims=True)
    return PairedDifference(
        difference=float(_rates(whole[:, 0] - whole[:, 1], whole[:, 2])[0]),
        interval=_percentiles(_rates(sums[:, 0] - sums[:, 1], sums[:, 2]), level),
    )


def mean_rate_interval(
    groups: Sequence[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]],
    *,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """The interval of the unweighted mean over groups of sum(errors) / sum(totals).

    groups: (errors, totals), (N,) each. Each resample draws utterances within each group, so that every group stays
    as large as it is.
    """
    generator = np.random.default_rng(seed)
    rates = []
    for errors, totals in groups:
        # How often each utterance is drawn says the same as which ones are, in less memory.
        draws = generator.multinomial(len(totals), np.full(len(totals), 1 / len(totals)), size=resamples)
        rates.append(_rates(draws @ errors, draws @ totals))
    return _percentiles(np.mean(rates, axis=0), level)


def _columns(*values: npt.ArrayLike) -> npt.NDArray[np.float64]:
    arrays = [finite("per-utterance counts", value) for value in values]
    if any(array.ndim != 1 or array.shape != arrays[0].shape for array in arrays):
        raise ValueError(f"per-utterance counts of different shapes: {[array.shape for array in arrays]}")
    return np.stack(arrays, axis=1)


def _resampled_sums(columns: npt.NDArray[np.float64], resamples: int, seed: int) -> npt.NDArray[np.float64]:
    """(N, C) per utterance -> (resamples, C) sums over N utterances drawn with replacement."""
    if resamples < 1:
        raise ValueError(f"resamples must be at least 1, not {resamples}")
    count = len(columns)
    if count == 0:
        return np.zeros((resamples, columns.shape[1]))
    generator = np.random.default_rng(seed)
    block = max(1, _BLOCK // count)
    sums = [
        columns[generator.integers(count, size=(min(block, resamples - start), count))].sum(axis=1)
        for start in range(0, resamples, block)
    ]
    return np.concatenate(sums)


def _rates(errors: npt.NDArray[Any], totals: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """errors / totals, NaN where there is nothing to divide by."""
    return np.divide(errors, totals, out=np.full(errors.shape, math.nan), where=totals > 0)


def _percentiles(rates: npt.NDArray[np.float64], level: float) -> Interval:
    rates = rates[~np.isnan(rates)]
    if not len(rates):
        return Interval(math.nan, math.nan)
    low, high = np.quantile(rates, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high))
