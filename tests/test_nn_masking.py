"""Span masks and dropout: rates, reach and where the randomness comes from."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.testing import assert_close

from isogloss.nn.dropout import Dropout, evaluating
from isogloss.nn.masking import poisson_mask, share_mask, span_mask


def draw(lengths: list[int], frames: int, p: float, span: int, seed: int) -> torch.Tensor:
    return span_mask(torch.tensor(lengths), frames, p, span, torch.Generator().manual_seed(seed))


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


@pytest.mark.parametrize(("p", "span"), [(0.01, 40), (0.02, 30), (0.065, 10)])
def test_the_rate_is_the_papers(p: float, span: int) -> None:
    """1 - (1 - p)^span, over 1,000 clips of 15 s."""
    mask = draw([1500] * 1000, 1500, p, span, seed=0)
    assert abs(float(mask.float().mean()) - (1 - (1 - p) ** span)) < 0.02


@given(
    lengths=st.lists(st.integers(0, 300), min_size=1, max_size=5),
    extra=st.integers(0, 50),
    p=st.floats(0.001, 0.5),
    span=st.integers(1, 60),
    seed=st.integers(0, 1000),
)
@settings(max_examples=150)
def test_spans_are_whole_and_inside(lengths: list[int], extra: int, p: float, span: int, seed: int) -> None:
    mask = draw(lengths, max(lengths) + extra, p, span, seed)
    assert mask.shape == (len(lengths), max(lengths) + extra)
    for row, n in zip(mask.tolist(), lengths, strict=True):
        for start, end in runs(row):
            assert end <= n
            assert end - start >= span or end == n


def test_no_length_raises() -> None:
    for frames in range(1, 2001, 7):
        mask = draw([frames, frames // 2], frames, 0.01, 40, seed=frames)
        assert not mask[1, frames // 2 :].any()
    assert draw([0], 0, 0.01, 40, seed=0).shape == (1, 0)


@pytest.mark.parametrize(("share", "mean"), [(0.3, 3.5), (0.15, 5.0), (0.5, 2.0)])
def test_poisson_spans_hide_about_their_share(share: float, mean: float) -> None:
    lengths = torch.tensor([2000, 0, 1200])
    mask = poisson_mask(lengths, 2000, share, mean, torch.Generator().manual_seed(0))
    assert mask.shape == (3, 2000) and not mask[1].any() and not mask[2, 1200:].any()
    assert abs(float(mask.sum()) / 3200 - share) < 0.05
    edges = torch.nn.functional.pad(mask[0].long(), (1, 1)).diff()
    runs = (edges == -1).nonzero()[:, 0] - (edges == 1).nonzero()[:, 0]
    assert float(runs.double().mean()) > mean * 0.9  # spans that touch are one run
    again = poisson_mask(lengths, 2000, share, mean, torch.Generator().manual_seed(0))
    assert torch.equal(mask, again)


@pytest.mark.parametrize(("share", "span"), [(0.15, 20), (0.5, 20), (0.5, 5), (0.15, 1)])
@pytest.mark.parametrize("size", [10, 30, 100, 400])
def test_short_rows_are_hidden_like_long_ones(share: float, span: int, size: int) -> None:
    mask = share_mask(torch.full((2000,), size), size, share, span, torch.Generator().manual_seed(0))
    assert mask.any(dim=1).all() and abs(float(mask.float().mean()) - share) < 0.06
    longest = min(span, round(share * size))
    for row in mask[:50].tolist():
        assert all(end - start >= longest for start, end in runs(row))


def test_a_share_of_anything_is_inside_and_padding_draws_nothing() -> None:
    def hidden(frames: int) -> torch.Tensor:
        return share_mask(torch.tensor([0, 1, 2, 50]), frames, 0.15, 20, torch.Generator().manual_seed(3))

    mask = hidden(50)
    assert not mask[0].any() and mask[1].sum() == 1 and mask[2].sum() == 1 and not mask[2, 2:].any()
    assert torch.equal(hidden(70)[:, :50], mask) and not hidden(70)[:, 50:].any()


def test_every_frame_can_start_and_only_the_generator_decides() -> None:
    assert draw([50], 50, 0.999999, 10, seed=0).all()
    torch.manual_seed(1)
    first = draw([500, 300], 500, 0.02, 20, seed=4)
    torch.manual_seed(2)
    assert torch.equal(first, draw([500, 300], 500, 0.02, 20, seed=4))
    assert not torch.equal(first, draw([500, 300], 500, 0.02, 20, seed=5))


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
