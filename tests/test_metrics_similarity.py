"""Linear CKA: what it does not see, and what it does."""

import math

import pytest
import torch

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
