"""Classifier figures by hand."""

import math

import numpy as np
import pytest

from isogloss.metrics.classification import classification, wilson_interval


def test_by_hand() -> None:
    # ro: precision 2/3, recall 2/3; ca: precision 1/2, recall 1; el: never right.
    result = classification(["ro", "ro", "ro", "ca", "el"], ["ro", "ro", "ca", "ca", "ro"])
    assert result.labels == ("ca", "el", "ro")
    assert result.confusion.tolist() == [[1, 0, 0], [0, 0, 1], [1, 0, 2]]
    assert result.accuracy == 3 / 5
    assert result.macro_f1 == pytest.approx((2 / 3 + 2 / 3 + 0) / 3)
    assert result.interval == wilson_interval(3, 5)


def test_a_label_that_is_only_predicted_is_in_the_matrix_and_not_in_the_mean() -> None:
    result = classification(["ro", "ro"], ["ro", "mo"])
    assert result.labels == ("mo", "ro")
    assert result.confusion.tolist() == [[0, 0], [1, 1]]
    assert result.macro_f1 == pytest.approx(2 / 3)


def test_nothing_and_mismatch() -> None:
    result = classification([], [])
    assert math.isnan(result.accuracy) and math.isnan(result.macro_f1) and result.confusion.shape == (0, 0)
    with pytest.raises(ValueError, match="1 references and 0"):
        classification(["ro"], [])
    for level in (0.0, 1.0, 95, math.nan):
        with pytest.raises(ValueError, match="level"):
            classification(["ro"], ["ro"], level=level)
        with pytest.raises(ValueError, match="level"):
            wilson_interval(0, 0, level=level)


def test_wilson_against_published_values() -> None:
    # Newcombe (1998), table I, method 3.
    for successes, total, low, high in [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ]:
        interval = wilson_interval(successes, total)
        assert (interval.low, interval.high) == pytest.approx((low, high), abs=5e-5)


def test_wilson_is_symmetric_and_covers() -> None:
    low, high = wilson_interval(3, 10), wilson_interval(7, 10)
    assert (low.low, low.high) == pytest.approx((1 - high.high, 1 - high.low))
    successes = np.random.default_rng(0).binomial(40, 0.9, size=2000)
    intervals = [wilson_interval(int(k), 40) for k in successes]
    assert 0.93 <= np.mean([i.low <= 0.9 <= i.high for i in intervals]) <= 0.98
    assert math.isnan(wilson_interval(0, 0).low)
    with pytest.raises(ValueError, match="5 successes of 4"):
        wilson_interval(5, 4)
