"""Calibration: the error against its definition, and the fit against outcomes drawn from a known truth."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isogloss.decoding.words import Calibration
from isogloss.errors import IsoglossError
from isogloss.metrics.calibration import BINS, expected_calibration_error, fit_log_odds
from isogloss.metrics.error_rates import right_words


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=60))
def test_the_error_is_its_definition(items):
    expected = 0.0
    for number in range(BINS):
        inside = [(c, r) for c, r in items if min(int(c * BINS), BINS - 1) == number]
        if inside:
            gap = np.mean([r for _, r in inside]) - np.mean([c for c, _ in inside])
            expected += len(inside) / len(items) * abs(gap)
    claimed, right = zip(*items, strict=True)
    assert expected_calibration_error(claimed, right) == pytest.approx(expected, abs=1e-12)


def test_nothing_has_no_error_and_lists_must_match():
    assert math.isnan(expected_calibration_error([], []))
    assert fit_log_odds([], []) == (1.0, 0.0)
    for figure in (expected_calibration_error, fit_log_odds):
        with pytest.raises(ValueError, match="2 claims and 1 items"):
            figure([0.5, 0.5], [True])


@pytest.mark.parametrize("figure", [expected_calibration_error, fit_log_odds])
def test_claims_are_probabilities(figure):
    with pytest.raises(IsoglossError, match="1 of 2 claims are NaN"):
        figure([0.5, math.nan], [True, False])
    for wrong in (-0.1, 1.5):
        with pytest.raises(ValueError, match="no probabilities"):
            figure([0.5, wrong], [True, False])


@pytest.mark.parametrize(("slope", "offset"), [(0.4, 1.0), (2.0, -1.0), (1.0, 0.0)])
def test_the_fit_finds_the_truth_behind_the_outcomes(slope, offset):
    random = np.random.default_rng(0)
    claimed = random.uniform(0.02, 0.98, 20_000)
    truth = np.array([Calibration(slope, offset)(p) for p in claimed])
    right = random.random(20_000) < truth
    found = fit_log_odds(claimed, right)
    assert found == pytest.approx((slope, offset), abs=0.08)
    before = expected_calibration_error(claimed, right)
    after = expected_calibration_error([Calibration(*found)(p) for p in claimed], right)
    assert after < 0.02 and after <= before + 0.005


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), max_size=40))
def test_the_fit_stays_finite_whatever_happened(items):
    claimed, right = [c for c, _ in items], [r for _, r in items]
    calibration = Calibration(*fit_log_odds(claimed, right))
    assert all(0 <= calibration(p) <= 1 for p in (0.0, 0.3, 1.0))


def test_words_are_right_where_the_alignment_has_them():
    assert right_words(["a b c d", "x", ""], ["a c c d e", "", "y z"]) == [
        [True, False, True, True, False],
        [],
        [False, False],
    ]
