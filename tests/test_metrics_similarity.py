"""Linear CKA: what it does not see, and what it does."""

import math

import pytest
import torch

from isogloss.errors import IsoglossError
from isogloss.metrics.similarity import linear_cka


def test_turning_moving_and_scaling_change_nothing() -> None:
    torch.manual_seed(0)
    x = torch.randn(300, 6)
    turn = torch.linalg.qr(torch.randn(6, 6))[0]
    assert linear_cka(x, x) == pytest.approx(1.0)
    assert linear_cka(x, 3 * x @ turn + 5) == pytest.approx(1.0)
    assert linear_cka(x, torch.randn(300, 6)) < 0.1


def test_it_is_the_formula() -> None:
    """tr(K L) / sqrt(tr(K K) tr(L L)) with centred Gram matrices."""
    torch.manual_seed(1)
    x, y = torch.randn(20, 3, dtype=torch.float64), torch.randn(20, 5, dtype=torch.float64)
    centre = torch.eye(20, dtype=torch.float64) - 1 / 20
    own, other = centre @ x @ x.T @ centre, centre @ y @ y.T @ centre
    expected = (own * other).sum() / (own.square().sum() * other.square().sum()).sqrt()
    assert linear_cka(x, y) == pytest.approx(float(expected))
    assert linear_cka(x, y) == pytest.approx(linear_cka(y, x))


def test_what_does_not_vary_has_no_figure() -> None:
    assert math.isnan(linear_cka(torch.ones(5, 2), torch.randn(5, 2)))
    assert math.isnan(linear_cka(torch.randn(7, 2), torch.full((7, 2), 0.1)))  # whose mean is not quite 0.1
    assert math.isnan(linear_cka(torch.randn(1, 2), torch.randn(1, 2)))
    assert math.isnan(linear_cka(torch.zeros(0, 2), torch.zeros(0, 3)))


def test_what_is_broken_is_refused() -> None:
    x = torch.randn(5, 2)
    for value in (math.nan, math.inf):
        with pytest.raises(IsoglossError, match="NaN or infinite"):
            linear_cka(x, torch.where(x == x.max(), value, x))
    for other in (torch.randn(4, 2), torch.randn(5)):
        with pytest.raises(ValueError, match=r"compares \(N, D\) with \(N, E\)"):
            linear_cka(x, other)
