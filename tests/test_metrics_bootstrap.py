"""Bootstrap intervals: do they cover, do they shrink, do they tell two systems apart."""

import math

import numpy as np
import pytest

from isogloss.errors import IsoglossError
from isogloss.metrics.bootstrap import Interval, bootstrap_interval, mean_rate_interval, paired_difference


def simulate(generator: np.random.Generator, count: int, rate: float) -> tuple[np.ndarray, np.ndarray]:
    totals = generator.integers(3, 20, size=count)
    return generator.binomial(totals, rate), totals


def test_the_interval_covers_the_true_rate_as_often_as_it_says() -> None:
    generator = np.random.default_rng(0)
    covered = 0
    for seed in range(300):
        interval = bootstrap_interval(*simulate(generator, 100, 0.2), resamples=300, seed=seed)
        covered += interval.low <= 0.2 <= interval.high
    assert 0.90 <= covered / 300 <= 0.98  # 0.95 ± about three standard errors


def test_the_width_is_the_analytic_one() -> None:
    errors, totals = simulate(np.random.default_rng(1), 2000, 0.2)
    interval = bootstrap_interval(errors, totals, resamples=2000)
    rate = errors.sum() / totals.sum()
    deviation = np.sqrt(np.sum((errors - rate * totals) ** 2)) / totals.sum()
    assert interval.high - interval.low == pytest.approx(2 * 1.96 * deviation, rel=0.1)
    assert interval.low < rate < interval.high


def test_same_seed_same_interval_and_wider_level_wider_interval() -> None:
    data = simulate(np.random.default_rng(2), 50, 0.3)
    assert bootstrap_interval(*data) == bootstrap_interval(*data)
    assert bootstrap_interval(*data, seed=1) != bootstrap_interval(*data)
    narrow, wide = bootstrap_interval(*data, level=0.5), bootstrap_interval(*data, level=0.99)
    assert wide.low < narrow.low < narrow.high < wide.high


def test_whole_corpora_are_resampled_not_rates_of_utterances() -> None:
    # Were utterance rates averaged, the long correct utterance would count as little as the short ones.
    interval = bootstrap_interval([1] * 10 + [0] * 10, [1] * 10 + [99] * 10)
    assert interval.high < 0.05


def test_exact_and_degenerate_cases() -> None:
    assert bootstrap_interval([2], [10]) == bootstrap_interval([1, 1], [5, 5])
    assert bootstrap_interval([2], [10]).low == 0.2
    for nothing in (bootstrap_interval([], []), bootstrap_interval([3, 0], [0, 0])):
        assert math.isnan(nothing.low) and math.isnan(nothing.high)
    with pytest.raises(ValueError, match="shapes"):
        bootstrap_interval([1, 2], [1])
    for level in (95, 0, math.nan):
        with pytest.raises(ValueError, match="level"):
            bootstrap_interval([1], [1], level=level)
        with pytest.raises(ValueError, match="level"):
            paired_difference([], [], [], level=level)
    with pytest.raises(ValueError, match="resamples must be at least 1"):
        bootstrap_interval([1], [1], resamples=0)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_counts_that_are_no_numbers_are_refused(value: float) -> None:
    with pytest.raises(IsoglossError, match="1 of 3 per-utterance counts are NaN or infinite"):
        bootstrap_interval([1, value, 0], [2, 2, 2])
    with pytest.raises(IsoglossError, match="1 of 2 per-utterance counts"):
        paired_difference([1, 0], [1, 1], [2, value])


def test_blocks_of_resamples_do_not_change_their_number(monkeypatch: pytest.MonkeyPatch) -> None:
    data = simulate(np.random.default_rng(3), 40, 0.3)
    whole = bootstrap_interval(*data, resamples=500)
    monkeypatch.setattr("isogloss.metrics.bootstrap._BLOCK", 40 * 7)
    assert bootstrap_interval(*data, resamples=500) == whole


def test_pairing_finds_a_difference_that_separate_intervals_miss() -> None:
    generator = np.random.default_rng(4)
    totals = generator.integers(5, 20, size=300)
    hardness = generator.beta(0.5, 1.5, size=300)
    shared = generator.binomial(totals, hardness)
    better = np.maximum(shared - (generator.random(300) < 0.2), 0)
    result = paired_difference(better, shared, totals)
    assert result.difference == pytest.approx((better.sum() - shared.sum()) / totals.sum())
    assert result.interval.low < result.difference < result.interval.high < 0
    assert bootstrap_interval(better, totals).high > bootstrap_interval(shared, totals).low


def test_a_system_does_not_differ_from_itself() -> None:
    errors, totals = simulate(np.random.default_rng(5), 50, 0.3)
    result = paired_difference(errors, errors, totals)
    assert (result.difference, result.interval.low, result.interval.high) == (0, 0, 0)
    assert math.isnan(paired_difference([], [], []).difference)


def test_the_mean_of_groups_draws_within_each_of_them() -> None:
    generator = np.random.default_rng(5)
    groups = [simulate(generator, count, share) for count, share in ((400, 0.2), (100, 0.5))]
    found = mean_rate_interval(groups)
    rates = [errors.sum() / totals.sum() for errors, totals in groups]
    deviations = [np.sqrt(np.sum((e - r * t) ** 2)) / t.sum() for (e, t), r in zip(groups, rates, strict=True)]
    assert found.low < np.mean(rates) < found.high
    assert found.high - found.low == pytest.approx(2 * 1.96 * np.hypot(*deviations) / 2, rel=0.1)
    assert mean_rate_interval(groups) == found and mean_rate_interval(groups, seed=1) != found
    # Each group is the same in each of its utterances: whatever is drawn, the mean is that of 0 and 1/2.
    alike = [(np.zeros(3, dtype=np.int64), np.ones(3, dtype=np.int64)), (np.array([1]), np.array([2]))]
    assert mean_rate_interval(alike) == Interval(0.25, 0.25)
