"""Heads: the contract, and CTC against enumeration of every path."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from contracts import Contract, Subject
from isogloss.heads.classifier import Classifier
from isogloss.heads.ctc import CTCHead
from isogloss.nn.ctc import ctc_loss, frames_needed, infeasible
from isogloss.sequence import Sequence
from isogloss.text.tokenizers import BLANK

WIDTH = 16
FLOAT32 = {"dtype": torch.float32, "tolerance": 2e-5}
SUBJECTS = [
    Subject("ctc", lambda: CTCHead(WIDTH, 11), lambda m, x: m(x).unpad(), (WIDTH,), **FLOAT32),
    Subject("classifier", lambda: Classifier(WIDTH, 5), lambda m, x: list(m(x)), (WIDTH,), **FLOAT32),
]


@pytest.mark.parametrize("subject", SUBJECTS, ids=str)
class TestContract(Contract):
    pass


def posteriors(frames: int, symbols: int, seed: int = 0) -> Tensor:
    """(T, V) log-probabilities."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(frames, symbols, generator=generator, dtype=torch.float64).log_softmax(dim=-1)


def collapse(path: tuple[int, ...]) -> list[int]:
    """Merge runs, then drop blanks."""
    return [symbol for symbol, _ in itertools.groupby(path) if symbol != BLANK]


def enumerate_paths(log_probabilities: Tensor, tokens: list[int]) -> float:
    """-log of the summed probability of all V^T paths that collapse to the tokens."""
    frames, symbols = log_probabilities.shape
    total = 0.0
    for path in itertools.product(range(symbols), repeat=frames):
        if collapse(path) == tokens:
            total += math.exp(sum(float(log_probabilities[t, s]) for t, s in enumerate(path)))
    return -math.log(total) if total else math.inf


TARGETS = [[], [1], [2, 1], [1, 1], [1, 2, 1], [2, 2, 1], [1, 1, 1]]


@pytest.mark.parametrize("frames", [1, 2, 3, 4, 5])
def test_the_loss_sums_every_path(frames: int) -> None:
    values = posteriors(frames, 3, seed=frames)
    batch = Sequence(values.expand(len(TARGETS), -1, -1), torch.full((len(TARGETS),), frames))
    tokens = Sequence.from_list([torch.tensor(target, dtype=torch.int64) for target in TARGETS])
    losses, hopeless = ctc_loss(batch, tokens), infeasible(batch.lengths, tokens)
    for target, loss, impossible in zip(TARGETS, losses.tolist(), hopeless.tolist(), strict=True):
        expected = enumerate_paths(values, target)
        assert impossible == math.isinf(expected) == (frames_needed(target) > frames)
        assert loss == pytest.approx(0.0 if impossible else expected, abs=1e-6)


def test_the_loss_does_not_look_at_padding() -> None:
    items = [posteriors(5, 4), posteriors(3, 4, seed=1)]
    tokens = [torch.tensor([1, 2, 2]), torch.tensor([3])]
    alone = [
        ctc_loss(Sequence.from_list([item]), Sequence.from_list([target]))[0]
        for item, target in zip(items, tokens, strict=True)
    ]
    frames, symbols = Sequence.from_list(items), Sequence.from_list(tokens)
    frames = frames.with_values(torch.where(frames.valid[..., None], frames.values, torch.nan))
    symbols = symbols.with_values(torch.where(symbols.valid, symbols.values, 1))
    assert_close(ctc_loss(frames, symbols), torch.stack(alone))
    assert infeasible(torch.tensor([4, 1]), symbols).tolist() == [False, False]
    assert infeasible(torch.tensor([3, 0]), symbols).tolist() == [True, True]


def test_the_gradient_is_that_of_enumeration_and_zero_without_a_path() -> None:
    logits = torch.randn(2, 3, 3, dtype=torch.float64, requires_grad=True)
    tokens = Sequence.from_list([torch.tensor([1]), torch.tensor([1, 1, 2])])  # the second needs 4 frames
    lengths = torch.tensor([3, 3])
    ctc_loss(Sequence(logits.log_softmax(dim=-1), lengths), tokens).sum().backward()
    assert logits.grad is not None
    assert torch.equal(logits.grad[1], torch.zeros(3, 3, dtype=torch.float64))
    step = 1e-5
    for t, v in itertools.product(range(3), range(3)):
        moved = logits.detach().clone()
        moved[0, t, v] += step
        up = enumerate_paths(moved[0].log_softmax(dim=-1), [1])
        moved[0, t, v] -= 2 * step
        down = enumerate_paths(moved[0].log_softmax(dim=-1), [1])
        assert float(logits.grad[0, t, v]) == pytest.approx((up - down) / (2 * step), abs=1e-6)


def test_a_batch_of_silence_has_a_loss() -> None:
    """No transcript holds a symbol: the only path is blanks."""
    values = posteriors(4, 3)[None].expand(2, -1, -1)
    empty = Sequence(torch.zeros(2, 0, dtype=torch.int64), torch.zeros(2, dtype=torch.int64))
    losses = ctc_loss(Sequence(values, torch.tensor([4, 2])), empty)
    assert_close(losses, -torch.stack([values[0, :4, 0].sum(), values[0, :2, 0].sum()]))
    assert infeasible(torch.tensor([0, 4]), empty).tolist() == [False, False]


@given(st.lists(st.integers(1, 3), max_size=12))
@settings(max_examples=60)
def test_frames_needed_is_the_shortest_path(tokens: list[int]) -> None:
    path = []
    for symbol in tokens:
        path += [BLANK, symbol] if path and path[-1] == symbol else [symbol]
    assert frames_needed(tokens) == len(path)
    batch = Sequence.from_list([torch.tensor(tokens, dtype=torch.int64)] * 2)
    assert infeasible(torch.tensor([len(path), len(path) - 1]), batch).tolist() == [False, True]


def test_the_head_gives_log_probabilities_in_float32() -> None:
    head = CTCHead(8, 5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        scores = head(Sequence(torch.randn(2, 7, 8), torch.tensor([7, 4])))
    assert scores.values.dtype == torch.float32
    assert_close(scores.values.exp().sum(dim=-1), torch.ones(2, 7))
