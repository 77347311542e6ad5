"""Span masks and dropout: rates, reach and where the randomness comes from."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import nn
from torch.testing import assert_close

from isogloss.nn.dropout import Dropout, evaluating
from isogloss.nn.masking import padded_masks, share_mask, span_mask, start_probability


def draw(frames: int, p: float, span: int, seed: int) -> NDArray[np.bool_]:
    return span_mask(frames, p, span, np.random.default_rng(seed))


def runs(row: list[bool]) -> list[tuple[int, int]]:
    """(start, end) of each run of True."""
    found, start = [], None
    for position, value in enumerate([*row, False]):
        if value and start is None:
            start = position
        elif not value and start is not None:
            found.append((start, position))
            start = None
    return found


@pytest.mark.parametrize(("p", "span"), [(0.01, 40), (0.02, 30), (0.065, 10), (0.0413, 20)])
def test_the_rate_is_the_papers(p: float, span: int) -> None:
    """1 - (1 - p)^span, over 1,000 clips of 15 s."""
    random = np.random.default_rng(0)
    share = np.mean([span_mask(1500, p, span, random).mean() for _ in range(1000)])
    assert abs(share - (1 - (1 - p) ** span)) < 0.02


@given(
    frames=st.integers(0, 300), p=st.floats(0.001, 0.5), span=st.integers(1, 60), seed=st.integers(0, 1000)
)
@settings(max_examples=150)
def test_spans_are_whole_and_inside(frames: int, p: float, span: int, seed: int) -> None:
    mask = draw(frames, p, span, seed)
    assert mask.shape == (frames,) and mask.dtype == np.bool_
    assert all(end - start >= span or end == frames for start, end in runs(mask.tolist()))


def test_no_length_raises() -> None:
    for frames in range(0, 2001, 7):
        assert draw(frames, 0.01, 40, seed=frames).shape == (frames,)
        assert share_mask(frames, 0.15, 20, np.random.default_rng(frames)).shape == (frames,)


@pytest.mark.parametrize(("share", "span"), [(0.15, 20), (0.5, 20), (0.5, 5), (0.15, 1)])
@pytest.mark.parametrize("size", [10, 30, 100, 400])
def test_short_rows_are_hidden_like_long_ones(share: float, span: int, size: int) -> None:
    random = np.random.default_rng(0)
    masks = np.stack([share_mask(size, share, span, random) for _ in range(2000)])
    assert masks.any(axis=1).all() and abs(masks.mean() - share) < 0.06
    longest = min(span, round(share * size))
    for row in masks[:50].tolist():
        assert all(end - start >= longest for start, end in runs(row))


@pytest.mark.parametrize(("symbols", "hidden"), [(0, 0), (1, 1), (2, 1)])
def test_a_share_of_anything_is_inside(symbols: int, hidden: int) -> None:
    for seed in range(20):
        assert share_mask(symbols, 0.15, 20, np.random.default_rng(seed)).sum() == hidden
    assert share_mask(2, 0.9, 20, np.random.default_rng(0)).all()


def test_every_frame_can_start_and_only_the_generator_decides() -> None:
    assert draw(50, 0.999999, 10, seed=0).all()
    np.random.seed(1)
    first = draw(500, 0.02, 20, seed=4)
    np.random.seed(2)
    assert np.array_equal(first, draw(500, 0.02, 20, seed=4))
    assert not np.array_equal(first, draw(500, 0.02, 20, seed=5))


def test_a_longer_clip_begins_with_the_mask_of_a_shorter_one() -> None:
    """So that frames which are cut off, or only padding, hide nothing of the others."""
    assert np.array_equal(draw(900, 0.02, 20, seed=4)[:500], draw(500, 0.02, 20, seed=4))


def test_rows_are_padded_with_what_is_not_masked() -> None:
    found = padded_masks([np.array([True, False, True]), np.zeros(0, np.bool_), np.array([True])], 4)
    assert found.tolist() == [[True, False, True, False], [False] * 4, [True, False, False, False]]
    assert padded_masks([np.zeros(0, np.bool_)], 0).shape == (1, 0)


@pytest.mark.parametrize(("share", "span"), [(0.331, 40), (0.57, 10), (0.3, 3.5)])
def test_a_share_is_reached_by_its_start_probability(share: float, span: float) -> None:
    assert 1 - (1 - start_probability(share, span)) ** span == pytest.approx(share)


@pytest.mark.parametrize("p", [0.1, 0.5])
def test_dropout_keeps_the_mean_and_drops_its_share(p: float) -> None:
    torch.manual_seed(0)
    dropout, x = Dropout(p), torch.ones(333, 1001)
    y = dropout(x)
    assert abs(float((y == 0).float().mean()) - p) < 0.005
    assert abs(float(y.mean()) - 1) < 0.01
    assert len(y.unique()) == 2
    # Neighbours share a 64-bit draw and must be independent all the same.
    together = ((y[:, 1:] == 0) & (y[:, :-1] == 0)).float().mean()
    assert abs(float(together) - p * p) < 0.005


def test_evaluation_ends_as_it_began() -> None:
    outer = nn.Sequential(Dropout(0.5), nn.Sequential(Dropout(0.5)).eval(), Dropout(0.5).eval())
    before = [part.training for part in outer.modules()]
    with evaluating(outer):
        assert not any(part.training for part in outer.modules())
    assert [part.training for part in outer.modules()] == before == [True, True, False, False, False]


def test_dropout_rests_in_evaluation_and_at_zero() -> None:
    x = torch.randn(5, 7)
    assert Dropout(0.5).eval()(x) is x
    assert Dropout(0.0).train()(x) is x


def test_dropout_is_seeded_and_its_gradient_is_its_mask() -> None:
    x = torch.randn(9, 11, dtype=torch.float64, requires_grad=True)
    dropout = Dropout(0.3)
    torch.manual_seed(3)
    y = dropout(x)
    torch.manual_seed(3)
    assert torch.equal(y, dropout(x))
    (gradient,) = torch.autograd.grad(y.sum(), x)
    assert_close(gradient * x, y)


def test_dropout_of_nothing_and_of_bf16() -> None:
    assert Dropout(0.1)(torch.zeros(0, 4)).shape == (0, 4)
    assert Dropout(0.1)(torch.ones(3, 5, dtype=torch.bfloat16)).dtype == torch.bfloat16
