"""A figure with what it takes to judge it: its interval, how much it rests on, and what proves nothing.

All intervals are 95 %. A figure that is not defined (nothing to divide by) has no value; it is never NaN.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from pydantic import Field, FiniteFloat

from isogloss.config import Config
from isogloss.metrics.bootstrap import Interval, bootstrap_interval, mean_rate_interval

RESAMPLES = 1000


class Figure(Config):
    """One measured value."""

    value: FiniteFloat | None = Field(description="in the unit of its measure; None where it is not defined")
    items: int = Field(description="how many items it rests on")
    low: FiniteFloat | None = Field(None, description="lower end of the 95 % interval")
    high: FiniteFloat | None = Field(None, description="upper end of the 95 % interval")
    deviation: FiniteFloat | None = Field(None, description="standard deviation, instead of an interval")
    baselines: dict[str, FiniteFloat] = Field({}, description="what trivial systems reach, by their names")


def figure(
    value: float, items: int, interval: Interval | None = None, baselines: Mapping[str, float] | None = None
) -> Figure:
    """A value, with its interval if it has one; NaN becomes None."""
    ends = {} if interval is None else {"low": _defined(interval.low), "high": _defined(interval.high)}
    return Figure(value=_defined(value), items=items, baselines=dict(baselines or {}), **ends)


def rate(errors: npt.ArrayLike, totals: npt.ArrayLike, baselines: Mapping[str, float] | None = None) -> Figure:
    """Errors over units, (N,) each of N clips; the interval is that of the bootstrap over clips."""
    wrong, units = np.asarray(errors), np.asarray(totals)
    value = float(wrong.sum() / units.sum()) if units.sum() else math.nan
    return figure(value, len(units), bootstrap_interval(wrong, units, resamples=RESAMPLES), baselines)


def mean_of_rates(
    groups: Sequence[tuple[npt.ArrayLike, npt.ArrayLike]], baselines: Mapping[str, float] | None = None
) -> Figure:
    """The unweighted mean of the rates of groups (errors, totals); each resample draws clips within each group."""
    counts = [(np.asarray(errors), np.asarray(totals)) for errors, totals in groups]
    value = float(np.mean([errors.sum() / totals.sum() for errors, totals in counts]))
    interval = mean_rate_interval(counts, resamples=RESAMPLES)
    return figure(value, sum(len(totals) for _, totals in counts), interval, baselines)


def repeated(values: Sequence[float], items: int, baselines: Mapping[str, float] | None = None) -> Figure:
    """Mean and standard deviation of what repetitions gave: pools, seeds, folds of so many items each.

    One alone has no deviation.
    """
    deviation = _defined(float(np.std(values))) if len(values) > 1 else None
    return Figure(
        value=_defined(float(np.mean(values))), items=items, deviation=deviation, baselines=dict(baselines or {})
    )


def _defined(value: float) -> float | None:
    return None if math.isnan(value) else value
